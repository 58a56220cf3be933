"""The supervisor's connection to control: a session, one bus connection, registration, beats,
orders and receipts. Goes on for ever: whatever breaks is made anew, and what control ordered
meanwhile is read from the level when it is back.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from checkrein.bus import subjects
from checkrein.bus.messages import (
    Beat,
    BeatAnswer,
    MessageError,
    Registered,
    Registration,
    SessionGrant,
    decode,
    encode,
)
from checkrein.bus.orders import Inbox
from checkrein.bus.pacts import Newer
from checkrein.bus.signed_pacts import PactInbox
from checkrein.bus.types import Bus, BusError, Message
from checkrein.supervise.seeking import seek
from checkrein.supervise.session import SessionError
from checkrein.supervise.supervisor import Supervisor

_log = logging.getLogger(__name__)

BEAT_S = 1.0
HELD_EVERY_S = 5.0
"""How often the server is told which pacts hold here, and asked for newer ones."""
RETRY_S_MIN = 0.2
RETRY_S_MAX = 3.0
LOST_S_MAX = 4.0
"""Away for so long, the buses may be somewhere else: the session is asked for again."""
REGISTER_AT_ONCE_MAX = 200
LAST_WORDS_S = 1.0
HALTED_WORDS_S = 5.0
ENDED_BEATS_MAX = 30

T = TypeVar("T")
Ask = Callable[[list[str], str], Awaitable[SessionGrant]]
Connect = Callable[[SessionGrant], Awaitable[Bus]]
Granted = Callable[[SessionGrant], None]


class Link:
    """`ask(agents, session)` gets or renews the session; `connect(grant)` makes the connection to
    the control bus; `granted` is told of every grant (the shipper needs it, too)."""

    def __init__(
        self, supervisor: Supervisor, ask: Ask, connect: Connect, granted: Granted | None = None
    ) -> None:
        self._supervisor = supervisor
        self._world = supervisor.world
        self._ask = ask
        self._connect = connect
        self._granted = granted
        self._bus: Bus | None = None
        self._agents: set[str] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._seeks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._again = asyncio.Event()
        self._level_due = asyncio.Event()
        self._ended_beats: dict[str, int] = {}
        self._lost_at_ns: int | None = None
        self.grant: SessionGrant | None = None
        self._renew = False
        self.settled = asyncio.Event()
        """Set once there is a connection, or the first try has failed."""
        self.linked = asyncio.Event()
        self.error = ""

    async def run(self) -> None:
        """Until `stop`, or until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            works = (
                self._keep(), self._send(), self._beat(), self._level(), self._tell_pacts(),
                self._supervisor.leasing.work(self._now),
            )  # fmt: skip
            mine = [tasks.create_task(work) for work in works]
            await self._stop.wait()
            for task in (*mine, *self._seeks):
                task.cancel()

    def stop(self) -> None:
        """Ends `run` soon. The loops look at this as well as being cancelled: before Python 3.12 a
        cancellation that meets an answer is lost inside `asyncio.wait_for`."""
        self._stop.set()

    async def close(self) -> None:
        """Says what is left to say, then leaves; bounded by LAST_WORDS_S. The end of what was
        halted is said for up to HALTED_WORDS_S: control may just be starting again, and nobody
        else could confirm it later."""
        bus = self._bus
        if bus is None:
            return
        halted = any(unit.ladder.halting for unit in self._supervisor.units.values())
        with suppress(TimeoutError):
            async with asyncio.timeout(HALTED_WORDS_S if halted else LAST_WORDS_S):
                while not await self._say_all(bus, patiently=halted):
                    await self._world.sleep(0.1)
        self._bus = None
        await bus.close()

    async def _say_all(self, bus: Bus, patiently: bool) -> bool:
        try:
            await self._register(bus)
            await self._send_reports(bus)
            return await self._beat_once(bus)
        except BusError as error:
            _log.info("cannot say how it ended: %s", error)
            return not patiently

    # -- the session and the connection ----------------------------------------------------------

    async def _keep(self) -> None:
        wait_s = RETRY_S_MIN
        while not self._stop.is_set():
            try:
                await self._once()
                wait_s = RETRY_S_MIN
                self.error = ""
            except (SessionError, BusError) as error:
                if str(error) != self.error:
                    self.error = str(error)
                    _log.info("no contact: %s", error)
                self.settled.set()
                await self._world.sleep(wait_s)
                wait_s = min(wait_s * 1.6, RETRY_S_MAX)
                continue
            self.settled.set()
            await self._rest()

    async def _once(self) -> None:
        """A session for all agents; a new connection unless the old one will do."""
        supervisor = self._supervisor
        agents = sorted(supervisor.needs)
        before = self.grant
        grant = await self._ask(agents, supervisor.session)
        same = (
            before is not None
            and before.control_urls == grant.control_urls
            and before.control_key == grant.control_key
            and self._bus is not None
        )
        self.grant, self._agents, self._renew = grant, set(agents), False
        self._take_pacts(grant)
        if not same:
            await self._connect_anew(grant)
        renew = getattr(self._bus, "renew", None)
        if renew is not None:
            renew_credential(self._bus, grant)
        if self._granted is not None:
            self._granted(grant)

    def _take_pacts(self, grant: SessionGrant) -> None:
        supervisor = self._supervisor
        for agent, text in grant.pacts.items():
            if text:
                supervisor.pacts.setdefault(agent, text)
        key = bytes.fromhex(grant.control_key)
        if supervisor.pact_inbox is None or supervisor.pact_inbox.key != key:
            supervisor.pact_inbox = PactInbox(key, supervisor.environment)
        for signed in grant.pact_sets.values():
            supervisor.hear_pact(signed)
        supervisor.held_changed.set()

    async def _connect_anew(self, grant: SessionGrant) -> None:
        old, self._bus = self._bus, None
        if old is not None:
            await old.close()
        bus = await self._connect(grant)
        supervisor = self._supervisor
        if supervisor.inbox is None or supervisor.session != grant.session:
            key = bytes.fromhex(grant.control_key)
            supervisor.join_session(grant.session, Inbox(grant.session, key, self._world))
        bus.on_connection(self.turned)
        await bus.subscribe(subjects.command(grant.session), self._order)
        await bus.subscribe(subjects.recall(grant.session), self._recall)
        await bus.subscribe(subjects.pact(grant.session), self._pact)
        await bus.subscribe(subjects.PACTS_ASK, self._asked_for_pacts)
        self._bus = bus
        self._lost_at_ns = None
        await self._register_all(bus)
        self._level_due.set()
        self.linked.set()

    async def _rest(self) -> None:
        """Until the session must be renewed: half its life, more agents, contact lost for long."""
        grant = self.grant
        half_s = 60.0
        if grant is not None and grant.expires_at:
            half_s = max(1.0, (grant.expires_at - self._world.now_ns()) / 2e9)
        until_ns = self._world.monotonic_ns() + round(half_s * 1e9)
        while self._world.monotonic_ns() < until_ns and not self._stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._again.wait()
            self._again.clear()
            if self._renew or not self._supervisor.needs <= self._agents:
                return
            lost = self._lost_at_ns
            if lost is not None and self._world.monotonic_ns() - lost > LOST_S_MAX * 1e9:
                return

    def turned(self, up: bool) -> None:
        """The connection was lost, or is back: then all is registered and the level read anew."""
        if up:
            self._lost_at_ns = None
            for record in self._supervisor.records():
                self._supervisor.to_register[record.run_id] = record
            self._supervisor.changed.set()
            self._supervisor.held_changed.set()
            self._level_due.set()
        elif self._lost_at_ns is None:
            self._lost_at_ns = self._world.monotonic_ns()

    # -- orders in ---------------------------------------------------------------------------------

    async def _order(self, message: Message) -> None:
        self._supervisor.deliver(message.data)

    def _now(self) -> tuple[Bus | None, str]:
        return self._bus, self._supervisor.session

    async def _recall(self, message: Message) -> None:
        units = self._supervisor.units.values()
        self._supervisor.leasing.recalled(message, [peer for unit in units for peer in unit.peers])

    async def _level(self) -> None:
        """Reads what stands ordered of every run, whenever edges may have been missed."""
        while not self._stop.is_set():
            await self._level_due.wait()
            self._level_due.clear()
            for run_id in self._supervisor.run_ids():
                if self._bus is None:
                    break
                await self._read_level(self._bus, run_id)

    async def _read_level(self, bus: Bus, run_id: str) -> None:
        key = subjects.desired_key(self._supervisor.session, run_id)
        try:
            entry = await bus.last_value(subjects.BUCKET_DESIRED, key)
        except BusError as error:
            _log.info("cannot read the level of run %s: %s", run_id, error)
            return
        if entry is not None and entry.value is not None:
            self._supervisor.deliver(entry.value)

    # -- pacts in, and what holds here out --------------------------------------------------------

    async def _pact(self, message: Message) -> None:
        self._supervisor.hear_pact(message.data)

    async def _asked_for_pacts(self, message: Message) -> None:
        self._supervisor.held_changed.set()

    async def _tell_pacts(self) -> None:
        """Says which pacts hold when that changes and every few seconds; what is newer comes back,
        so a pact whose edge was missed is in force as soon as there is contact."""
        changed = self._supervisor.held_changed
        while not self._stop.is_set():
            changed.clear()
            bus = self._bus
            if bus is not None and bus.connected:
                with suppress(BusError):
                    await self._tell_once(bus)
            with suppress(TimeoutError):
                async with asyncio.timeout(HELD_EVERY_S):
                    await changed.wait()

    async def _tell_once(self, bus: Bus) -> None:
        held = self._supervisor.held(self._agents)
        data = await bus.request(subjects.held(held.session), encode(held))
        answer = decode_or_none(data, Newer)
        for signed in answer.sets if answer is not None else ():
            self._supervisor.hear_pact(signed)

    # -- registrations, receipts, beats out ------------------------------------------------------

    async def _send(self) -> None:
        changed = self._supervisor.changed
        while not self._stop.is_set():
            await changed.wait()
            changed.clear()
            if not self._supervisor.needs <= self._agents:
                self._again.set()
            bus = self._bus
            if bus is None or not bus.connected:
                continue
            self._seek(bus)
            try:
                await self._send_reports(bus)
                if self._supervisor.to_register:
                    await self._register(bus)
            except BusError as error:
                _log.info("cannot report: %s", error)
                await self._world.sleep(RETRY_S_MIN)
                changed.set()

    def _seek(self, bus: Bus) -> None:
        """What the agents' processes ask; nobody here waits for the answers."""
        grant, supervisor = self.grant, self._supervisor
        for word, tell in supervisor.seeking.take() if grant is not None else ():
            if self._tasks is not None and grant is not None:
                key = bytes.fromhex(grant.control_key)
                task = self._tasks.create_task(seek(bus, supervisor.session, key, word, tell))
                self._seeks.add(task)
                task.add_done_callback(self._seeks.discard)

    async def _send_reports(self, bus: Bus) -> None:
        reports = self._supervisor.reports
        while len(reports):
            taken = reports.take()
            try:
                await bus.publish(subjects.receipts(self._supervisor.session), encode(taken))
            except BusError:
                reports.put_back(taken)
                raise

    async def _register_all(self, bus: Bus) -> None:
        for record in self._supervisor.records():
            self._supervisor.to_register[record.run_id] = record
        with suppress(BusError):  # control may come up later: `_send` tries again
            await self._register(bus)

    async def _register(self, bus: Bus) -> None:
        waiting = self._supervisor.to_register
        session = self._supervisor.session
        while waiting:
            some = list(waiting.values())[:REGISTER_AT_ONCE_MAX]
            data = encode(Registration(session=session, runs=some))
            answer = decode_or_none(
                await bus.request(subjects.registration(session), data), Registered
            )
            for record in some:
                if waiting.get(record.run_id) is record:
                    del waiting[record.run_id]
            if answer is None or answer.error:
                _log.warning("runs not registered: %s", answer.error if answer else "no answer")
                self._renew = True  # control may have lost what it knew of the session
                self._again.set()
                return
            for signed in answer.orders:
                self._supervisor.deliver(signed)

    async def _beat(self) -> None:
        while not self._stop.is_set():
            bus = self._bus
            if bus is not None and bus.connected:
                try:
                    await self._beat_once(bus)
                except BusError as error:
                    _log.info("no answer to the beat: %s", error)
                if self._supervisor.to_register:
                    self._supervisor.changed.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._stop.wait()

    async def _beat_once(self, bus: Bus) -> bool:
        """True when control has heard of every ended run."""
        beat = self._beat_now()
        data = await bus.request(subjects.beat(beat.session), encode(beat), timeout_s=BEAT_S)
        answer = decode_or_none(data, BeatAnswer)
        if answer is None:
            return True
        for run_id in answer.ended:
            self._ended_beats[run_id] = ENDED_BEATS_MAX
        unknown = set(answer.unknown)
        for record in self._supervisor.records():
            if record.run_id in unknown:
                self._supervisor.to_register[record.run_id] = record
        heard = self._ended_beats
        return all(heard.get(one.run_id, 0) >= ENDED_BEATS_MAX for one in beat.ended)

    def _beat_now(self) -> Beat:
        supervisor = self._supervisor
        now_ns = self._world.monotonic_ns()
        inbox = supervisor.inbox
        live, ended = [], []
        for unit in supervisor.units.values():
            epochs = {run: inbox.epoch(run) for run in unit.runs} if inbox is not None else {}
            some_live, some_ended = unit.beats(now_ns, epochs)
            live += some_live
            ended += some_ended
        told = []
        for one in ended:
            count = self._ended_beats[one.run_id] = self._ended_beats.get(one.run_id, 0) + 1
            if count <= ENDED_BEATS_MAX:
                told.append(one)
        return Beat(session=supervisor.session, at=self._world.now_ns(), runs=live, ended=told)


def renew_credential(bus: object, grant: SessionGrant) -> None:
    """The credential that the connection uses when it has to connect again."""
    from checkrein.bus.credentials import Credential

    bus.renew(Credential(grant.jwt, grant.seed))  # type: ignore[attr-defined] # asked for before


def decode_or_none(data: bytes, kind: type[T]) -> T | None:
    try:
        return decode(data, kind)
    except MessageError as error:
        _log.warning("control answers what is no answer: %s", error)
        return None
