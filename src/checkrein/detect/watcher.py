"""From envelopes to signals, incidents and requests to halt: the watch role without its sockets.

    watcher.take(message, now_ns)      one message of the stream EVENTS, in order
    watcher.tick(now_ns)               about each second
    watcher.outbox / .asks / .cases    what is to be sent; `sent`, `asked`, `kept` say that it was
    watcher.restore(watcher.snapshot())

Promises. A signal is published under an id and a number made from what it says, so that publishing
it again changes nothing. A snapshot holds everything up to `position` and what was not sent yet.
After a restore the stream is read again from there: until `catch_up_to` is reached nothing is sent,
signals that were published before the restart are recognised as they come by, and what is left over
is sent then. So a restart neither repeats a signal nor loses one.
"""

from collections.abc import Callable
from hashlib import blake2b

import msgspec

from checkrein.bus import subjects
from checkrein.bus.messages import CommandRequest
from checkrein.bus.types import Message
from checkrein.detect.engine import Engine, Found, Halt
from checkrein.detect.incidents import Case, Incidents, event_of
from checkrein.detect.lanes import Gap, Lanes, Ready
from checkrein.events import codec
from checkrein.events.envelope import (
    CHAIN_START,
    Envelope,
    EnvelopeError,
    advance,
    pack,
    partition_of,
    unpack,
)
from checkrein.events.types import Base, Handoff, Incident, Loss, RunEnd, RunStart, Signal
from checkrein.world import is_uuid7, uuid7_time_ms
from checkrein.world.ids import uuid7_from

RECORDER = "role:watch"
OUTBOX_MAX = 10_000
SNAPSHOT_VERSION = 1

Notice = Callable[[str, str], None]
Follow = Callable[[Base, int], None]
"""Hears each event, and our own signals and incidents, with the position in the stream."""


class Outgoing(msgspec.Struct):
    """One event of ours on its way into the stream."""

    agent: str
    partition: int
    seq: int
    event: bytes


class _Kept(msgspec.Struct):
    version: int
    position: int
    lanes: bytes
    engine: bytes
    incidents: bytes
    outbox: dict[str, Outgoing]
    asks: dict[str, CommandRequest]
    cases: dict[str, Case]


