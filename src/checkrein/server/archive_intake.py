"""From messages of the bus to rows of the store: who may say what, what is refused and why.

Runs in the archive's writing thread. Asks the store only for lanes it does not know yet.
"""

import collections
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from checkrein.bus import subjects
from checkrein.bus.sessions import outside
from checkrein.bus.types import Message
from checkrein.events.codec import EventError, fields_of
from checkrein.events.envelope import PARTITIONS, Envelope, EnvelopeError, unpack
from checkrein.events.refusals import FORGERY, refused
from checkrein.events.types import ScopeDecision
from checkrein.server.archive_lanes import (
    Finding,
    Lane,
    LaneKey,
    Place,
    loss_number,
)
from checkrein.store.numbers import Numbers
from checkrein.store.objections import objection, objection_to_body
from checkrein.store.types import Row

LANES_MAX = 50_000
RECORDERS_MAX = 10_000
DEAD_BYTES_MAX = 200 * 1024
RECORDER = "role:archive"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """What was refused: from where, why, and its bytes (cut to DEAD_BYTES_MAX)."""

    subject: str
    position: int
    place: str
    reason: str
    agent: str
    recorder: str = ""
    seq: int = 0
    data: bytes = b""
    bytes: int = 0
    forged: bool = False
    """It named somebody else than its sender, who is `agent`."""


class Taken(msgspec.Struct):
    """What a batch of messages comes to. `lanes`: the lanes that it touched."""

    rows: list[Row] = []
    dead: list[DeadLetter] = []
    lanes: set[LaneKey] = set()
    told: list[Finding] = []
    gaps_changed: bool = False


