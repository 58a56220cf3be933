"""A tool that keeps failing in a run: several times in a row, or most of the time."""

from typing import Any

import msgspec

from checkrein.detect.base import NOTHING, Observations, PerRun, keep_last
from checkrein.detect.types import Context, Observation
from checkrein.events.types import ToolReturned

IN_A_ROW_WARN = 3
IN_A_ROW_BREACH = 6
SHARE_WARN = 0.5
SHARE_CALLS_MIN = 8
_TOOLS_MAX = 64


class _Tool(msgspec.Struct):
    calls: int = 0
    failed: int = 0
    in_a_row: int = 0
    evidence: list[tuple[str, int]] = []


class ToolFailureState(msgspec.Struct):
    """Bound: 64 tools of four numbers and 16 events of evidence: about 30 kB at most."""

    tools: dict[str, _Tool] = {}


class ToolFailure(PerRun):
    name = "tool-failure"
    state_type = ToolFailureState
    handles = (ToolReturned,)

    def observe(self, state: ToolFailureState, event: Any, context: Context) -> Observations:
        if event.status in ("denied", "cancelled"):
            return NOTHING
        tool = state.tools.get(event.tool)
        if tool is None:
            if len(state.tools) >= _TOOLS_MAX:
                return NOTHING
            tool = state.tools[event.tool] = _Tool()
        tool.calls += 1
        if event.status == "ok":
            tool.in_a_row = 0
            return NOTHING
        tool.failed += 1
        tool.in_a_row += 1
        keep_last(tool.evidence, event)
        evidence, last = tuple(tool.evidence), event.error[:200]
        if tool.in_a_row >= IN_A_ROW_WARN:
            breach = tool.in_a_row >= IN_A_ROW_BREACH
            return [Observation(
                level="breach" if breach else "warn",
                why=f"`{event.tool}` has failed {tool.in_a_row} times in a row, last: {last}",
                value=float(tool.in_a_row),
                limit=float(IN_A_ROW_BREACH if breach else IN_A_ROW_WARN),
                evidence=evidence, subject=f"{event.tool} in a row",
            )]  # fmt: skip
        share = tool.failed / tool.calls
        if tool.calls >= SHARE_CALLS_MIN and share >= SHARE_WARN:
            return [Observation(
                level="warn",
                why=f"`{event.tool}` has failed in {tool.failed} of {tool.calls} calls: {last}",
                value=share, limit=SHARE_WARN, evidence=evidence, subject=f"{event.tool} share",
            )]  # fmt: skip
        return NOTHING
