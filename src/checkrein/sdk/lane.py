"""One lane of a recorder's way to the bus: what is gathered, what is under way, what is safe."""

from collections import deque
from dataclasses import dataclass, field

import msgspec

from checkrein.events.envelope import CHAIN_START

STALL_NS_MIN, STALL_NS_MAX = 12_000_000_000, 3_600_000_000_000
"""How long the store may answer without having moved on, before a lane is sent again."""
MARKS_MAX = 256


class Send(msgspec.Struct, frozen=True):
    """An envelope to put on the bus. Tell the core `acked` or `failed` with its `message_id`."""

    subject: str
    data: bytes
    message_id: str
    events: int


class LaneState(msgspec.Struct, frozen=True, array_like=True):
    """A lane across restarts: its last number in the store, and the chain."""

    agent: str
    partition: int
    last: int
    chain: bytes


@dataclass(slots=True)
class Mark:
    """Events of a lane that are on their way, `first` to `last`, and the chain after them."""

    first: int
    last: int
    chain: bytes
    events: int
    acked: bool = False


@dataclass(slots=True)
class Flight:
    """The envelope under way, and when it goes again."""

    send: Send
    mark: Mark
    due_ns: int
    attempts: int = 0
    in_air: bool = True


@dataclass(slots=True)
class Lane:
    """The events of one agent and partition. Numbers are the recorder's: they grow, with gaps
    where the events of other lanes are."""

    agent: str
    partition: int
    sent: int = 0
    """The last number that was put into an envelope, and the chain after it."""
    chain: bytes = CHAIN_START
    safe: int = 0
    """The last number of the last envelope that is in the store, and the chain after it."""
    safe_chain: bytes = CHAIN_START
    stored: int = 0
    """What the store says it has."""
    taken: int = 0
    """The last number that was taken in, and the chain after it."""
    taken_chain: bytes = CHAIN_START
    gathered: deque[tuple[int, bytes, bytes]] = field(default_factory=deque)
    """Number, event, chain after it: hashed as they come, so that the leaving of an envelope does
    not keep the agent's threads for long."""
    gathered_bytes: int = 0
    since_ns: int = 0
    flight: Flight | None = None
    marks: deque[Mark] = field(default_factory=deque)
    left_from: int = 0
    """The first number that was left in the recorder while the lane stood still; 0: none."""
    stuck_ns: int = 0
    """Since when the store answers without having moved on; 0: it has, or was not asked."""
    stall_ns: int = STALL_NS_MIN

    def first_unsafe(self) -> int:
        """The lane's first number that the store may not have; 0: none known."""
        if self.marks:
            return self.marks[0].first
        return self.gathered[0][0] if self.gathered else self.left_from

    def compact(self) -> None:
        """Bounds the memory of what awaits the store: neighbours become one, evenly."""
        if len(self.marks) <= MARKS_MAX:
            return
        events_max = 4 * sum(mark.events for mark in self.marks) // MARKS_MAX
        marks: deque[Mark] = deque()
        for mark in self.marks:
            before = marks[-1] if marks else mark
            events = before.events + mark.events
            if before is not mark and events <= events_max and before.acked and mark.acked:
                marks[-1] = Mark(before.first, mark.last, mark.chain, events, acked=True)
            else:
                marks.append(mark)
        self.marks = marks


_states = msgspec.msgpack.Decoder(list[LaneState])


def restored(state: bytes) -> list[LaneState]:
    """The lanes that a cursor's state carries; none when it cannot be read."""
    try:
        return _states.decode(state) if state else []
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []
