"""The role `control`: the thin edge around `checkrein.control.core.Control`.

The loop of this process does one thing: messages in, `Control.step`, orders and answers out, at
once. Buckets, audit records and events are written behind it by tasks of their own, tried again
until they are stored; the halt path never waits for any of them. What waits to be written is
bounded; what goes over is counted and said in the log.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from checkrein.bus import subjects
from checkrein.bus.approvals import Approval, Escalation, GateQuery
from checkrein.bus.identities import Contained
from checkrein.bus.messages import (
    Beat,
    CommandRequest,
    CommandState,
    LiveQuery,
    MessageError,
    Registered,
    Registration,
    RunRecord,
    decode,
    encode,
    progress_of,
)
from checkrein.bus.sessions import objection_to_run
from checkrein.bus.types import Bucket, BusError, Message, Subscription
from checkrein.control.core import Control
from checkrein.control.signing import OrderSigner, load_signer
from checkrein.control.types import (
    Action,
    Asking,
    Audit,
    Beating,
    Changed,
    Hearing,
    Input,
    Keep,
    Misread,
    Notify,
    Registering,
    Reply,
    Reporting,
    Revoke,
    Save,
    Send,
    Tell,
    Tick,
)
from checkrein.server.context import RoleContext
from checkrein.server.control_gates import Gatekeeper, session_of
from checkrein.server.control_keys import RunKeys
from checkrein.server.control_reading import levels_in, next_generation, read_all
from checkrein.server.control_writing import Auditor, Keeper, Notifier, Saver, Teller
from checkrein.server.gateways import Gateways
from checkrein.server.ledger import LedgerDesk
from checkrein.server.sessions import Sessions
from checkrein.server.webhook import Webhook

_log = logging.getLogger(__name__)

ANSWER_BYTES_MAX = 1_800_000
DRAIN_S = 3.0
RECORD_EVERY_S = 5.0
LIMIT_ALL = 1_000_000


async def run(context: RoleContext) -> None:
    """Serves until `context.stop`. Raises BusError when the control bus does not give back what was
    written there: without it, old orders could win over new ones."""
    signer = load_signer(context.data / "keys", context.world)
    edge = await Edge.open(context, signer)
    ledger = await LedgerDesk.open(
        context.control_bus, edge.sessions, context.world, edge.auditor.add
    )
    edge.keep_ledger(ledger)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in (*edge.works(), *ledger.works())]
        subscriptions = [*await edge.listen(), *await ledger.listen()]
        context.ready()
        await context.stop.wait()
        for subscription in subscriptions:
            await subscription.close()
        await edge.drain()
        for task in tasks:
            task.cancel()


class Edge:
    """Feeds the state machine and carries out what it says."""

    def __init__(
        self,
        context: RoleContext,
        control: Control,
        buckets: dict[str, Bucket],
        sessions: Sessions,
        gateways: Gateways,
    ) -> None:
        self._context = context
        self.sessions = sessions
        self._gateways = gateways
        self._bus = context.control_bus
        self._world = context.world
        self.control = control
        self._ledger: LedgerDesk | None = None
        self._nudge = asyncio.Event()
        self._next_due_ns = 0
        self._records = buckets[subjects.BUCKET_CONTROL]
        self._savers = {
            "level": Saver(buckets[subjects.BUCKET_DESIRED], control, "level", self._world, 0.0, 4),
            "run": Saver(buckets[subjects.BUCKET_RUNS], control, "run", self._world, 0.02, 2),
            "command": Saver(
                buckets[subjects.BUCKET_COMMANDS], control, "command", self._world, 0.1, 1
            ),
        }
        gates = {
            "approval": buckets[subjects.BUCKET_APPROVALS],
            "escalation": buckets[subjects.BUCKET_ESCALATIONS],
            "contained": buckets[subjects.BUCKET_CONTAINED],
        }
        self.keys = RunKeys(buckets[subjects.BUCKET_RUN_TOKENS], control, self.feed, self._world)
        self._keeper = Keeper(gates, control, self._world, self._send)
        self._gates = Gatekeeper(self._bus, control, sessions, self.feed)
        self._webhook = Webhook.of(os.environ, self._world)
        self._teller = Teller(context.bus, self._world)
        self.auditor = Auditor(self._bus, self._world)
        self._notifier = Notifier(self._bus, self._world)

    @classmethod
    async def open(cls, context: RoleContext, signer: OrderSigner) -> "Edge":
        """Reads back what earlier starts wrote, and takes the next generation of epochs."""
        bus = context.control_bus
        buckets = {
            name: await bus.bucket(name)
            for name in (
                subjects.BUCKET_CONTROL,
                subjects.BUCKET_DESIRED,
                subjects.BUCKET_RUNS,
                subjects.BUCKET_COMMANDS,
                subjects.BUCKET_APPROVALS,
                subjects.BUCKET_ESCALATIONS,
                subjects.BUCKET_CONTAINED,
                subjects.BUCKET_RUN_TOKENS,
            )
        }
        records = buckets[subjects.BUCKET_CONTROL]
        generation = await next_generation(records)
        clock = await records.get("clock")
        sessions = await Sessions.open(bus, context.world)
        gateways = await Gateways.open(bus, context.world)
        control = Control(
            signer, context.world, generation, sessions.known,
            not_before=decode(clock.value, int) if clock and clock.value else 0,
            gateways=gateways.live,
        )  # fmt: skip
        await records.put("clock", encode(control.clock_wanted))
        edge = cls(context, control, buckets, sessions, gateways)
        actions = control.restore(
            await read_all(buckets[subjects.BUCKET_RUNS], RunRecord),
            await read_all(buckets[subjects.BUCKET_COMMANDS], CommandState),
            await levels_in(buckets[subjects.BUCKET_DESIRED], signer.public),
            await read_all(buckets[subjects.BUCKET_APPROVALS], Approval),
            await read_all(buckets[subjects.BUCKET_ESCALATIONS], Escalation),
            await read_all(buckets[subjects.BUCKET_CONTAINED], Contained),
        )
        await edge.carry_out(actions)
        await edge.keys.read()
        bus.on_connection(edge.on_connection)
        return edge

    def keep_ledger(self, ledger: LedgerDesk) -> None:
        """Approvals that raise shared budgets are told to it; those of an earlier start now."""
        self._ledger = ledger
        for approval in self.control.approvals(GateQuery(all=True, limit=LIMIT_ALL)):
            ledger.approved(approval)

    def _raise_budgets(self, approval_id: str) -> None:
        if self._ledger is not None:
            for approval in self.control.approvals(GateQuery(ids=[approval_id], all=True)):
                self._ledger.approved(approval)

    async def listen(self) -> list[Subscription]:
        bus = self._bus
        handlers: dict[str, Callable[[Message], Awaitable[None]]] = {
            subjects.CONTROL_COMMAND: self._on_command,
            subjects.receipts("*"): self._on_receipts,
            subjects.registration("*"): self._on_registration,
            subjects.beat("*"): self._on_beat,
            subjects.CONTROL_RUNS: self._on_runs,
            subjects.CONTROL_COMMANDS: self._on_commands,
            **self._gates.handlers(),
        }
        return [await bus.subscribe(subject, handler) for subject, handler in handlers.items()]

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """Everything that goes on beside the handlers."""
        works = [self._tick(), self._reserve(), self._teller.work(), self.auditor.work()]
        works += [self._notifier.work(), self.sessions.follow(), self._keeper.work()]
        works += [self._gateways.follow(), *self.keys.works()]
        if self._webhook is not None:
            works.append(self._webhook.work())
        for saver in self._savers.values():
            works += saver.works()
        return works

    async def drain(self) -> None:
        """Waits, for a bounded time, until what is known is written."""
        writers: list[Saver | Keeper | Teller | Auditor | RunKeys] = [
            *self._savers.values(),
            self._keeper,
            self.keys,
            self._teller,
            self.auditor,
        ]
        deadline = self._world.monotonic_ns() + round(DRAIN_S * 1e9)
        await self.feed(Tick())
        while any(writer.waiting for writer in writers):
            if self._world.monotonic_ns() > deadline:
                _log.warning("control stops with %d writes undone; the next start makes them good",
                             sum(writer.waiting for writer in writers))  # fmt: skip
                return
            await self.feed(Tick())
            await asyncio.sleep(0.01)

    async def feed(self, given: Input) -> None:
        await self.carry_out(self.control.step(given))

    async def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send | Reply):
                await self._send(action)
            else:
                self._note(action)
        if self.control.due_ns < self._next_due_ns:
            self._nudge.set()

    async def _send(self, action: Send | Reply) -> None:
        if isinstance(action, Send):
            await self._publish(self._bus.publish(action.subject, action.data))
        elif isinstance(action.token, Message):
            await self._publish(self._bus.respond(action.token, action.data))

    def on_connection(self, up: bool) -> None:
        for action in self.control.step(Hearing(up)):
            self._note(action)

    def _note(self, action: Action) -> None:
        match action:
            case Save():
                self._savers[action.kind].add(action.key)
            case Keep():
                if action.kind == "approval":
                    self._raise_budgets(action.key)
                self._keeper.add(action)
            case Notify():
                if self._webhook is not None:
                    self._webhook.add(action)
            case Tell():
                self._teller.add(action.event)
            case Audit():
                self.auditor.add(action)
            case Revoke():
                self.keys.revoke(action.run_id)
            case Changed():
                self._notifier.add(action)
            case Send() | Reply():
                raise AssertionError("an edge is sent, not noted")

    async def _publish(self, sending: Awaitable[None]) -> None:
        """An edge may be lost: it is repeated until it is answered."""
        try:
            await sending
        except BusError as error:
            _log.warning("control could not send: %s", error)

    async def _tick(self) -> None:
        while True:
            wait_ns = self.control.due_ns - self._world.monotonic_ns()
            if wait_ns > 0:
                self._next_due_ns = self.control.due_ns
                self._nudge.clear()
                try:
                    async with asyncio.timeout(wait_ns / 1e9):
                        await self._nudge.wait()
                except TimeoutError:
                    pass
                else:
                    continue
            else:
                await asyncio.sleep(0)
            await self.feed(Tick())

    async def _reserve(self) -> None:
        """Keeps what is on record ahead of the epochs and the times in use."""
        recorded = self.control.generation_wanted
        while True:
            await self._world.sleep(RECORD_EVERY_S)
            wanted = self.control.generation_wanted
            try:
                await self._records.put("clock", encode(self.control.clock_wanted))
                if recorded < wanted:
                    await self._take(wanted)
                    recorded = wanted
            except BusError as error:
                _log.warning("control could not record its epochs and clock: %s", error)

    async def _take(self, generation: int) -> None:
        """One more generation, unless another control has taken it (then ours must end with its
        epochs)."""
        entry = await self._records.get("generation")
        if entry is not None and entry.value and decode(entry.value, int) < generation:
            await self._records.update("generation", encode(generation), entry.revision)
            self.control.reserved(generation)
        else:
            _log.error("another control has started on this bus: stop one of them")

    async def _on_command(self, message: Message) -> None:
        try:
            request = decode(message.data, CommandRequest)
        except MessageError as error:
            state = CommandState(
                command_id="", verb="", target="", reason="", issued_by="", asked_at=0,
                done=True, error=str(error),
            )  # fmt: skip
            await self._publish(self._bus.respond(message, encode(state)))
            return
        await self.feed(Asking(request, message))

    async def _on_receipts(self, message: Message) -> None:
        session = session_of(message)
        try:
            progress = progress_of(message.data)
        except MessageError as error:
            await self.feed(Misread(session, message.subject, str(error)))
            return
        await self.feed(Reporting(session, progress))

    async def _on_registration(self, message: Message) -> None:
        session = session_of(message)
        try:
            registration = decode(message.data, Registration)
        except MessageError as error:
            await self.feed(Misread(session, message.subject, str(error)))
            answer = encode(Registered(error=str(error)))
            await self._publish(self._bus.respond(message, answer))
            return
        known = self.sessions.known.get(session)
        if known is None or any(objection_to_run(known, run) for run in registration.runs):
            await self.sessions.look(session)  # it may be newer than what has come by
        await self.feed(Registering(session, registration, message))

    async def _on_beat(self, message: Message) -> None:
        session = session_of(message)
        try:
            beat = decode(message.data, Beat)
        except MessageError as error:
            await self.feed(Misread(session, message.subject, str(error)))
            return
        await self.feed(Beating(session, beat, message if message.reply else None))

    async def _on_runs(self, message: Message) -> None:
        await self._answer(message, self.control.runs)

    async def _on_commands(self, message: Message) -> None:
        await self._answer(message, self.control.commands)

    async def _answer(self, message: Message, ask: Callable[[LiveQuery], object]) -> None:
        try:
            query = decode(message.data, LiveQuery) if message.data else LiveQuery()
        except MessageError:
            query = LiveQuery()
        while True:
            data = encode(ask(query))
            if len(data) <= ANSWER_BYTES_MAX or query.limit <= 1:
                break
            query = LiveQuery(
                ids=query.ids[: len(query.ids) // 2], after=query.after, limit=query.limit // 2
            )
        await self._publish(self._bus.respond(message, data))
