"""How runs end when they do not end well: a process that died, a run that never finalised."""

from typing import Any

import msgspec

from checkrein.detect.base import NOTHING, Observations, PerRun, shown
from checkrein.detect.types import Context, Observation
from checkrein.events.types import (
    ModelRequest,
    ModelResponse,
    RunEnd,
    Status,
    ToolInvoked,
    ToolReturned,
)

_OPEN_MAX = 64
_ORDERLY = ("SIGINT", "SIGTERM", "SIGHUP")
"""Signals by which people stop programs."""


class DeathState(msgspec.Struct):
    """Bound: one flag."""

    told: bool = False


class ProcessDeath(PerRun):
    """The run's process is gone: found so by its supervisor (`run.end` or a status `lost`), or
    ended by a signal that was neither an order's nor a person's at the keyboard."""

    name = "process-death"
    state_type = DeathState
    handles = (RunEnd, Status)
    blames = False

    def observe(self, state: DeathState, event: Any, context: Context) -> Observations:
        killed = ""
        if isinstance(event, RunEnd) and event.status != "halted":
            killed = "" if event.signal in _ORDERLY else event.signal
        if state.told or not (event.status == "lost" or killed):
            return NOTHING
        state.told = True
        how = f"by {killed}" if killed else "without a word"
        tail = f": {event.reason}" if event.reason else ""
        return [Observation(
            level="breach", why=f"the run's process ended {how}{tail}", evidence=shown(event),
            subject="process",
        )]  # fmt: skip


class UnfinishedState(msgspec.Struct):
    """Bound: 64 calls in flight."""

    open: dict[str, str] = {}
    last: str = ""


class Unfinished(PerRun):
    """A run that ended without finalising: its process ended in an orderly way and said nothing
    (breach), or it called itself completed with calls still open (warn). The very last call may be
    open: some agents end by a tool that never returns."""

    name = "unfinished"
    state_type = UnfinishedState
    handles = (ToolInvoked, ToolReturned, ModelRequest, ModelResponse, RunEnd)
    blames = False

    def observe(self, state: UnfinishedState, event: Any, context: Context) -> Observations:
        match event:
            case ToolInvoked():
                _open(state, event.call_id, event.tool)
            case ModelRequest():
                _open(state, event.call_id, event.model or "model")
            case ToolReturned() | ModelResponse():
                state.open.pop(event.call_id, None)
            case RunEnd(status="unfinished"):
                return [Observation(
                    level="breach", evidence=shown(event), subject="unfinished",
                    why="the run ended without finalising" + (event.reason and f": {event.reason}"),
                )]  # fmt: skip
            case RunEnd(status="completed") if state.open.keys() - {state.last}:
                names = ", ".join(sorted({f"`{name}`" for name in state.open.values()})[:5])
                return [Observation(
                    level="warn", evidence=shown(event), subject="open calls",
                    why=f"the run ended as completed with {len(state.open)} calls open: {names}",
                    value=float(len(state.open)), limit=0.0,
                )]  # fmt: skip
            case _:
                pass
        return NOTHING


def _open(state: UnfinishedState, call_id: str, name: str) -> None:
    if len(state.open) < _OPEN_MAX:
        state.open[call_id] = name
    state.last = call_id
