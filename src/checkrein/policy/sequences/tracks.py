"""What is remembered of the past: bounded, and brought up to date by each event.

One `Track` for every different operand of the rules, one `Slot` for it in each state. Bounds:

    values compared with    1,000 different keys a track. Of those dropped, the latest first, the
                            most that any could have stood for is kept, and taken for every key not
                            known where that makes a rule apply; where it would lift one, it is not.
    calls in a window       4,096 exact (256 for each key). Beyond that, calls that began within
                            1/2048 (1/128) of the window of each other are kept as one, which leaves
                            the window with the last of them where that is the stricter, else with
                            the first.
    calls in flight         1,024. The oldest beyond that is taken for failed.
"""

from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal
from threading import RLock
from typing import Any, Literal

from checkrein.policy.conditions.types import Condition
from checkrein.policy.sequences.operands import ANY, Key, Operand, amount

KEYS_MAX = 1000
ENTRIES_MAX = 4096
KEYED_ENTRIES_MAX = 256
OPEN_MAX = 1024

Number = int | Decimal
_EXACT = Context(prec=80)


def plus(one: Number, other: Number) -> Number:
    """Exact for what `amount` lets pass."""
    if type(one) is int and type(other) is int:
        return one + other
    return _EXACT.add(Decimal(one), Decimal(other))


class Mark:
    """The latest of some calls: `tick` orders events, `at_ns` is when the last of them began."""

    __slots__ = ("at_ns", "flying", "tick")

    def __init__(self, tick: int = 0, at_ns: int = 0, flying: int = 0) -> None:
        self.tick = tick
        self.at_ns = at_ns
        self.flying = flying

    def take(self, other: "Mark") -> None:
        self.tick = max(self.tick, other.tick)
        self.at_ns = max(self.at_ns, other.at_ns)
        self.flying += other.flying


class Window:
    """What the calls of the last `span_ns` add up to; of all calls when that is None. `late`: calls
    kept as one leave with the last of them."""

    __slots__ = ("_bucketed", "_entries", "_entries_max", "_late", "_span_ns", "total")

    def __init__(self, span_ns: int | None, late: bool, entries_max: int) -> None:
        self.total: Number = 0
        self._entries: deque[list[Any]] = deque()
        self._span_ns = span_ns
        self._late = late
        self._entries_max = entries_max
        self._bucketed = False

    @property
    def size(self) -> int:
        """How many entries it holds."""
        return len(self._entries)

    def add(self, at_ns: int, weight: Number, now_ns: int) -> None:
        if self._span_ns is None:
            self.total = plus(self.total, weight)
            return
        self.expire(now_ns)
        self.total = plus(self.total, weight)
        later = []
        while self._entries and self._entries[-1][0] > at_ns:  # calls can end out of order
            later.append(self._entries.pop())
        if self._bucketed:
            self._put([at_ns, weight, at_ns])
            for entry in reversed(later):
                self._put(entry)
            return
        self._entries.append([at_ns, weight, at_ns])
        self._entries.extend(reversed(later))
        if len(self._entries) >= self._entries_max:
            self._bucketed = True
            every, self._entries = self._entries, deque()
            for entry in every:
                self._put(entry)

    def expire(self, now_ns: int) -> Number:
        """Lets go of what is older, and gives the total of the rest."""
        if self._span_ns is not None:
            edge, entries = now_ns - self._span_ns, self._entries
            while entries and entries[0][0] < edge:
                self.total = plus(self.total, -entries.popleft()[1])
            if not entries:
                self._bucketed = False
                self.total = 0
        return self.total

    def _put(self, entry: list[Any]) -> None:
        """Joins the last bucket when that began no longer ago than a bucket is wide."""
        last = self._entries[-1] if self._entries else None
        width_ns = (self._span_ns or 0) // (self._entries_max // 2)
        if last is None or entry[0] - last[2] > width_ns:
            self._entries.append(entry)
            return
        last[1] = plus(last[1], entry[1])
        if self._late:
            last[0] = max(last[0], entry[0])