class Intake:
    """`marks(agent, recorder)` gives {partition: (seq, chain)} from the store; `now_ns` the wall
    clock, `monotonic_ns` one that does not step, for the grace of gaps."""

    def __init__(
        self,
        marks: Callable[[str, str], dict[int, tuple[int, bytes]]],
        now_ns: Callable[[], int],
        monotonic_ns: Callable[[], int],
    ) -> None:
        self._marks, self._now_ns, self._monotonic_ns = marks, now_ns, monotonic_ns
        self._lanes: collections.OrderedDict[LaneKey, Lane] = collections.OrderedDict()
        self._asked: collections.OrderedDict[tuple[str, str], None] = collections.OrderedDict()
        self._numbers: collections.OrderedDict[str, Numbers] = collections.OrderedDict()
        self._with_islands: set[LaneKey] = set()
        self._restored: dict[LaneKey, Lane] = {}

    def take(self, messages: Sequence[Message]) -> Taken:
        """Takes in messages in the order in which they came. Raises what the store raises, and has
        then taken in nothing."""
        taken = Taken()
        envelopes = []
        for message in messages:
            envelope = _open(message, taken)
            if envelope is not None:
                envelopes.append((message, envelope))
        for _, envelope in envelopes:
            self._know((envelope.agent, envelope.recorder, envelope.partition))
        for message, envelope in envelopes:
            self._take_envelope(message, envelope, taken)
        self._forget_oldest()
        self._tell_overdue(taken)
        return taken

    def _take_envelope(self, message: Message, envelope: Envelope, taken: Taken) -> None:
        key = (envelope.agent, envelope.recorder, envelope.partition)
        lane = self._lanes[key]
        place: Place | None = None
        rows = []
        for seq, raw in zip(envelope.seqs, envelope.events, strict=True):
            fields = self._event(message, envelope, seq, raw, taken)
            if fields is None:
                continue
            rows.append(Row(envelope.partition, fields))
            if place is None:
                place = _place_of(fields)
        if rows and rows[-1].fields["seq"] == envelope.seqs[-1]:
            last = rows.pop()
            rows.append(Row(last.partition, last.fields, envelope.chain))
        taken.rows += rows
        taken.lanes.add(key)
        if envelope.recorder.startswith("role:"):
            lane.mark = max(lane.mark, envelope.seqs[-1])
            return
        self._numbers_of(envelope.recorder).add(envelope.seqs)
        gaps = [(island.prev, island.since_ns) for island in lane.islands]
        findings = lane.follow(
            key, envelope, self._monotonic_ns(), place or ("", "", "", "", 0)
        )  # fmt: skip
        self._tell(findings, taken)
        if gaps != [(island.prev, island.since_ns) for island in lane.islands]:
            taken.gaps_changed = True
            self._with_islands.add(key)

    def _event(
        self, message: Message, envelope: Envelope, seq: int, raw: msgspec.Raw, taken: Taken
    ) -> dict[str, Any] | None:
        """An event's fields, or None and a dead letter."""
        why, fields = "", {}
        try:
            fields = fields_of(raw)
        except EventError as error:
            why = str(error)
        forged = "" if why else _forgery(fields, envelope, seq)
        why = why or forged or objection(fields) or objection_to_body(fields, len(bytes(raw)))
        if not why:
            return fields
        letter = _dead(
            message, envelope.agent, f"event {seq}", why, envelope.recorder, seq, bytes(raw)
        )
        taken.dead.append(msgspec.structs.replace(letter, forged=bool(forged)))
        return None

    # --- lanes -----------------------------------------------------------------------------------

    def _know(self, key: LaneKey) -> None:
        if key in self._lanes:
            self._lanes.move_to_end(key)
            return
        if key[:2] not in self._asked:
            self._learn(*key[:2])
        self._lanes.setdefault(key, Lane())

    def _forget_oldest(self) -> None:
        """Keeps the lanes to LANES_MAX; one that comes back is asked of the store again."""
        for key in list(self._lanes)[: max(0, len(self._lanes) - LANES_MAX)]:
            if not self._lanes[key].islands:
                del self._lanes[key]
                self._asked.pop(key[:2], None)

    def _learn(self, agent: str, recorder: str) -> None:
        for partition, (seq, chain) in self._marks(agent, recorder).items():
            key = (agent, recorder, partition)
            if key in self._lanes:
                continue
            lane = self._restored.pop(key, None)
            if lane is None or not lane.islands:
                self._lanes[key] = Lane(mark=seq, chain=chain, durable=seq)
                continue
            # What was stored since the gaps were written down continues the last island.
            if seq > lane.islands[-1].last:
                lane.islands[-1].last, lane.islands[-1].chain = seq, chain
            self._lanes[key] = lane
            self._with_islands.add(key)
        self._asked[agent, recorder] = None

    def _numbers_of(self, recorder: str) -> Numbers:
        numbers = self._numbers.get(recorder)
        if numbers is None:
            numbers = self._numbers[recorder] = Numbers()
            if len(self._numbers) > RECORDERS_MAX:
                self._numbers.popitem(last=False)
        else:
            self._numbers.move_to_end(recorder)
        return numbers

    def durable(self, lanes: Iterable[LaneKey]) -> None:
        """All that was taken in of these lanes stands in the store."""
        for key in lanes:
            lane = self._lanes.get(key)
            if lane is not None:
                lane.durable = lane.mark

    def upto(self, agent: str, recorder: str) -> dict[int, int]:
        """Partition to the number up to which everything of this recorder and agent is durable (or
        known to be lost)."""
        if (agent, recorder) not in self._asked:
            self._learn(agent, recorder)
        return {
            partition: self._lanes[agent, recorder, partition].durable
            for partition in range(PARTITIONS)
            if (agent, recorder, partition) in self._lanes
        }

    # --- gaps ------------------------------------------------------------------------------------

    def _tell_overdue(self, taken: Taken) -> None:
        now = self._monotonic_ns()
        for key in list(self._with_islands):
            lane = self._lanes[key]
            findings = lane.overdue(key, now)
            if findings:
                taken.gaps_changed = True
                taken.lanes.add(key)
                self._tell(findings, taken)
            if not lane.islands:
                self._with_islands.discard(key)

    def _tell(self, findings: Iterable[Finding], taken: Taken) -> None:
        for finding in findings:
            taken.told.append(finding)
            taken.rows.append(self._loss(finding))

    def _loss(self, finding: Finding) -> Row:
        agent, recorder, partition = finding.key
        environment, room, run_id, task_id, step = finding.place
        count, why = finding.last - finding.first + 1, "came later after all"
        if finding.kind == "lost":
            # Numbers of the recorder's other lanes lie in the same range.
            count = max(1, self._numbers_of(recorder).missing(finding.first, finding.last))
            why = "never came"
        elif finding.kind == "found":
            count = -count
        else:
            count, why = 0, "the chain hash does not fit: changed on the way or left out"
        fields = {
            "type": "loss", "recorder": RECORDER, "seq": loss_number(finding),
            "ts": self._now_ns(), "environment": environment, "room": room, "agent": agent,
            "run_id": run_id, "task_id": task_id, "step": step, "lost_recorder": recorder,
            "count": count, "first": finding.first, "last": finding.last, "why": why,
        }  # fmt: skip
        return Row(partition, fields)

    def gaps(self) -> bytes:
        """All open gaps, to be kept over a restart."""
        lanes = [(key, self._lanes[key]) for key in sorted(self._with_islands)]
        return msgspec.msgpack.encode([(key, lane) for key, lane in lanes if lane.islands])

    def restore_gaps(self, data: bytes) -> None:
        """Takes up the gaps of an earlier process; their grace begins anew, as the bus delivers
        again only now. Raises msgspec.MsgspecError, and what the store raises."""
        now = self._monotonic_ns()
        for key, lane in msgspec.msgpack.decode(data, type=list[tuple[LaneKey, Lane]]):
            for island in lane.islands:
                island.since_ns = now
            self._restored[key] = lane
        for agent, recorder, _ in list(self._restored):
            self._learn(agent, recorder)


