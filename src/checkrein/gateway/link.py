"""The gateway's link to the buses: that of a process with the SDK, and more.

It speaks for the runs that the gateway itself began, like any holder of runs. Besides, it hears the
orders to all other holders, and reads the level of every run when it connects: so a run that is
held or halted anywhere is held or refused here, whether or not its own process hears of it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from checkrein.bus import orders, subjects
from checkrein.bus.messages import Order, SessionGrant, SessionRequest
from checkrein.bus.types import Bus, BusError, Message
from checkrein.sdk import quiet
from checkrein.sdk.asking import Question
from checkrein.sdk.config import Endpoint
from checkrein.sdk.links.bus import BusLink
from checkrein.sdk.links.obedience import SHUT_ONLY
from checkrein.sdk.links.records import ordered_of
from checkrein.sdk.links.session import NoSession
from checkrein.sdk.links.shipping import Shipping
from checkrein.sdk.links.types import Process, nobody
from checkrein.sdk.rein import Ordered
from checkrein.sdk.run import Run

if TYPE_CHECKING:
    from checkrein.bus.orders import Inbox

LEVEL = "L1"
"""What the gateway answers for: calls with its keys, and those only."""
STANDING_MAX = 20_000
LEARN_S = 2.0
RETRY_S = 0.5
_SELF = Endpoint("gateway")
_STATES = orders.STATE_VERBS | {"escalate"}
_FOR_MODELS = frozenset({"inject", "redirect"})


class GatewayLink(BusLink):
    """`fenced(run)` is told, from the link's thread, whenever an order has changed a run."""

    kind = "gateway"

    def __init__(
        self,
        process: Process,
        ask: Callable[[Endpoint, SessionRequest], SessionGrant],
        connect: Callable[[SessionGrant], Awaitable[tuple[Bus, Bus]]],
        shipping: Shipping,
        fenced: Callable[[Run], None],
    ) -> None:
        super().__init__(process, lambda: _SELF, ask, connect, shipping)
        self._fenced = fenced
        self._key = b""
        self._standing: OrderedDict[str, Ordered] = OrderedDict()
        self._own_agents: list[str] = []
        self.announcing: set[str] = set()
        """Runs whose own process announces its calls, and so places directives itself."""

    @property
    def session(self) -> str:
        return self._session

    def changed(self, run: Run) -> None:
        super().changed(run)
        self._fenced(run)

    def ask(self, question: Question) -> None:
        """Also for runs of others: control holds a gateway's question against the run's own."""
        if not self._session:
            question.told(nobody(question))
        elif not self._questions.add(question):
            question.told(nobody(question, "too many questions wait at this gateway already"))
        else:
            self._wake()

    async def learn(self, agent: str) -> bool:
        """Whether what is in force for the agent is known here; asks for it if it is not. False:
        nobody answered in time. From any loop."""
        loop = self._loop
        if agent in self._own_agents:
            return True
        if loop is None:
            return False
        learning = asyncio.run_coroutine_threadsafe(self._learn(agent), loop)
        with suppress(TimeoutError, BusError, NoSession):
            async with asyncio.timeout(LEARN_S):
                return await asyncio.wrap_future(learning)
        return False

    def catch_up(self, run: Run) -> None:
        """A run of another holder is known here from now on: what stands ordered of it holds."""
        order = self._standing.get(run.run_id)
        if order is not None:
            run.obey(order)

    def fence_reported(self, run: Run, cut: int, open_calls: int) -> None:
        """What is in flight of a halted or held run was cut: says so, as seen here."""
        order = run.hold.rein.order
        if order is None or order.verb not in ("halt", "pause", "escalate"):
            return
        if order.verb == "halt":
            self._report(order, run.run_id, "fence", f"{cut} calls in flight were cut")
        elif open_calls == 0:
            self._report(order, run.run_id, "held", "its next call waits at the gateway")

    def contained_reported(self, agent: str, command_id: str, cut: int) -> None:
        order = Ordered(command_id=command_id, verb="contain", epoch=0)
        self._report(order, "", "fence", f"{agent}: {cut} calls in flight were cut")

    def released_reported(self, agent: str, command_id: str) -> None:
        order = Ordered(command_id=command_id, verb="release", epoch=0)
        self._report(order, "", "obeyed", agent)

    def _report(
        self, order: Ordered, run_id: str, stage: str, detail: str, nonce: str = ""
    ) -> None:
        """A fence is reported when nothing is in flight behind it any more (`fence_reported`), not
        when no new call begins."""
        if stage != "fence" or detail != SHUT_ONLY:
            super()._report(order, run_id, stage, detail, nonce)

    def _obey(self, order: Order, run_id: str, epoch: int) -> None:
        """A probe may ask about others' runs: those whose calls come by here could be refused."""
        if order.verb != "probe":
            super()._obey(order, run_id, epoch)
        elif run_id in self._process.runs:
            self._report(ordered_of(order, epoch), run_id, "probe", LEVEL, nonce=order.nonce)

    # -- in the thread ------------------------------------------------------------------------

    def _sees(self, stage: str, run_id: str) -> bool:
        return stage in ("fence", "held", "obeyed", "probe")

    def _covers(self, agents: list[str]) -> bool:
        return True

    async def _learn(self, agent: str) -> bool:
        """Raises BusError, NoSession."""
        self._agents.add(agent)
        control = self._control
        if control is None:
            return False
        await self._granted(_SELF, sorted(self._agents))
        await self._pact_news.ask_once([agent], control, self._session)
        if agent not in self._own_agents:
            self._own_agents.append(agent)
        return True

    async def _until_stopped(
        self, endpoint: Endpoint, agents: list[str], grant: SessionGrant, events: Bus,
        control: Bus, inbox: "Inbox",
    ) -> None:  # fmt: skip
        self._own_agents[:] = agents
        await super()._until_stopped(endpoint, self._own_agents, grant, events, control, inbox)

    async def _listen(self, control: Bus, inbox: "Inbox") -> None:
        self._key = inbox.key

        async def overheard(message: Message) -> None:
            self._overhear(message.data)

        await super()._listen(control, inbox)
        await control.subscribe("cmd.*", overheard)
        for entry in await (await control.bucket(subjects.BUCKET_DESIRED)).entries():
            if entry.value:
                self._overhear(entry.value)

    async def _besides(self, control: Bus) -> None:
        """Follows the level: who missed an edge finds it here."""
        bucket = await control.bucket(subjects.BUCKET_DESIRED)
        while True:
            try:
                async for entry in bucket.watch():
                    if entry.value:
                        self._overhear(entry.value)
            except BusError as error:
                quiet.warn_once("levels", "checkrein: the level cannot be followed: %s", error)
            await self._world.sleep(RETRY_S)

    def _overhear(self, data: bytes) -> None:
        """An order to somebody else, if it is genuine: its runs are held to it here too."""
        try:
            order = orders.verify(data, self._key)
        except orders.OrderRefused as error:
            quiet.refused_orders[error.why] += 1
            quiet.warn_once(f"order {error.why}", "checkrein: %s", error)
            return
        if order.session == self._session:
            return
        for run in order.runs:
            if order.verb in _STATES:
                self._state(order, run.run_id, run.epoch)
            elif order.verb in _FOR_MODELS:
                self._act(ordered_of(order, run.epoch), run.run_id)

    def _state(self, order: Order, run_id: str, epoch: int) -> None:
        standing = self._standing.get(run_id)
        if standing is not None and standing.epoch >= epoch and order.verb != "halt":
            return
        ordered = ordered_of(order, epoch)
        if standing is None or standing.verb != "halt":
            self._standing[run_id] = ordered
            self._standing.move_to_end(run_id)
            while len(self._standing) > STANDING_MAX:
                self._standing.popitem(last=False)
        self._receipts.arrived(order.command_id)
        run = self._process.runs.get(run_id)
        if run is not None and run.inherited:
            run.obey(ordered)

    def _act(self, order: Ordered, run_id: str) -> None:
        """A directive for a run in whose process nobody would place it."""
        run = self._process.runs.get(run_id)
        if run is not None and run.inherited and run_id not in self.announcing:
            answer = run.obey(order)
            if answer.taken == "taken":
                self._report(order, run_id, "obeyed", "placed in the next request at the gateway")