class Sum:
    """What is added up under one key. `unknown` counts calls whose amount nobody knows. `doubt` is
    the most that calls dropped from memory could add, the last of which began at `doubt_ns`."""

    __slots__ = ("doubt", "doubt_ns", "less", "more", "unknown")

    def __init__(self, track: "Track") -> None:
        entries_max = KEYED_ENTRIES_MAX if track.operand.keyed else ENTRIES_MAX
        self.more = Window(track.span_ns, track.uncertain, entries_max)
        self.less: Window | None = None
        self.unknown: Window | None = None
        self.doubt: Number = 0
        self.doubt_ns = 0

    def add(self, track: "Track", at_ns: int, weight: Number | None, now_ns: int) -> None:
        entries_max = KEYED_ENTRIES_MAX if track.operand.keyed else ENTRIES_MAX
        if weight is None:
            if self.unknown is None:
                self.unknown = Window(track.span_ns, True, entries_max)
            self.unknown.add(at_ns, 1, now_ns)
        elif weight >= 0:
            self.more.add(at_ns, weight, now_ns)
        else:
            if self.less is None:
                self.less = Window(track.span_ns, not track.uncertain, entries_max)
            self.less.add(at_ns, weight, now_ns)

    def total(self, now_ns: int) -> Number:
        total = self.more.expire(now_ns)
        return total if self.less is None else plus(total, self.less.expire(now_ns))

    def doubted(self, now_ns: int, span_ns: int | None) -> Number:
        """What dropped calls could add as of now."""
        return self.doubt if span_ns is None or now_ns - self.doubt_ns <= span_ns else 0

    def unknowns(self, now_ns: int) -> Number:
        return 0 if self.unknown is None else self.unknown.expire(now_ns)


class Slot:
    """A track's memory in one state. `any` is of past calls that may equal every key; `lost` bounds
    what was dropped."""

    __slots__ = ("any", "by_key", "lost")

    def __init__(self) -> None:
        self.by_key: dict[Key, Any] = {}
        self.any: Any = None
        self.lost: Any = None


@dataclass(eq=False)
class Track:
    """What is followed: `succeeded` calls (the latest to have begun), `reached` (how far calls
    reach, in flight or not), or a `tally` of them (of successful ones when `late`)."""

    index: int
    name: Hashable
    """Equal for what follows the same, also of two readings of rules."""
    sort: Literal["succeeded", "reached", "tally"]
    operand: Operand
    uncertain: bool
    """Whether what is not certain counts: it makes the rule apply rather than lifts it."""
    amount: Condition | None = None
    span_ns: int | None = None
    in_task: bool = False

    @property
    def at_end(self) -> bool:
        """Whether the outcome of a call matters."""
        return self.sort != "tally" or not self.uncertain

    def weight(self, facts: Mapping[str, Any]) -> Number | None:
        """None: nobody knows."""
        if self.amount is None:
            return 1
        try:
            return amount(self.amount(facts))
        except Exception:  # whatever an expression raises, it has no value
            return None

    def new(self) -> Any:
        return Sum(self) if self.sort == "tally" else Mark()

    def cell(self, state: "State", key: Key) -> Any:
        """The memory under this key, made the latest; the oldest beyond the bound is dropped."""
        slot = state.slot(self.index)
        if key is ANY:
            if slot.any is None:
                slot.any = self.new()
            return slot.any
        cell = slot.by_key.pop(key, None)
        if cell is None:
            cell = self.new()
            if slot.lost is not None and self.sort == "tally":
                cell.doubt, cell.doubt_ns = slot.lost.doubt, slot.lost.doubt_ns
            elif slot.lost is not None and self.uncertain:
                cell.take(slot.lost)
            if len(slot.by_key) >= KEYS_MAX:
                self._drop(slot, state.now_ns)
        slot.by_key[key] = cell
        return cell

    def _drop(self, slot: Slot, now_ns: int) -> None:
        keys: Iterator[Key] = iter(slot.by_key)
        if self.sort == "reached":  # what is in flight stays: the bound of calls in flight holds it
            keys = (key for key, cell in slot.by_key.items() if not cell.flying)
        key = next(keys, None)
        if key is None:
            return
        oldest = slot.by_key.pop(key)
        if slot.lost is None:
            slot.lost = self.new()
        if self.sort != "tally":
            slot.lost.take(oldest)
            return
        most = oldest.more.expire(now_ns)
        if oldest.unknowns(now_ns):
            most = Decimal("Infinity")
        most = plus(most, oldest.doubted(now_ns, self.span_ns))
        if most:
            standing = slot.lost.doubted(now_ns, self.span_ns)
            slot.lost.doubt, slot.lost.doubt_ns = max(standing, most), now_ns


