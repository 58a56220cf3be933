"""The link of a process without a supervisor: one background thread with its own event loop and
both bus connections.

It asks the server for a session, ships what is recorded, registers the runs, beats each second,
and obeys control's signed orders: those that come as messages, and after every (re)connect the
level that stands in the bucket. A server that is not there is looked for again, for ever.
"""

import asyncio
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from checkrein.bus import subjects
from checkrein.bus.messages import Holder, Order, SessionGrant, SessionRequest
from checkrein.bus.types import Bus, BusError, Message
from checkrein.sdk import quiet
from checkrein.sdk.aside import aside
from checkrein.sdk.asking import Question
from checkrein.sdk.config import Endpoint
from checkrein.sdk.links.beats import Beats
from checkrein.sdk.links.contact import Contact
from checkrein.sdk.links.leasing import Leasing
from checkrein.sdk.links.obedience import Obedience
from checkrein.sdk.links.pact_news import PactNews
from checkrein.sdk.links.questions import Questions, ask_all, say_rest
from checkrein.sdk.links.receipts import Receipts
from checkrein.sdk.links.records import ordered_of
from checkrein.sdk.links.registering import Registering
from checkrein.sdk.links.renewal import keep_renewed
from checkrein.sdk.links.session import NoSession
from checkrein.sdk.links.shipping import Shipping
from checkrein.sdk.links.types import Process, nobody
from checkrein.sdk.rein import Ordered
from checkrein.sdk.run import Run

if TYPE_CHECKING:
    from checkrein.bus.orders import Inbox

BEAT_S = 1.0
BEATS_APART_S = 0.1
LOOK_S = 5.0
"""How often a server is looked for where none is known."""
RETRY_S = 1.0


Connect = Callable[[SessionGrant], Awaitable[tuple[Bus, Bus]]]
"""(events bus, control bus) for a grant. Raises BusError."""


class _Stop(Exception):  # ends the task group, is no error
    """Serving ends: the process closes, or more agents need a new session."""


