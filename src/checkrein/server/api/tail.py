"""The live tail: events that the store has not confirmed yet, so that what was asked a moment after
it happened is answered whole. Pure: it is told what came and what was stored; it opens nothing.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from checkrein.events import codec
from checkrein.events.envelope import Envelope

EVENTS_MAX = 50_000
BYTES_MAX = 64 * 1024 * 1024
LANES_MAX = 20_000
GAPS_MAX = 16

Lane = tuple[str, str, int]
Key = tuple[str, str, int]


class Head(msgspec.Struct, frozen=True, gc=False):
    """The common fields of an event, decoded without its body."""

    recorder: str
    seq: int
    ts: int
    environment: str
    room: str
    agent: str
    run_id: str
    task_id: str
    step: int
    type: str


_HEADS = msgspec.msgpack.Decoder(Head)
_JSON = msgspec.json.Encoder(enc_hook=repr)


class Seen:
    """One event as it came by: where in the stream, its head, and its bytes. `at` is its `ts`, or
    its recorder's latest where the clock was set back."""

    __slots__ = (
        "_fields", "_json", "at", "head", "index", "partition", "position", "raw", "stored",
    )  # fmt: skip

    def __init__(
        self, head: Head, raw: bytes, partition: int, position: int, index: int, stored: bool
    ) -> None:
        self.head, self.raw, self.partition = head, raw, partition
        self.position, self.index, self.stored = position, index, stored
        self.at = head.ts
        self._fields: dict[str, Any] | None = None
        self._json: bytes | None = None

    @property
    def key(self) -> Key:
        return (self.head.agent, self.head.recorder, self.head.seq)

    @property
    def fields(self) -> dict[str, Any]:
        """Every field, known or not; decoded once. Of an event that cannot be read whole (the
        archive refuses it, with the reason) only the common fields."""
        if self._fields is None:
            try:
                self._fields = codec.fields_of(self.raw)
            except codec.EventError as error:
                self._fields = {**msgspec.structs.asdict(self.head), "unreadable": str(error)}
        return self._fields

    @property
    def json(self) -> bytes:
        """The event's JSON map, on one line; encoded once."""
        if self._json is None:
            self._json = to_json(self.fields)
        return self._json


def to_json(value: Any) -> bytes:
    """JSON of anything an event may hold: what JSON has no form for stands as its Python text."""
    return _JSON.encode(value)


def key_of(fields: dict[str, Any]) -> Key:
    return (fields["agent"], fields["recorder"], fields["seq"])


class Heard:
    """Which numbers of a lane have come by: all up to `last`, but for the gaps."""

    __slots__ = ("gaps", "last")

    def __init__(self) -> None:
        self.last = 0
        self.gaps: list[tuple[int, int]] = []
        """(before, after): the numbers between these two are missing."""

    def taking(self, prev: int, seqs: list[int]) -> Callable[[int], bool]:
        """Notes an envelope's numbers; returns which of them are new."""
        before, open_gaps, highest = self.last, self.gaps, seqs[-1]
        if open_gaps:
            self.gaps = [
                part
                for low, high in open_gaps
                for part in ((low, min(high, prev + 1)), (max(low, highest), high))
                if part[1] - part[0] > 1
            ]
        if prev > before:
            self.gaps = [*self.gaps, (before, prev + 1)][-GAPS_MAX:]
        self.last = max(before, highest)
        return lambda seq: seq > before or any(low < seq < high for low, high in open_gaps)


def _any(_: int) -> bool:
    return True


