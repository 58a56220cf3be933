"""Tools that do not exist, or that the pact does not name.

A name that is not among the tools the run was offered is a slip of the model (warn; the third is a
breach). A tool outside the pact that was *invoked* is a breach at once: nothing held it back.
"""

from typing import Any

import msgspec

from checkrein.detect.base import NOTHING, Observations, PerRun, shown
from checkrein.detect.types import Context, Observation
from checkrein.events.types import (
    Base,
    ModelRequest,
    RunStart,
    ScopeDecision,
    ToolInvoked,
    ToolReturned,
    ToolSelected,
)
from checkrein.policy.nearest import did_you_mean

UNKNOWN_BREACH = 3
_TOOLS_MAX = 512
_OPEN_MAX = 64


class UnknownToolState(msgspec.Struct):
    """Bound: 512 names of tools and 64 calls in flight: about 50 kB at most. With more tools
    offered, nothing is unknown."""

    offered: dict[str, bool] = {}
    pending: dict[str, str] = {}
    unknown: int = 0
    full: bool = False


class UnknownTool(PerRun):
    """A call of an unlisted tool that returns well shows that the list was short; only one that was
    refused or failed counts as unknown."""

    name = "unknown-tool"
    state_type = UnknownToolState
    handles = (RunStart, ModelRequest, ToolSelected, ToolInvoked, ToolReturned, ScopeDecision)

    def observe(self, state: UnknownToolState, event: Any, context: Context) -> Observations:
        match event:
            case RunStart() | ModelRequest():
                for name in event.tools:
                    _offer(state, name)
            case ToolSelected():
                listed = not state.offered or state.full or event.tool in state.offered
                if not listed and len(state.pending) < _OPEN_MAX:
                    state.pending[event.call_id] = event.tool
            case ScopeDecision(rule="tools.unknown", verdict="deny"):
                state.pending.pop(event.call_id, None)
                return self._unknown(state, event, str(event.action.get("name", "")), event.reason)
            case ToolInvoked():
                return self._invoked(event, context)
            case ToolReturned():
                tool = state.pending.pop(event.call_id, None)
                if tool is None:
                    return NOTHING
                if event.status == "ok":
                    _offer(state, tool)
                    return NOTHING
                why = f"there is no tool `{tool}`{did_you_mean(tool, state.offered)}"
                return self._unknown(state, event, tool, why)
            case _:
                pass
        return NOTHING

    def _unknown(
        self, state: UnknownToolState, event: Base, tool: str, why: str
    ) -> list[Observation]:
        state.unknown += 1
        breach = state.unknown >= UNKNOWN_BREACH
        return [Observation(
            level="breach" if breach else "warn", why=why, value=float(state.unknown),
            limit=float(UNKNOWN_BREACH), evidence=shown(event), subject=tool[:200],
        )]  # fmt: skip

    def _invoked(self, event: ToolInvoked, context: Context) -> Observations:
        allowed = context.pact.tools
        if allowed is None or event.tool in allowed:
            return NOTHING
        return [Observation(
            level="breach",
            why=f"`{event.tool}` was invoked; the pact `{context.pact.pact}` does not allow it",
            evidence=shown(event), subject=f"invoked {event.tool}"[:200],
        )]  # fmt: skip


def _offer(state: UnknownToolState, name: str) -> None:
    if len(state.offered) < _TOOLS_MAX:
        state.offered[name] = True
    elif name not in state.offered:
        state.full = True
