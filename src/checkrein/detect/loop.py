"""Loops, seen from outside: the same calls again without anything new to show for it.

The logic is the guard's (`policy.loop`), applied after each call. For a limit of three: three equal
calls without news warn, five are a breach, eight are runaway. Where a guard refuses the fourth, its
first refusal is the breach, and its cutting off of an agent that keeps asking is runaway.
"""

from typing import Any

import msgspec

from checkrein.detect.base import NOTHING, Observations, PerRun, keep_last, shown, steps_up
from checkrein.detect.types import Context, Observation
from checkrein.events.types import ScopeDecision, ToolArguments, ToolReturned
from checkrein.policy import loop
from checkrein.policy.kinds import declared_kind, seems_read
from checkrein.policy.types import Loops

_OPEN_MAX = 64


class LoopsState(msgspec.Struct):
    """Bound: 16 calls, 256 fingerprints, 64 calls in flight, 16 events of evidence: about 40 kB at
    most, 4 kB as a rule."""

    memory: loop.LoopState
    open: dict[str, loop.Call] = {}
    evidence: list[tuple[str, int]] = []
    stale: int = 0


class Loop(PerRun):
    name = "loop"
    state_type = LoopsState
    handles = (ToolArguments, ToolReturned, ScopeDecision)

    def start(self) -> LoopsState:
        return LoopsState(loop.LoopState())

    def observe(self, state: LoopsState, event: Any, context: Context) -> Observations:
        match event:
            case ToolArguments():
                if len(state.open) >= _OPEN_MAX:
                    del state.open[next(iter(state.open))]
                state.open[event.call_id] = loop.call_of(event.tool, event.arguments, event.ts)
                return NOTHING
            case ToolReturned():
                call = state.open.pop(event.call_id, None)
                if call is None or event.status in ("denied", "cancelled"):
                    return NOTHING
                return self._returned(state, call, event, context)
            case ScopeDecision():
                return _refused(event)
            case _:
                return NOTHING

    def _returned(
        self, state: LoopsState, call: loop.Call, event: ToolReturned, context: Context
    ) -> Observations:
        loops = context.pact.loops
        stand = loop.standing(state.memory, call, loops)
        kind = declared_kind(context.pact, event.tool, None)
        progress = loop.returned(
            state.memory,
            call,
            event.error if event.result is None else event.result,
            event.status == "error",
            reads=kind == "read" or (kind is None and seems_read(event.tool)),
            thorough=True,
        )
        if progress:
            state.stale = 0
            state.evidence.clear()
            keep_last(state.evidence, event)
            return NOTHING
        state.stale += 1
        keep_last(state.evidence, event)
        return _judged(state, event.tool, stand, loops)


def _judged(state: LoopsState, tool: str, stand: loop.Standing, loops: Loops) -> list[Observation]:
    """The worst of what the call just returned adds up to, if it is anything."""
    counts = [
        (stand.same + 1, loops.same_call, "same call",
         f"the same call of `{tool}` {stand.same + 1} times"),
        (stand.similar + 1, loops.similar_call, "similar call",
         f"nearly the same call of `{tool}` {stand.similar + 1} times"),
        (state.stale, loops.no_progress, "no progress", f"{state.stale} calls in a row"),
    ]  # fmt: skip
    if stand.cycle:
        rounds = 1 + state.stale // stand.cycle
        counts.append((rounds, 3, "cycle", f"{rounds} rounds of the same {stand.cycle} tools"))
    for level in (2, 1, 0):
        for count, limit, subject, what in counts:
            if count >= steps_up(limit)[level]:
                return [Observation(
                    level="warn" if level == 0 else "breach",
                    runaway=level == 2,
                    why=f"{what}, and nothing new came of it",
                    value=float(count), limit=float(limit),
                    evidence=tuple(state.evidence), subject=f"{subject} {tool}",
                )]  # fmt: skip
    return []


def _refused(event: ScopeDecision) -> Observations:
    if event.guard != "loops" or event.verdict != "deny":
        return NOTHING
    return [Observation(
        level="breach", runaway=event.runaway, why=event.reason,
        evidence=shown(event), subject=event.rule.removeprefix("loops."),
    )]  # fmt: skip
