"""A network that loses, delays, repeats and reorders, and a stream and an archive at its far end:
small models that other scenarios may use too."""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from checkrein.events import codec, envelope
from checkrein.events.envelope import CHAIN_START, Envelope
from checkrein.events.types import Loss
from checkrein.world import SimWorld

GRACE_S = 30.0


@dataclass
class Faults:
    """How bad it is. All zero: a good network."""

    lose: float = 0.0
    repeat: float = 0.0
    delay_s_max: float = 0.01
    late: float = 0.0
    late_s_max: float = 15.0


class Network:
    """Carries calls from here to there, under the faults of the moment."""

    def __init__(self, world: SimWorld, faults: Faults) -> None:
        self.world = world
        self.faults = faults

    def send(self, call: Callable[[], None]) -> None:
        chance = self.world.chance
        if chance.random() < self.faults.lose:
            return
        for _ in range(2 if chance.random() < self.faults.repeat else 1):
            late = chance.random() < self.faults.late
            bound = self.faults.late_s_max if late else self.faults.delay_s_max
            self.world.call_later(0.0002 + chance.random() * bound, call)


class Stream:
    """The bus: keeps messages in order, each message id once."""

    def __init__(self) -> None:
        self.up = True
        self.messages: list[bytes] = []
        self._ids: set[str] = set()
        self._id_of: dict[int, str] = {}

    def append(self, message_id: str, data: bytes) -> bool:
        """True: durable (again, if it was already)."""
        if not self.up:
            return False
        if message_id not in self._ids:
            self._ids.add(message_id)
            self._id_of[len(self.messages)] = message_id
            self.messages.append(data)
        return True

    def forget(self, count: int) -> None:
        """Loses its newest messages, as no bus should: power was cut before it had synced."""
        for _ in range(min(count, len(self.messages))):
            self.messages.pop()
            self._ids.discard(self._id_of.pop(len(self.messages)))


@dataclass
class _Lane:
    mark: int = 0
    chain: bytes = CHAIN_START
    beyond: dict[int, Envelope] = field(default_factory=dict)
    since_ns: int = 0


class Archive:
    """The store and what it says is durable. Durable is what it has `written`: a crash takes it
    back to there, and the stream delivers the rest again."""

    def __init__(self, world: SimWorld, stream: Stream) -> None:
        self.world = world
        self.stream = stream
        self.up = True
        self.position = 0
        self.events: dict[tuple[str, str, int], bytes] = {}
        self.lanes: dict[tuple[str, str, int], _Lane] = {}
        self.given_up: list[tuple[tuple[str, str, int], int, int]] = []
        self.changed: list[Envelope] = []
        self.out_of_order = 0

    def work(self) -> None:
        """Takes what the stream has."""
        self.position = min(self.position, len(self.stream.messages))
        while self.position < len(self.stream.messages):
            self._take(envelope.unpack(self.stream.messages[self.position]))
            self.position += 1
        for key, lane in self.lanes.items():
            if lane.beyond and self.world.monotonic_ns() - lane.since_ns > GRACE_S * 1e9:
                prev = min(lane.beyond)
                self.given_up.append((key, lane.mark + 1, prev))
                lane.mark, lane.chain = prev, b""
                self._join(lane)

    def deliver_again(self, count: int) -> None:
        """The acknowledgements of the last messages were lost."""
        self.position = max(0, self.position - count)

    def upto(self, agent: str, recorder: str) -> dict[int, int]:
        return {
            partition: lane.mark
            for (of, by, partition), lane in self.lanes.items()
            if (of, by) == (agent, recorder)
        }

    def of(self, recorder: str) -> dict[int, bytes]:
        """Everything stored of one recorder, by number."""
        return {seq: raw for (_, by, seq), raw in self.events.items() if by == recorder}

    def losses(self, recorder: str) -> list[Loss]:
        events = [codec.decode(raw) for raw in self.of(recorder).values()]
        return [event for event in events if isinstance(event, Loss)]

    def _take(self, batch: Envelope) -> None:
        for seq, event in zip(batch.seqs, batch.events, strict=True):
            self.events.setdefault((batch.agent, batch.recorder, seq), bytes(event))
        lane = self.lanes.setdefault((batch.agent, batch.recorder, batch.partition), _Lane())
        if batch.prev > lane.mark:
            self.out_of_order += 1
            if not lane.beyond:
                lane.since_ns = self.world.monotonic_ns()
            lane.beyond.setdefault(batch.prev, batch)
            return
        self._follow(lane, batch)
        self._join(lane)

    def _join(self, lane: _Lane) -> None:
        while lane.beyond and min(lane.beyond) <= lane.mark:
            self._follow(lane, lane.beyond.pop(min(lane.beyond)))
        lane.since_ns = self.world.monotonic_ns()

    def _follow(self, lane: _Lane, batch: Envelope) -> None:
        if batch.seqs[-1] <= lane.mark:
            return
        chain = lane.chain
        if chain and batch.chain:
            for seq, event in zip(batch.seqs, batch.events, strict=True):
                if seq > lane.mark:
                    chain = envelope.advance(chain, msgspec.Raw(bytes(event)))
            if chain != batch.chain:
                self.changed.append(batch)
        lane.mark, lane.chain = batch.seqs[-1], batch.chain