class Tail:
    """Keeps at most `events_max` events and `bytes_max` bytes; what is over that is let go, oldest
    first, and counted in `evicted` (it is still on the bus, and shown again once it is stored).

    An event is known by (agent, recorder, seq) and taken once. Recorders of roles (`role:…`) may
    skip numbers and number anew. All others count upwards, lane by lane; an envelope that was
    overtaken on its way is known by the gap that it left (`prev`), at most GAPS_MAX a lane.
    """

    def __init__(self, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._events_max, self._bytes_max = events_max, bytes_max
        self._kept: OrderedDict[Key, Seen] = OrderedDict()
        self._runs: dict[str, dict[Key, Seen]] = {}
        self._tasks: dict[str, dict[Key, Seen]] = {}
        self._waiting: dict[Lane, deque[Seen]] = {}
        self._heard: OrderedDict[Lane, Heard] = OrderedDict()
        self._marks: dict[Lane, int] = {}
        self.bytes = 0
        self.evicted = 0
        self.refused = 0
        self.position = 0

    def __len__(self) -> int:
        return len(self._kept)

    def known_stored(self, marks: Iterable[tuple[str, str, int, int]]) -> None:
        """(agent, recorder, partition, seq) as the store said when we began."""
        for agent, recorder, partition, seq in marks:
            self._marks[(agent, recorder, partition)] = seq

    def forget_marks(self) -> None:
        """The backlog is read: from here on `stored` tells."""
        self._marks.clear()

    def take(self, position: int, agent: str, envelope: Envelope) -> list[Seen]:
        """The events of one message that are new, in order. `agent` is whom the bus has let
        publish it; an event that names another is refused."""
        self.position = max(self.position, position)
        lane = (agent, envelope.recorder, envelope.partition)
        heard = self._heard.get(lane) or Heard()
        if envelope.recorder.startswith("role:"):
            fresh: Callable[[int], bool] = _any
        else:
            fresh = heard.taking(envelope.prev, envelope.seqs)
        stored_upto = self._marks.get(lane, 0)
        found: list[Seen] = []
        for index, raw in enumerate(envelope.events):
            head = self._head(raw)
            if head is None or head.agent != agent or head.recorder != envelope.recorder:
                self.refused += 1
                continue
            if not fresh(head.seq) or (agent, head.recorder, head.seq) in self._kept:
                continue
            seen = Seen(
                head, bytes(raw), envelope.partition, position, index, head.seq <= stored_upto
            )
            found.append(seen)
            if not seen.stored:
                self._keep(lane, seen)
        self._note_heard(lane, heard)
        self._evict()
        return found

    def stored(self, agent: str, recorder: str, upto: dict[int, int]) -> int:
        """The store has these: lets them go, and returns how many."""
        count = 0
        for partition, seq in upto.items():
            waiting = self._waiting.get((agent, recorder, partition))
            while waiting and waiting[0].head.seq <= seq:
                count += self._let_go(waiting.popleft())
            if waiting is not None and not waiting:
                del self._waiting[(agent, recorder, partition)]
        return count

    def of_run(self, run_id: str) -> list[Seen]:
        return list(self._runs.get(run_id, {}).values())

    def of_task(self, task_id: str) -> list[Seen]:
        return list(self._tasks.get(task_id, {}).values())

    def run_ids(self, prefix: str = "") -> list[str]:
        return [run_id for run_id in self._runs if run_id.startswith(prefix)]

    def where(self, wanted: Callable[[Seen], bool]) -> list[Seen]:
        return [seen for seen in self._kept.values() if wanted(seen)]

    def latest(self) -> Iterator[Seen]:
        """From the newest back."""
        return reversed(self._kept.values())

    def _head(self, raw: msgspec.Raw) -> Head | None:
        try:
            return _HEADS.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def _keep(self, lane: Lane, seen: Seen) -> None:
        self._kept[seen.key] = seen
        self._runs.setdefault(seen.head.run_id, {})[seen.key] = seen
        self._tasks.setdefault(seen.head.task_id, {})[seen.key] = seen
        self._waiting.setdefault(lane, deque()).append(seen)
        self.bytes += len(seen.raw)

    def _let_go(self, seen: Seen) -> int:
        if self._kept.pop(seen.key, None) is None:
            return 0
        seen.stored = True
        self.bytes -= len(seen.raw)
        for index, name in ((self._runs, seen.head.run_id), (self._tasks, seen.head.task_id)):
            group = index.get(name)
            if group is not None:
                group.pop(seen.key, None)
                if not group:
                    del index[name]
        return 1

    def _evict(self) -> None:
        while len(self._kept) > self._events_max or self.bytes > self._bytes_max:
            seen = next(iter(self._kept.values()))
            lane = (seen.head.agent, seen.head.recorder, seen.partition)
            waiting = self._waiting.get(lane)
            while waiting and waiting[0] is not seen:
                self._let_go(waiting.popleft())
            if waiting:
                waiting.popleft()
            if waiting is not None and not waiting:
                del self._waiting[lane]
            self.evicted += self._let_go(seen)

    def _note_heard(self, lane: Lane, heard: Heard) -> None:
        self._heard[lane] = heard
        self._heard.move_to_end(lane)
        if len(self._heard) > LANES_MAX:
            self._heard.popitem(last=False)
