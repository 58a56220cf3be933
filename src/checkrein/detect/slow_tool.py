"""A tool that takes longer than the pact's timeout: when it returns, and while it has not."""

from typing import Any

import msgspec

from checkrein.detect.base import NOTHING, Observations, PerRun, shown
from checkrein.detect.types import Context, Observation
from checkrein.events.types import ToolInvoked, ToolReturned
from checkrein.policy.types import Pact
from checkrein.policy.units import duration_text

BREACH_FACTOR = 3.0
_OPEN_MAX = 64


class _Open(msgspec.Struct):
    tool: str
    since_ns: int
    evidence: tuple[str, int]
    told: int = 0


class SlowToolState(msgspec.Struct):
    """Bound: 64 calls in flight, the oldest forgotten first: about 10 kB."""

    open: dict[str, _Open] = {}


class SlowTool(PerRun):
    """Over the timeout warns, three times the timeout is a breach."""

    name = "slow-tool"
    state_type = SlowToolState
    handles = (ToolInvoked, ToolReturned)
    ticks = True
    blames = False

    def observe(self, state: SlowToolState, event: Any, context: Context) -> Observations:
        timeout_s = _timeout_s(context.pact, event.tool)
        if timeout_s is None:
            return NOTHING
        if isinstance(event, ToolInvoked):
            if len(state.open) >= _OPEN_MAX:
                del state.open[next(iter(state.open))]
            state.open[event.call_id] = _Open(event.tool, context.now_ns, shown(event)[0])
            return NOTHING
        begun = state.open.pop(event.call_id, None)
        took_s = event.duration_ns / 1e9
        level = _level(took_s, timeout_s)
        if level <= (begun.told if begun else 0):
            return NOTHING
        return [_said(event.tool, took_s, timeout_s, level, shown(event), event.call_id, "took")]

    def tick(self, state: SlowToolState, context: Context) -> Observations:
        found = []
        for call_id, call in state.open.items():
            timeout_s = _timeout_s(context.pact, call.tool)
            if timeout_s is None:
                continue
            taken_s = (context.now_ns - call.since_ns) / 1e9
            level = _level(taken_s, timeout_s)
            if level > call.told:
                call.told = level
                evidence = (call.evidence,)
                found.append(
                    _said(call.tool, taken_s, timeout_s, level, evidence, call_id, "has taken")
                )
        return found


def _timeout_s(pact: Pact, tool: str) -> float | None:
    rule = pact.tools.get(tool) if pact.tools else None
    return rule.timeout_s if rule else None


def _level(taken_s: float, timeout_s: float) -> int:
    return (taken_s > timeout_s) + (taken_s > BREACH_FACTOR * timeout_s)


def _said(
    tool: str, taken_s: float, timeout_s: float, level: int,
    evidence: tuple[tuple[str, int], ...], call_id: str, verb: str,
) -> Observation:  # fmt: skip
    return Observation(
        level="breach" if level > 1 else "warn",
        why=f"`{tool}` {verb} {duration_text(taken_s)}; the pact gives it "
        f"{duration_text(timeout_s)}",
        value=taken_s,
        limit=timeout_s,
        evidence=evidence,
        subject=f"{tool} {call_id}",
    )
