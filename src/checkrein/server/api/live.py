"""Summaries of the runs whose events came by, kept current event by event. Pure.

What came by since we began is folded here. It is all there is of a run if of every source that
wrote of it we saw the first event; whether that is so, the store's row tells (`lows`). Of any other
run the store knows the beginning: its summary is the row, with those events of the tail that are
not in the row yet (`highs`).
"""

from collections import OrderedDict
from collections.abc import Iterable
from copy import copy
from heapq import merge
from operator import itemgetter
from typing import Any

from checkrein.server.api.tail import Key, Seen, key_of
from checkrein.store.position import parse_position
from checkrein.store.runs import LaneClock, RunSummary, fold, from_row, source_of

RUNS_MAX = 5_000
CLOCKS_MAX = 20_000


class Live:
    """At most RUNS_MAX summaries; the one that was quiet longest goes first (and is then made from
    the store again)."""

    def __init__(self, runs_max: int = RUNS_MAX) -> None:
        self._runs_max = runs_max
        self._seen: OrderedDict[str, RunSummary] = OrderedDict()
        self._whole: set[str] = set()
        self._clocks: OrderedDict[tuple[str, str], LaneClock] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def feed(self, events: Iterable[Seen]) -> None:
        """Takes in new events, each once, in the order in which they came."""
        for seen in events:
            head = seen.head
            seen.at = self._clock(head.agent, head.recorder).at(head.ts)
            if not head.run_id:
                continue
            self._seen[head.run_id] = fold(self._seen.get(head.run_id), seen.fields, seen.at)
            self._seen.move_to_end(head.run_id)
        while len(self._seen) > self._runs_max:
            gone, _ = self._seen.popitem(last=False)
            self._whole.discard(gone)

    def is_whole(self, run_id: str) -> bool:
        """Whether `summary` needs no row of the store for it."""
        return run_id in self._whole

    def run_ids(self) -> list[str]:
        return list(self._seen)

    def summary(
        self, run_id: str, row: dict[str, Any] | None, unstored: Iterable[Seen]
    ) -> RunSummary | None:
        """The run as it stands; None when neither the store nor we know it. `unstored` is what the
        tail held of it *before* the store was asked for `row`: what was stored in between is in
        both, and counted once."""
        seen = self._seen.get(run_id)
        if seen is not None and (row is None or run_id in self._whole):
            return copy(seen)
        stored = None if row is None else from_row(row)
        if seen is not None and stored is not None and _covers(seen, stored):
            self._whole.add(run_id)
            return copy(seen)
        return _joined(stored, unstored)

    def _clock(self, agent: str, recorder: str) -> LaneClock:
        clock = self._clocks.get((agent, recorder))
        if clock is None:
            clock = self._clocks[(agent, recorder)] = LaneClock()
            if len(self._clocks) > CLOCKS_MAX:
                self._clocks.popitem(last=False)
        return clock


def _covers(seen: RunSummary, stored: RunSummary) -> bool:
    """Nothing is in the store that came before we looked."""
    return all(
        source in seen.lows and seen.lows[source] <= low for source, low in stored.lows.items()
    )


def _joined(stored: RunSummary | None, unstored: Iterable[Seen]) -> RunSummary | None:
    """A role numbers as it likes, but folding one of its events twice changes nothing: roles write
    of no calls, and all else in a summary is a latest or a largest."""
    upto = dict(stored.highs) if stored is not None else {}
    made = stored
    for seen in unstored:
        head = seen.head
        role = head.recorder.startswith("role:")
        if role or head.seq > upto.get(source_of(head.agent, head.recorder), 0):
            made = fold(made, seen.fields, seen.at)
    return made


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
