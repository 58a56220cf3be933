"""The latest runs' events, whole: who asks for a run that began a moment ago is answered without
the store, whose reads wait for its writes. Pure but for the clock that it is given.

A run is answered from here when its `run.start` came by, was recorded after we began to listen, and
nothing of the run was let go since. Of any other run the store knows more.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from operator import itemgetter

from checkrein.server.api.live import order_of
from checkrein.server.api.tail import Key, Seen

EVENTS_MAX = 20_000
BYTES_MAX = 16 * 1024 * 1024
RUN_EVENTS_MAX = 5_000
MARGIN_NS = 5_000_000_000
"""How far the clocks of agents' machines may be ahead of ours without a doubt about a run."""


class _Kept:
    """One run's events by key."""

    __slots__ = ("bytes", "events", "whole")

    def __init__(self) -> None:
        self.events: dict[Key, Seen] = {}
        self.bytes = 0
        self.whole = False


class Recent:
    """At most `events_max` events and `bytes_max` bytes of them; the run that was quiet longest
    goes first, and a run of more than RUN_EVENTS_MAX at once."""

    def __init__(
        self, now_ns: Callable[[], int], events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX
    ) -> None:
        self._now_ns = now_ns
        self._events_max, self._bytes_max = events_max, bytes_max
        self._runs: OrderedDict[str, _Kept] = OrderedDict()
        self._since_ns = 0
        self.bytes = self._events = 0

    def __len__(self) -> int:
        return self._events

    def begin(self) -> None:
        """Listening begins, or begins anew: what went by in between is not known."""
        self._runs.clear()
        self.bytes = self._events = 0
        self._since_ns = self._now_ns() + MARGIN_NS

    def feed(self, events: Iterable[Seen]) -> None:
        """Takes in events that `Live` has been fed."""
        for seen in events:
            if seen.head.run_id:
                self._keep(seen)
        while self._events > self._events_max or self.bytes > self._bytes_max:
            self._drop(next(iter(self._runs)))

    def of_run(self, run_id: str) -> list[Seen] | None:
        """All events of the run in the store's order; None when some may be missing here."""
        kept = self._runs.get(run_id)
        if kept is None or not kept.whole:
            return None
        ordered = sorted(((order_of(seen), seen) for seen in kept.events.values()), key=_FIRST)
        return [seen for _, seen in ordered]

    def _keep(self, seen: Seen) -> None:
        run_id = seen.head.run_id
        kept = self._runs.get(run_id)
        if kept is None:
            kept = self._runs[run_id] = _Kept()
        if seen.key in kept.events:
            return
        kept.events[seen.key] = seen
        kept.bytes += len(seen.raw)
        self._events += 1
        self.bytes += len(seen.raw)
        kept.whole = kept.whole or (
            seen.head.type == "run.start" and seen.head.ts >= self._since_ns
        )
        self._runs.move_to_end(run_id)
        if len(kept.events) > RUN_EVENTS_MAX:
            self._drop(run_id)

    def _drop(self, run_id: str) -> None:
        """What comes of this run later does not make it whole again."""
        kept = self._runs.pop(run_id)
        self._events -= len(kept.events)
        self.bytes -= kept.bytes


_FIRST = itemgetter(0)
