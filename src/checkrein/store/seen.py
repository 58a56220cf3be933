"""Which events are stored already: exactly, and nearly always without asking the store.

What was written since a recorder was first met is remembered as ranges of its numbers. What lies at
or below the highest number that the store had of it then (or below what had to be forgotten) is
looked up: events that come again after a restart, mostly.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from checkrein.store.numbers import Numbers
from checkrein.store.rows import Placed
from checkrein.store.runs import LaneClock
from checkrein.store.types import Row

RECORDERS_KNOWN_MAX = 50_000

Key = tuple[str, str]
"""An agent and a recorder."""


class _Known(msgspec.Struct):
    """`lanes`: the highest number and the last time of each partition."""

    numbers: Numbers
    lanes: dict[int, tuple[int, int]]


class Seen:
    """`marks_of(recorders)` gives (recorder, agent, partition, seq, at) as stored;
    `stored_of(agent, recorder, seqs)` the numbers that stand. Recorders beyond RECORDERS_KNOWN_MAX
    are forgotten, oldest first, and asked for again when they come back."""

    def __init__(
        self,
        marks_of: Callable[[Sequence[str]], list[tuple[Any, ...]]],
        stored_of: Callable[[str, str, Sequence[int]], set[int]],
    ) -> None:
        self._marks_of = marks_of
        self._stored_of = stored_of
        self._known: dict[Key, _Known] = {}

    def unseen(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that are not stored yet, each event once, in the order given."""
        groups: dict[Key, list[Row]] = {}
        for row in rows:
            fields = row.fields
            groups.setdefault((fields["agent"], fields["recorder"]), []).append(row)
        self._learn(groups)
        new: list[Row] = []
        for key, group in groups.items():
            new += self._unseen_of(key, group)
        return new

    def _unseen_of(self, key: Key, group: list[Row]) -> list[Row]:
        numbers = self._known[key].numbers
        fresh = {}
        for row in group:
            seq = row.fields["seq"]
            if seq not in fresh and seq not in numbers:
                fresh[seq] = row
        doubtful = [seq for seq in fresh if seq <= numbers.floor]
        if doubtful:
            for seq in self._stored_of(*key, doubtful):
                del fresh[seq]
        return list(fresh.values())

    def _learn(self, keys: Iterable[Key]) -> None:
        unknown = {key for key in keys if key not in self._known}
        if not unknown:
            return
        found: dict[Key, dict[int, tuple[int, int]]] = {}
        for recorder, agent, partition, seq, at in self._marks_of(
            sorted({recorder for _, recorder in unknown})
        ):
            found.setdefault((agent, recorder), {})[partition] = (seq, at)
        excess = len(self._known) + len(unknown) - RECORDERS_KNOWN_MAX
        for key in [key for key in self._known if key not in keys][: max(0, excess)]:
            del self._known[key]
        for key in unknown:
            lanes = found.get(key, {})
            floor = max((seq for seq, _ in lanes.values()), default=0)
            self._known[key] = _Known(Numbers(floor), lanes)

    def place(self, rows: Sequence[Row]) -> list[Placed]:
        """Each row with its place in time. Changes nothing."""
        clocks: dict[tuple[str, str, int], tuple[int, LaneClock]] = {}
        placed = []
        for row in rows:
            fields = row.fields
            key = (fields["agent"], fields["recorder"], row.partition)
            high, clock = clocks.get(key) or self._clock(key)
            if fields["seq"] > high:
                clocks[key] = (fields["seq"], clock)
                placed.append(Placed(row, clock.at(fields["ts"])))
            else:
                placed.append(Placed(row, fields["ts"]))
        return placed

    def _clock(self, key: tuple[str, str, int]) -> tuple[int, LaneClock]:
        high, at = self._known[key[:2]].lanes.get(key[2], (0, 0))
        return high, LaneClock(at)

    def stored(self, placed: Sequence[Placed]) -> None:
        """These rows are durable now."""
        groups: dict[Key, list[int]] = {}
        for row, at in placed:
            fields = row.fields
            key = (fields["agent"], fields["recorder"])
            groups.setdefault(key, []).append(fields["seq"])
            lanes = self._known[key].lanes
            high, last_at = lanes.get(row.partition, (0, 0))
            lanes[row.partition] = (max(high, fields["seq"]), max(last_at, at))
        for key, seqs in groups.items():
            self._known[key].numbers.add(sorted(seqs))