class BusLink:
    """See `sdk.links.types.Link`. `kind`: which holder of runs this is."""

    kind: Holder = "sdk"

    def __init__(
        self,
        process: Process,
        find: Callable[[], Endpoint | None],
        ask: Callable[[Endpoint, SessionRequest], SessionGrant],
        connect: Connect,
        shipping: Shipping,
    ) -> None:
        self._process = process
        self._world = process.world
        self._agents = {process.config.agent}
        self._obedience = Obedience(process.runs, self._report)
        self._contact = Contact(process.runs, process.world)
        self._find = find
        self._ask = ask
        self._connect = connect
        self._shipping = shipping
        self._receipts = Receipts(process.world, self.kind)
        self._beats = Beats()
        self._registering = Registering(process, self.kind)
        self._pacts: dict[str, str] = {}
        self._leasing = Leasing(process.recalled)
        self._pact_news = PactNews(process)
        self._session = ""
        self._settled = threading.Event()
        self._closing = False
        self._drain_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event | None = None
        self._questions = Questions(process.world)
        self._asked: asyncio.Event | None = None
        self._control: Bus | None = None
        self._thread: threading.Thread | None = None

    @property
    def connected(self) -> bool:
        control = self._control
        return control is not None and control.connected

    def start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="checkrein-link", daemon=True)
        self._thread.start()

    def wait_settled(self, seconds: float) -> None:
        self._settled.wait(seconds)

    def pact_of(self, agent: str) -> str | None:
        return self._pacts.get(agent) or None

    def began(self, run: Run) -> None:
        self._agents.add(run.info.agent)
        self._wake()

    def ended(self, run: Run) -> None:
        self._obedience.gone(run)
        self._beats.ended(run)
        self._wake()

    def changed(self, run: Run) -> None:
        self._obedience.look(run)
        self._wake()

    def settled(self, run: Run) -> None:
        self._obedience.look(run)

    def ask(self, question: Question) -> None:
        run = question.run
        if not self._session:
            question.told(nobody(question))
        elif getattr(run, "inherited", False):
            question.told(nobody(question, "a forked process asks in a run of its own only"))
        elif not self._questions.add(question):
            question.told(nobody(question, "too many questions wait in this process already"))
        else:
            self._wake()

    def unask(self, question: Question) -> None:
        self._questions.drop(question)
        self._wake()

    def lease(self, request: bytes, answered: Callable[[bytes], None]) -> bool:
        loop = self._loop
        return self.connected and loop is not None and self._leasing.ask(loop, request, answered)

    def close(self, seconds: float) -> None:
        self._closing = True
        self._drain_s = seconds
        self._wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds + 1.0)

    def _wake(self) -> None:
        loop = self._loop
        for event in (self._woken, self._asked):
            if loop is not None and event is not None:
                with suppress(RuntimeError):  # the loop is closed: the thread has ended
                    loop.call_soon_threadsafe(event.set)

    def _report(
        self, order: Ordered, run_id: str, stage: str, detail: str, nonce: str = ""
    ) -> None:
        seen = self._sees(stage, run_id)
        self._receipts.add(self._session, order, run_id, stage, detail, nonce, seen)
        self._wake()

    def _sees(self, stage: str, run_id: str) -> bool:
        """Whether what is reported was seen from outside the run; an agent's own process cannot."""
        return False

    def _covers(self, agents: list[str]) -> bool:
        """Whether the session may speak for all that this process is by now."""
        return self._agents <= set(agents)

    # -- in the thread ------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:
            quiet.fault("the link to the server", error)
        finally:
            self._settled.set()

    async def _main(self) -> None:
        self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()
        self._pact_news.opened()
        while not self._closing:
            try:
                await self._turn()
            except asyncio.CancelledError:
                # Nobody cancels this task: Python before 3.11.4 can leave a cancellation behind
                # when a timeout and the end of a task group meet.
                task = asyncio.current_task()
                while task is not None and task.cancelling():
                    task.uncancel()

    async def _turn(self) -> None:
        """Finds the server and serves one session, or waits a little."""
        endpoint = self._find()
        if endpoint is None:
            quiet.warn_once(
                "no server", "checkrein: no server is known (start `checkrein up`, or set "
                "CHECKREIN_URL); recording locally in %s", self._process.config.recorders,
            )  # fmt: skip
            self._settled.set()
            await self._nap(LOOK_S)
            return
        try:
            await self._serve(endpoint)
        except (NoSession, BusError) as error:
            quiet.warn_once(
                "no session", "checkrein: no contact with the server, going on locally: %s",
                error,
            )  # fmt: skip
        except Exception as error:
            quiet.fault("serving a session", error)
        self._settled.set()
        self._contact.lost()
        if not self._closing:
            await self._nap(RETRY_S)

    async def _nap(self, seconds: float) -> None:
        """Sleeps, unless the process closes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._closing:
                    await self._next_wake()
        self._contact.look()

    async def _next_wake(self) -> None:
        if self._woken is not None:
            await self._woken.wait()
            self._woken.clear()

    async def _serve(self, endpoint: Endpoint) -> None:
        """One session, from its grant to the loss of it. Raises NoSession, BusError."""
        from checkrein.bus.orders import Inbox

        agents = sorted(self._agents)
        grant = await self._granted(endpoint, agents)
        self._session = grant.session
        inbox = Inbox(grant.session, bytes.fromhex(grant.control_key), self._world)
        events, control = await self._connect(grant)
        try:
            await self._listen(control, inbox)
            self._control = control
            self._contact.back()
            self._settled.set()
            self._registering.again()
            await self._until_stopped(endpoint, agents, grant, events, control, inbox)
        finally:
            self._control = None
            for bus in (control, events):
                with suppress(BusError, TimeoutError):
                    async with asyncio.timeout(2.0):
                        await bus.close()

    async def _granted(self, endpoint: Endpoint, agents: list[str]) -> SessionGrant:
        config = self._process.config
        request = SessionRequest(
            kind=self.kind, agents=agents, session=self._session, room=config.room,
            environment=config.environment, host=socket.gethostname(), pid=os.getpid(),
        )  # fmt: skip
        grant = await aside(self._ask, endpoint, request)
        self._pacts.update(grant.pacts)
        self._pact_news.granted(grant)
        return grant

    async def _until_stopped(
        self, endpoint: Endpoint, agents: list[str], grant: SessionGrant, events: Bus,
        control: Bus, inbox: "Inbox",
    ) -> None:  # fmt: skip
        again = partial(self._granted, endpoint, agents)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._shipping.run(events, set(agents), stop))
            try:
                async with asyncio.TaskGroup() as serving:
                    serving.create_task(keep_renewed(grant, again, events, control, self._world))
                    serving.create_task(self._attend(agents, control, inbox))
                    serving.create_task(self._pact_news.run(agents, control, self._session))
                    serving.create_task(self._ask_all(control, bytes.fromhex(grant.control_key)))
                    serving.create_task(self._leasing.run(control, self._session))
                    serving.create_task(self._besides(control))
            except* _Stop:
                if self._closing:
                    await self._last_words(control, bytes.fromhex(grant.control_key))
            finally:
                stop.set()

    async def _besides(self, control: Bus) -> None:
        """What another kind of holder does for as long as a connection serves."""

    async def _ask_all(self, control: Bus, key: bytes) -> None:
        self._asked = asyncio.Event()
        self._questions.nudge()
        session = self._session
        await ask_all(
            self._questions, self._asked, control, session, key, lambda: control.connected
        )

    async def _last_words(self, control: Bus, key: bytes) -> None:
        with suppress(BusError, TimeoutError):
            async with asyncio.timeout(self._drain_s):
                await self._beat(control)
                await self._receipts.flush(control)
                await say_rest(self._questions, control, self._session, key)
        if control.connected:
            await self._shipping.drain(self._drain_s)

    async def _listen(self, control: Bus, inbox: "Inbox") -> None:
        async def heard(message: Message) -> None:
            self._accept(inbox, message.data)

        await control.subscribe(subjects.command(self._session), heard)
        await control.subscribe(subjects.recall(self._session), self._leasing.recalled)
        await self._pact_news.listen(control, self._session)

        def connection(up: bool) -> None:
            if up:
                self._pact_news.tell()
                self._registering.again()
                self._contact.back()
                self._questions.nudge()
                self._wake()
            else:
                self._contact.lost()

        control.on_connection(connection)

    async def _attend(self, agents: list[str], control: Bus, inbox: "Inbox") -> None:
        """What is waiting to be said is said as it comes, and a beat each second."""
        loop = asyncio.get_running_loop()
        beat_at = 0.0
        while True:
            if self._closing or not self._covers(agents):
                raise _Stop
            try:
                await self._receipts.flush(control)
                if control.connected:
                    await self._registering.run(
                        control, self._session, lambda data: self._accept(inbox, data)
                    )
                if loop.time() >= beat_at:
                    await self._beat(control)
                    beat_at = loop.time() + BEAT_S
            except BusError as error:
                quiet.warn_once("control", "checkrein: the control bus does not answer: %s", error)
            if not control.connected:
                self._contact.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.01, beat_at - loop.time())):
                    await self._next_wake()
                    beat_at = min(beat_at, loop.time() + BEATS_APART_S)

    async def _beat(self, control: Bus) -> None:
        held = list(self._process.runs.values())
        await self._beats.say(control, self._session, self._world.now_ns(), held)

    def _accept(self, inbox: "Inbox", data: bytes) -> None:
        """Obeys an order if it is genuine; a false one is counted and warned about."""
        from checkrein.bus.orders import OrderRefused

        try:
            accepted = inbox.accept(data)
        except OrderRefused as error:
            quiet.refused_orders[error.why] += 1
            quiet.warn_once(f"order {error.why}", "checkrein: %s", error)
            refused = Ordered(command_id=error.command_id, verb="", epoch=0)
            self._report(refused, "", "refused", f"{error.why}: {error.detail}")
            return
        order = accepted.order
        self._receipts.arrived(order.command_id)
        epochs = {run.run_id: run.epoch for run in order.runs}
        for run_id in [*(run.run_id for run in accepted.runs), *accepted.again]:
            self._obey(order, run_id, epochs[run_id])
        for run_id, why in accepted.refused:
            if run_id not in accepted.again:
                self._report(ordered_of(order, epochs[run_id]), run_id, "refused", why)

    def _obey(self, order: Order, run_id: str, epoch: int) -> None:
        ordered = ordered_of(order, epoch)
        if order.verb in ("approve", "deny"):
            self._questions.nudge(str(order.arguments.get("approval_id", "")))
            self._wake()
        elif order.verb != "probe":
            self._obedience.take(ordered, run_id)
        elif run_id in self._process.runs:
            self._report(ordered, run_id, "probe", "", nonce=order.nonce)
        else:
            self._report(ordered, run_id, "failed", "this process holds no such run")