def _open(message: Message, taken: Taken) -> Envelope | None:
    """The envelope, or None and a dead letter."""
    try:
        agent = subjects.agent_of(message.subject)
    except (ValueError, IndexError):
        taken.dead.append(_dead(message, "", "subject", "names no agent"))
        return None
    try:
        envelope = unpack(message.data)
    except EnvelopeError as error:
        taken.dead.append(_dead(message, agent, "envelope", str(error)))
        return None
    why = _objection_to_envelope(envelope, agent)
    if why:
        letter = _dead(message, agent, "envelope", why, envelope.recorder)
        forged = envelope.agent != agent
        taken.dead.append(msgspec.structs.replace(letter, forged=forged))
        return None
    return envelope


def forgeries(letters: Iterable[DeadLetter], now_ns: int) -> list[ScopeDecision]:
    """What is to be said of the letters that were forged: one event for each sender and recorder,
    which names the first and counts the others. Always the same number for the same letters."""
    groups: dict[tuple[str, str], list[DeadLetter]] = {}
    for letter in letters:
        if letter.forged:
            groups.setdefault((letter.agent, letter.recorder), []).append(letter)
    return [_refused(group, now_ns) for group in groups.values()]


def _refused(letters: list[DeadLetter], now_ns: int) -> ScopeDecision:
    first = letters[0]
    run_id, task_id = outside(first.agent, first.recorder)
    text = f"forged/{first.subject}/{first.position}/{first.place}"
    seq = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % (2**62 - 1) + 1
    others = f" (and {len(letters) - 1} more)" if len(letters) > 1 else ""
    common = {
        "recorder": RECORDER, "seq": seq, "ts": now_ns, "environment": "", "room": "",
        "agent": first.agent, "run_id": run_id, "task_id": task_id, "step": 0,
    }  # fmt: skip
    why = f"{first.place} of message {first.position} on {first.subject} {first.reason}{others}"
    return refused(common, FORGERY, "archive", f"record {first.subject}", why)


def _objection_to_envelope(envelope: Envelope, agent: str) -> str:
    if envelope.agent != agent:
        return f"says agent {envelope.agent!r}, was published by {agent!r}"
    if not 0 <= envelope.partition < PARTITIONS:
        return f"partition {envelope.partition}, not from 0 to {PARTITIONS - 1}"
    previous = 0 if envelope.recorder.startswith("role:") else envelope.prev
    if previous < 0:
        return f"`prev` is {previous}"
    for seq in envelope.seqs:
        if not previous < seq < 2**62:
            return f"number {seq} after {previous}: numbers rise and are below 2**62"
        previous = seq
    return ""


def _place_of(fields: dict[str, Any]) -> Place:
    return (
        fields["environment"], fields["room"], fields["run_id"], fields["task_id"], fields["step"]
    )  # fmt: skip


def _forgery(fields: dict[str, Any], envelope: Envelope, seq: int) -> str:
    if fields["agent"] != envelope.agent:
        return f"field `agent` is {fields['agent']!r}, was published by {envelope.agent!r}"
    if fields["recorder"] != envelope.recorder or fields["seq"] != seq:
        return (
            f"says it is event {fields['seq']} of {fields['recorder']!r}, "
            f"its envelope {seq} of {envelope.recorder!r}"
        )
    return ""


def _dead(
    message: Message, agent: str, place: str, reason: str, recorder: str = "", seq: int = 0,
    data: bytes | None = None,
) -> DeadLetter:  # fmt: skip
    data = message.data if data is None else data
    return DeadLetter(
        subject=message.subject, position=message.position, place=place, reason=reason,
        agent=agent, recorder=recorder, seq=seq, data=data[:DEAD_BYTES_MAX], bytes=len(data),
    )  # fmt: skip
