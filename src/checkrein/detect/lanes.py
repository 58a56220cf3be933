"""Envelopes in order: what of a message is new, what must wait for what is missing before it.

A lane's envelope names the last number before it. One that comes early, because the bus stored a
repeated envelope late, waits up to two seconds for what is missing; then the gap is reported and
reading goes on. Numbers that were reported missing and come later still are let through. Recorders
of roles (`role:…`) number with gaps: each number counts once, in any order. Pure, bounded: 50,000
lanes, 256 waiting envelopes of at most 8 MiB in all.
"""

from collections.abc import Iterator

import msgspec

from checkrein.events.envelope import Envelope, pack, unpack

LANES_MAX = 50_000
ROLE_NUMBERS_MAX = 20_000
WAITING_MAX = 256
WAITING_BYTES_MAX = 8 * 1024 * 1024
GRACE_NS = 2_000_000_000
_MISSING_MAX = 16

LaneKey = tuple[str, str, int]
Fresh = tuple[int, msgspec.Raw]


class Gap(msgspec.Struct, frozen=True):
    """Numbers of a lane that did not come in time: at most `last - first + 1` events, since a
    recorder's numbers are spread over its lanes."""

    recorder: str
    agent: str
    partition: int
    first: int
    last: int


class _Lane(msgspec.Struct):
    last: int = 0
    begun: bool = False
    missing: list[tuple[int, int]] = []


class _Waiting(msgspec.Struct):
    envelope: bytes
    since_ns: int


class _Kept(msgspec.Struct):
    lanes: list[tuple[LaneKey, _Lane]]
    roles: list[tuple[str, int]]
    waiting: list[_Waiting]


Ready = tuple[Envelope, list[Fresh], Gap | None]


class Lanes:
    """`take` gives the envelopes that may be read now with their new events; `overdue` those whose
    time of waiting is up."""

    def __init__(self) -> None:
        self._lanes: dict[LaneKey, _Lane] = {}
        self._roles: dict[tuple[str, int], bool] = {}
        self._waiting: list[tuple[int, Envelope]] = []
        self._waiting_bytes = 0
        self.repeated_count = 0

    def take(self, envelope: Envelope, now_ns: int) -> Iterator[Ready]:
        """What may be read now, in order: this envelope and those that waited for it."""
        if envelope.recorder.startswith("role:"):
            yield envelope, self._role(envelope), None
            return
        key = (envelope.recorder, envelope.agent, envelope.partition)
        lane = self._lane(key)
        if envelope.prev > lane.last:
            self._waiting.append((now_ns, envelope))
            self._waiting_bytes += _size(envelope)
            if len(self._waiting) <= WAITING_MAX and self._waiting_bytes <= WAITING_BYTES_MAX:
                return
            yield from self._release(self._waiting[0][1], key)
            return
        yield envelope, self._fresh(lane, envelope), None
        yield from self._follow(key, lane)

    def overdue(self, now_ns: int) -> Iterator[Ready]:
        """Envelopes that have waited two seconds in vain, with the gap before them."""
        while self._waiting and now_ns - self._waiting[0][0] >= GRACE_NS:
            envelope = self._waiting[0][1]
            key = (envelope.recorder, envelope.agent, envelope.partition)
            yield from self._release(envelope, key)

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(
            _Kept(
                list(self._lanes.items()),
                list(self._roles),
                [_Waiting(pack(envelope), since) for since, envelope in self._waiting],
            )
        )

    def restore(self, data: bytes) -> None:
        """Raises ValueError when the bytes are not a snapshot."""
        try:
            kept = msgspec.msgpack.decode(data, type=_Kept)
            self._waiting = [(each.since_ns, unpack(each.envelope)) for each in kept.waiting]
        except (msgspec.MsgspecError, ValueError) as error:
            raise ValueError(f"not a snapshot of lanes: {error}") from error
        self._lanes = dict(kept.lanes)
        self._roles = dict.fromkeys(kept.roles, True)
        self._waiting_bytes = sum(_size(envelope) for _, envelope in self._waiting)

    def _lane(self, key: LaneKey) -> _Lane:
        lane = self._lanes.pop(key, None)
        if lane is None:
            if len(self._lanes) >= LANES_MAX:
                del self._lanes[next(iter(self._lanes))]
            lane = _Lane()
        self._lanes[key] = lane
        return lane

    def _role(self, envelope: Envelope) -> list[Fresh]:
        fresh = []
        for seq, raw in zip(envelope.seqs, envelope.events, strict=True):
            known = (envelope.recorder, seq)
            if known in self._roles:
                self.repeated_count += 1
                continue
            self._roles[known] = True
            if len(self._roles) > ROLE_NUMBERS_MAX:
                del self._roles[next(iter(self._roles))]
            fresh.append((seq, raw))
        return fresh

    def _fresh(self, lane: _Lane, envelope: Envelope) -> list[Fresh]:
        fresh = []
        lane.begun = True
        for seq, raw in zip(envelope.seqs, envelope.events, strict=True):
            if seq > lane.last:
                lane.last = seq
            elif not (lane.missing and _found(lane, seq)):
                self.repeated_count += 1
                continue
            fresh.append((seq, raw))
        return fresh

    def _release(self, envelope: Envelope, key: LaneKey) -> Iterator[Ready]:
        """Reads on behind a gap."""
        self._drop(envelope)
        lane = self._lane(key)
        gap = None
        if envelope.prev > lane.last:
            # What came before the first that was ever seen of a lane is not ours to miss.
            gap = Gap(*key, lane.last + 1, envelope.prev) if lane.begun else None
            lane.missing = [*lane.missing, (lane.last + 1, envelope.prev)][-_MISSING_MAX:]
            lane.last = envelope.prev
        yield envelope, self._fresh(lane, envelope), gap
        yield from self._follow(key, lane)

    def _follow(self, key: LaneKey, lane: _Lane) -> Iterator[Ready]:
        """Those that waited for just this."""
        again = True
        while again and self._waiting:
            again = False
            for _, waiting in self._waiting:
                same = (waiting.recorder, waiting.agent, waiting.partition) == key
                if same and waiting.prev <= lane.last:
                    self._drop(waiting)
                    yield waiting, self._fresh(lane, waiting), None
                    again = True
                    break

    def _drop(self, envelope: Envelope) -> None:
        for index, (_, waiting) in enumerate(self._waiting):
            if waiting is envelope:
                del self._waiting[index]
                self._waiting_bytes -= _size(envelope)
                return


def _found(lane: _Lane, seq: int) -> bool:
    """Whether a number was reported missing; it no longer is then."""
    for index, (first, last) in enumerate(lane.missing):
        if first <= seq <= last:
            left = [(first, seq - 1), (seq + 1, last)]
            lane.missing[index : index + 1] = [each for each in left if each[0] <= each[1]]
            return True
    return False


def _size(envelope: Envelope) -> int:
    return sum(len(bytes(raw)) for raw in envelope.events)