class Watcher:
    """Not for several threads. `notice(who, what)` hears of what goes wrong inside, `follow` of
    all that happens; what it raises is noticed and takes nothing down."""

    def __init__(
        self, engine: Engine, notice: Notice = lambda who, what: None, follow: Follow | None = None
    ) -> None:
        self.engine = engine
        self.incidents = Incidents()
        self.lanes = Lanes()
        self._notice = notice
        self._follow = follow
        self.position = 0
        self.catch_up_to = 0
        self.outbox: dict[str, Outgoing] = {}
        self.asks: dict[str, CommandRequest] = {}
        self.cases: dict[str, Case] = {}
        self.event_count = 0
        self.signal_count = 0
        self.refused_count = 0

    @property
    def catching_up(self) -> bool:
        """While this is so, nothing of the outbox may be sent."""
        return self.position < self.catch_up_to

    def take(self, message: Message, now_ns: int) -> None:
        """Takes in one message. What is malformed or not the sender's to say is counted and passed
        over; the archive keeps it with the reason."""
        self.position = max(self.position, message.position)
        try:
            envelope = unpack(message.data)
        except EnvelopeError:
            self.refused_count += 1
            return
        believed = subjects.may_say(message.subject, envelope.recorder)
        if not believed or subjects.agent_of(message.subject) != envelope.agent:
            self.refused_count += 1
            return
        for ready in self.lanes.take(envelope, now_ns):
            self._read(ready, now_ns)

    def tick(self, now_ns: int) -> None:
        """Time has passed. Does nothing while catching up: the time of then is not now's."""
        if self.catching_up:
            return
        for ready in self.lanes.overdue(now_ns):
            self._read(ready, now_ns)
        self._found(self.engine.tick(now_ns))

    def sent(self, key: str) -> None:
        self.outbox.pop(key, None)

    def asked(self, run_id: str) -> None:
        self.asks.pop(run_id, None)

    def kept(self, case: Case) -> None:
        """The bucket holds the incident as it now stands."""
        self.cases.pop(case.incident_id, None)

    def snapshot(self) -> bytes:
        return _PACK.encode(_Kept(
            SNAPSHOT_VERSION, self.position, self.lanes.snapshot(), self.engine.snapshot(),
            self.incidents.snapshot(), self.outbox, self.asks, self.cases,
        ))  # fmt: skip

    def restore(self, data: bytes) -> None:
        """Raises ValueError when the bytes are not a snapshot of this version; take a new Watcher
        then."""
        try:
            kept = msgspec.msgpack.decode(data, type=_Kept)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a snapshot of watch: {error}") from error
        if kept.version != SNAPSHOT_VERSION:
            raise ValueError(f"a snapshot of version {kept.version}, not {SNAPSHOT_VERSION}")
        self.lanes.restore(kept.lanes)
        self.incidents.restore(kept.incidents)
        self.engine.restore(kept.engine)
        self.position = kept.position
        self.outbox, self.asks, self.cases = kept.outbox, kept.asks, kept.cases

    def _read(self, ready: Ready, now_ns: int) -> None:
        envelope, fresh, gap = ready
        own = envelope.recorder == RECORDER
        for index, (_, raw) in enumerate(fresh):
            try:
                event = codec.decode(raw)
            except codec.EventError:
                self.refused_count += 1
                continue
            self.event_count += 1
            if isinstance(event, codec.Unknown):
                continue
            if event.agent != envelope.agent:
                self.refused_count += 1
                continue
            if index == 0 and gap is not None:
                loss = _loss(gap, event)
                self._observe(loss, now_ns)
                self._pass_on(loss)
            if own:
                self._heard(event)
            elif self.engine.handles(type(event)):
                self._observe(event, now_ns)
            self._pass_on(event)

    def _pass_on(self, event: Base) -> None:
        if self._follow is None:
            return
        try:
            self._follow(event, self.position)
        except Exception as error:  # who follows takes nothing down
            what = f"{error!r} at {type(event).__name__} of run {event.run_id}"
            self._notice("follow", what)

    def _observe(self, event: Base, now_ns: int) -> None:
        if isinstance(event, RunStart | Handoff):
            self.incidents.link(event)
        arrived_ns = min(event.ts, now_ns) if self.catching_up else now_ns
        self._found(self.engine.observe(event, arrived_ns))
        if isinstance(event, RunEnd):
            self.asks.pop(event.run_id, None)
            case = self.incidents.ended(event)
            if case is not None:
                self._tell(case)

    def _heard(self, event: Base) -> None:
        """Our own words come back: they are out."""
        if isinstance(event, Signal):
            self.outbox.pop(event.signal_id, None)
            if self.engine.said(event):
                return
            found = self.engine.heard(event)
            self._group(event)
            self._found(found)
        elif isinstance(event, Incident):
            self.outbox.pop(_incident_key(event), None)

    def _found(self, found: list[Found]) -> None:
        for each in found:
            match each:
                case Signal():
                    self.signal_count += 1
                    self._pass_on(each)
                    self._send(each.signal_id, each)
                    self._group(each)
                case Halt():
                    self.asks[each.run_id] = _order(each)

    def _group(self, signal: Signal) -> None:
        grouped = self.incidents.add(signal)
        if grouped is None:
            return
        case, tell = grouped
        self.cases[case.incident_id] = case
        if tell:
            self._tell(case)

    def _tell(self, case: Case) -> None:
        self.cases[case.incident_id] = case
        event = event_of(case, RECORDER)
        self._pass_on(event)
        self._send(_incident_key(event), event)

    def _send(self, key: str, event: Signal | Incident) -> None:
        if len(self.outbox) >= OUTBOX_MAX:
            lost = next(iter(self.outbox))
            del self.outbox[lost]
            self._notice("outbox", f"{lost} was never published: {OUTBOX_MAX} are waiting")
        numbered = msgspec.structs.replace(event, seq=_number(key))
        self.outbox[key] = Outgoing(
            event.agent, partition_of(event.task_id), numbered.seq, codec.encode(numbered)
        )


def envelope_of(outgoing: Outgoing) -> tuple[str, bytes, str]:
    """One event as a message: subject, data, and the id by which the bus knows it again."""
    chain = advance(CHAIN_START, outgoing.event)
    envelope = Envelope(
        RECORDER, outgoing.agent, outgoing.partition, 0, chain,
        [outgoing.seq], [msgspec.Raw(outgoing.event)],
    )  # fmt: skip
    subject = subjects.events(outgoing.agent, outgoing.partition, RECORDER)
    return subject, pack(envelope), f"{RECORDER}/{outgoing.seq}"


def _number(key: str) -> int:
    """A positive 62-bit number that is the same for the same key."""
    return (int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big") >> 2) + 1


def _incident_key(event: Incident) -> str:
    return f"{event.incident_id}/{event.run_id}/{event.severity}/{event.count}/{event.outcome}"


def _order(halt: Halt) -> CommandRequest:
    """The command, under an id of its own: asked twice, it is one command."""
    digest = blake2b("/".join((halt.run_id, *halt.signal_ids)).encode(), digest_size=16).digest()
    begun_ms = uuid7_time_ms(halt.run_id) if is_uuid7(halt.run_id) else 0
    return CommandRequest(
        verb="halt",
        target=f"run:{halt.run_id}",
        reason=halt.reason,
        issued_by=f"rule:{halt.detector}",
        arguments={"signals": list(halt.signal_ids)},
        command_id=uuid7_from(begun_ms, digest),
    )


def _loss(gap: Gap, after: Base) -> Loss:
    return Loss(
        recorder=RECORDER, seq=0, ts=after.ts, environment=after.environment, room=after.room,
        agent=after.agent, run_id=after.run_id, task_id=after.task_id, step=after.step,
        lost_recorder=gap.recorder, count=gap.last - gap.first + 1, first=gap.first,
        last=gap.last, why="a gap in what the bus delivered; at most so many",
    )  # fmt: skip


_PACK = msgspec.msgpack.Encoder()
