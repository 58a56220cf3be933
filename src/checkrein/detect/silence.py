"""Silence: a run of which nothing has been heard for longer than is usual for its kind.

Dead is whoever is silent for longer than max(3 heartbeat periods, 1.5 times q99.99 of the heartbeat
intervals of all runs of the same framework), with no call in flight. Model calls stall and a fixed
timeout cries wolf; the fleet's own intervals say what a stall is. With a call in flight the limit
is five minutes at least.
"""

from typing import Any

import msgspec

from checkrein.detect.base import NOTHING, Observations, PerRun
from checkrein.detect.sketch import Sketch
from checkrein.detect.types import Context, Observation
from checkrein.events.types import (
    Base,
    Heartbeat,
    ModelRequest,
    ModelResponse,
    RunEnd,
    RunStart,
    Status,
    ToolInvoked,
    ToolReturned,
)
from checkrein.policy.units import duration_text

PERIOD_NS = 10_000_000_000
MISSES = 3
QUANTILE = 0.9999
QUANTILE_FACTOR = 1.5
INTERVALS_MIN = 200
IN_CALL_MIN_NS = 300_000_000_000
_RUNS_MAX = 20_000
_FRAMEWORKS_MAX = 64


class _Run(msgspec.Struct):
    heard_ns: int
    beat_ns: int = 0
    period_ns: int = PERIOD_NS
    framework: str = ""
    in_flight: int = 0
    held: bool = False
    told: bool = False
    last: tuple[str, int] = ("", 0)


class SilenceState(msgspec.Struct):
    """Bound: 20,000 runs of some 200 bytes, the oldest forgotten first, and a sketch for each of at
    most 64 frameworks: 5 MB at most."""

    runs: dict[str, _Run] = {}
    intervals: dict[str, Sketch] = {}
    limits_ns: dict[str, int] = {}


class Silence(PerRun):
    """Only runs that send heartbeats are watched: a recorded or imported run has none."""

    name = "silence"
    state_type = SilenceState
    handles = (
        RunStart, RunEnd, Heartbeat, Status, ModelRequest, ModelResponse, ToolInvoked, ToolReturned,
    )  # fmt: skip
    ticks = True
    per_run = False
    blames = False

    def key(self, event: Base) -> str | None:
        return event.environment

    def observe(self, state: SilenceState, event: Any, context: Context) -> Observations:
        if isinstance(event, RunEnd):
            state.runs.pop(event.run_id, None)
            return NOTHING
        run = state.runs.get(event.run_id)
        if run is None:
            if len(state.runs) >= _RUNS_MAX:
                del state.runs[next(iter(state.runs))]
            run = state.runs[event.run_id] = _Run(context.now_ns)
        run.heard_ns = context.now_ns
        run.last = (event.recorder, event.seq)
        run.told = False
        match event:
            case RunStart():
                run.framework = event.framework[:100]
            case Heartbeat():
                self._beat(state, run, event, context.now_ns)
            case Status():
                run.held = event.status in ("paused", "waiting_human", "escalated")
            case ModelRequest() | ToolInvoked():
                run.in_flight += 1
            case ModelResponse() | ToolReturned():
                run.in_flight = max(0, run.in_flight - 1)
            case _:
                pass
        return NOTHING

    def _beat(self, state: SilenceState, run: _Run, event: Heartbeat, now_ns: int) -> None:
        if run.beat_ns and not run.held:
            sketch = state.intervals.get(run.framework)
            if sketch is None and len(state.intervals) < _FRAMEWORKS_MAX:
                sketch = state.intervals[run.framework] = Sketch()
            if sketch is not None:
                sketch.add((now_ns - run.beat_ns) / 1e9)
                if sketch.total % 100 == 0:
                    quantile_ns = round(sketch.quantile(QUANTILE) * QUANTILE_FACTOR * 1e9)
                    state.limits_ns[run.framework] = (
                        quantile_ns if sketch.total >= INTERVALS_MIN else 0
                    )
        run.beat_ns = now_ns
        run.in_flight = len(event.in_flight)
        run.held = False
        if event.interval_ns:
            run.period_ns = event.interval_ns

    def tick(self, state: SilenceState, context: Context) -> Observations:
        found = []
        for run_id, run in state.runs.items():
            silent_ns = context.now_ns - run.heard_ns
            if silent_ns < MISSES * run.period_ns or run.told or run.held or not run.beat_ns:
                continue
            limit_ns = max(MISSES * run.period_ns, state.limits_ns.get(run.framework, 0))
            if run.in_flight:
                limit_ns = max(limit_ns, IN_CALL_MIN_NS)
            if silent_ns <= limit_ns:
                continue
            run.told = True
            calls = f"; {run.in_flight} calls were in flight" if run.in_flight else ""
            found.append(Observation(
                level="breach",
                why=f"nothing heard for {duration_text(silent_ns // 10**9)}; the limit for its "
                f"kind is {duration_text(limit_ns // 10**9)}{calls}",
                value=silent_ns / 1e9, limit=limit_ns / 1e9,
                evidence=(run.last,), subject=f"since {run.last[1]}", run_id=run_id,
            ))  # fmt: skip
        return found

    def done(self, state: SilenceState) -> bool:
        return False
