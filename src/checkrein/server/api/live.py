"""Summaries of the runs whose events came by, kept current event by event. Pure.

A run that was seen from its `run.start` is *whole*: its summary here is all there is. Of others the
store knows the beginning: theirs are made when asked for, from the store's row and the tail.
"""

from collections import OrderedDict
from collections.abc import Iterable
from copy import copy
from heapq import merge
from operator import itemgetter
from typing import Any

from checkrein.server.api.tail import Key, Seen, key_of
from checkrein.store.position import parse_position
from checkrein.store.runs import LaneClock, RunSummary, fold, from_row

RUNS_MAX = 5_000
CLOCKS_MAX = 20_000


class Live:
    """At most RUNS_MAX summaries; the one that was quiet longest goes first (and is then made from
    the store again)."""

    def __init__(self, runs_max: int = RUNS_MAX) -> None:
        self._runs_max = runs_max
        self._whole: OrderedDict[str, RunSummary] = OrderedDict()
        self._clocks: OrderedDict[tuple[str, str], LaneClock] = OrderedDict()

    def __len__(self) -> int:
        return len(self._whole)

    def feed(self, events: Iterable[Seen]) -> None:
        """Takes in new events, in the order in which they came."""
        for seen in events:
            head = seen.head
            seen.at = self._clock(head.agent, head.recorder).at(head.ts)
            standing = self._whole.get(head.run_id)
            if standing is None and head.type != "run.start":
                continue
            self._whole[head.run_id] = fold(standing, seen.fields, seen.at)
            self._whole.move_to_end(head.run_id)
        while len(self._whole) > self._runs_max:
            self._whole.popitem(last=False)

    def is_whole(self, run_id: str) -> bool:
        return run_id in self._whole

    def whole(self) -> list[RunSummary]:
        return list(self._whole.values())

    def summary(
        self, run_id: str, row: dict[str, Any] | None, unstored: Iterable[Seen]
    ) -> RunSummary | None:
        """The run as it stands: kept here, or the store's row with what the store lacks; None when
        neither knows it."""
        standing = self._whole.get(run_id)
        if standing is not None:
            return copy(standing)
        made = from_row(row) if row is not None else None
        for seen in unstored:
            made = fold(made, seen.fields, seen.at)
        return made

    def _clock(self, agent: str, recorder: str) -> LaneClock:
        clock = self._clocks.get((agent, recorder))
        if clock is None:
            clock = self._clocks[(agent, recorder)] = LaneClock()
            if len(self._clocks) > CLOCKS_MAX:
                self._clocks.popitem(last=False)
        return clock


def merged(rows: list[dict[str, Any]], unstored: Iterable[Seen]) -> list[dict[str, Any]]:
    """The store's events, which come with their `position`, and those it lacks, each once, in the
    store's own order: by time, a recorder's always by their numbers."""
    known: set[Key] = {key_of(row) for row in rows}
    fresh = [(order_of(seen), seen.fields) for seen in unstored if seen.key not in known]
    if not fresh:
        return rows
    fresh.sort(key=itemgetter(0))
    if not rows or parse_position(rows[-1]["position"]) <= fresh[0][0]:
        return rows + [fields for _, fields in fresh]
    stored = ((parse_position(row["position"]), row) for row in rows)
    return [fields for _, fields in merge(stored, fresh, key=itemgetter(0))]


def order_of(seen: Seen) -> tuple[int, str, int, str]:
    """Where the store puts an event, as `parse_position` tells of a stored one."""
    return (seen.at, seen.head.recorder, seen.head.seq, seen.head.agent)
