"""Which events are stored already: exactly, and nearly always without asking the store.

A lane (agent, recorder, partition) is written in the order of its numbers, so a number above the
lane's highest is new. Whatever is not above it (sent again, late, or from a recorder that counts
otherwise) is looked up.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from checkrein.store.rows import Placed
from checkrein.store.runs import LaneClock
from checkrein.store.types import Row

LANES_KNOWN_MAX = 50_000

LaneKey = tuple[str, str, int]


class _Lane(msgspec.Struct):
    high: int = 0
    at: int = 0


class Lanes:
    """`marks_of(lanes)` gives (recorder, agent, partition, seq, at) rows for those recorders;
    `stored_of(agent, recorder, seqs)` the numbers that stand. Lanes beyond LANES_KNOWN_MAX are
    forgotten, oldest first, and looked up again when they come back."""

    def __init__(
        self,
        marks_of: Callable[[Sequence[LaneKey]], list[tuple[Any, ...]]],
        stored_of: Callable[[str, str, Sequence[int]], set[int]],
    ) -> None:
        self._marks_of = marks_of
        self._stored_of = stored_of
        self._lanes: dict[LaneKey, _Lane] = {}

    def unseen(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that are not stored yet, each event once, in the order given."""
        keys = [(row.fields["agent"], row.fields["recorder"], row.partition) for row in rows]
        self._learn(set(keys))
        taken: set[tuple[str, str, int]] = set()
        chosen: list[int] = []
        doubtful: dict[tuple[str, str], list[int]] = {}
        for index, (row, key) in enumerate(zip(rows, keys, strict=True)):
            seq = row.fields["seq"]
            name = (key[0], key[1], seq)
            if name in taken:
                continue
            taken.add(name)
            chosen.append(index)
            if seq <= self._lanes[key].high:
                doubtful.setdefault(key[:2], []).append(seq)
        if not doubtful:
            return [rows[index] for index in chosen]
        stored = {
            (agent, recorder, seq)
            for (agent, recorder), seqs in doubtful.items()
            for seq in self._stored_of(agent, recorder, seqs)
        }
        return [
            rows[index] for index in chosen
            if (*keys[index][:2], rows[index].fields["seq"]) not in stored
        ]  # fmt: skip

    def _learn(self, keys: set[LaneKey]) -> None:
        unknown = [key for key in keys if key not in self._lanes]
        if not unknown:
            return
        found = {
            (agent, recorder, partition): _Lane(seq, at)
            for recorder, agent, partition, seq, at in self._marks_of(unknown)
        }
        if len(self._lanes) + len(unknown) > LANES_KNOWN_MAX:
            for key in [key for key in self._lanes if key not in keys]:
                if len(self._lanes) + len(unknown) <= LANES_KNOWN_MAX // 2:
                    break
                del self._lanes[key]
        for key in unknown:
            self._lanes[key] = found.get(key) or _Lane()

    def place(self, rows: Sequence[Row]) -> list[Placed]:
        """Each row with its place in time. Changes nothing."""
        clocks: dict[LaneKey, LaneClock] = {}
        placed = []
        for row in rows:
            fields = row.fields
            key = (fields["agent"], fields["recorder"], row.partition)
            lane = self._lanes[key]
            if fields["seq"] <= lane.high:
                placed.append(Placed(row, fields["ts"]))
                continue
            clock = clocks.get(key)
            if clock is None:
                clock = clocks[key] = LaneClock(lane.at)
            placed.append(Placed(row, clock.at(fields["ts"])))
        return placed

    def stored(self, rows: Sequence[Row]) -> None:
        """These rows are durable now."""
        for row in rows:
            fields = row.fields
            lane = self._lanes[fields["agent"], fields["recorder"], row.partition]
            lane.high = max(lane.high, fields["seq"])
            lane.at = max(lane.at, fields["ts"])