@dataclass(slots=True)
class Flight:
    """A call in flight, as the tracks saw it begin."""

    at_ns: int
    seen: list[tuple[Track, Key, Number | None, int]]
    """With the tick of its beginning."""


@dataclass(slots=True)
class State:
    """The past of one run, or of one task. Not for several threads at once: whoever shares it (the
    runs of one task) holds `lock` around judging and beginning a call, so that no other call begins
    between the two. `forked` is for a forked child, whose lock another thread may have held."""

    slots: list[Slot | None]
    tick: int = 0
    now_ns: int = 0
    open: dict[Any, list[Flight]] = field(default_factory=dict)
    in_flight: int = 0
    lock: Any = field(default_factory=RLock)

    def slot(self, index: int) -> Slot:
        slot = self.slots[index]
        if slot is None:
            slot = self.slots[index] = Slot()
        return slot

    def forked(self) -> None:
        self.lock = RLock()

    def see(self, at_ns: int) -> None:
        """A clock that steps back stands still here."""
        if at_ns > self.now_ns:
            self.now_ns = at_ns

    def began(self, name: Any, at_ns: int, facts: dict[str, Any], tracks: "Followed") -> None:
        """A call begins, `name` is what its end will be known by."""
        self.see(at_ns)
        self.tick += 1
        now_ns = self.now_ns
        seen: list[tuple[Track, Key, Number | None, int]] = []
        for track in tracks:
            key = track.operand.key(facts, track.uncertain)
            if key is None:
                continue
            weight: Number | None = None
            if track.sort == "tally":
                weight = track.weight(facts)
                if track.uncertain:
                    track.cell(self, key).add(track, now_ns, weight, now_ns)
                    continue
            elif track.sort == "reached":
                cell = track.cell(self, key)
                cell.tick, cell.at_ns = self.tick, now_ns
                cell.flying += 1
            seen.append((track, key, weight, self.tick))
        if seen:
            if self.in_flight >= OPEN_MAX:
                self._land(next(iter(self.open)), ok=False)
            self.open.setdefault(name, []).append(Flight(now_ns, seen))
            self.in_flight += 1

    def ended(
        self, name: Any, at_ns: int, ok: bool, facts: dict[str, Any], tracks: "Followed"
    ) -> None:
        """The call of this name that began first came back. One that is no longer known to be in
        flight can no longer succeed here; that it came back is still noted."""
        self.see(at_ns)
        self.tick += 1
        if name in self.open:
            self._land(name, ok)
            return
        for track in tracks:
            if track.sort == "reached" and track.uncertain:
                key = track.operand.key(facts, True)
                if key is not None:
                    cell = track.cell(self, key)
                    cell.tick = self.tick

    def join(self, open: dict[Any, list[Flight]], kept: Mapping[int, Track]) -> None:
        """Calls in flight of an earlier state, as far as the tracks in `kept` followed them."""
        for name, flights in open.items():
            mine = self.open.setdefault(name, [])
            for place, flight in enumerate(flights):
                seen = [(kept[t.index], *rest) for t, *rest in flight.seen if t.index in kept]
                if place < len(mine):
                    mine[place].seen += seen
                else:
                    mine.append(Flight(flight.at_ns, seen))
                    self.in_flight += 1

    def _land(self, name: Any, ok: bool) -> None:
        flights = self.open[name]
        flight = flights.pop(0)
        self.in_flight -= 1
        if not flights:
            del self.open[name]
        for track, key, weight, tick in flight.seen:
            if track.sort == "reached":
                cell = track.cell(self, key)
                cell.tick = self.tick
                cell.flying = max(0, cell.flying - 1)
            elif ok and track.sort == "succeeded":
                track.cell(self, key).take(Mark(tick, flight.at_ns))
            elif ok and weight is not None:
                track.cell(self, key).add(track, flight.at_ns, weight, self.now_ns)


Followed = tuple[Track, ...]
