"""Attempts outside the pact: a guard refused a tool or a model. The refusal is the evidence."""

from typing import Any

import msgspec

from checkrein.detect.base import NOTHING, Observations, PerRun, shown
from checkrein.detect.types import Context, Observation
from checkrein.events.refusals import BYPASS, FALSE_ORDER, FORGERY
from checkrein.events.types import ScopeDecision

_ELSEWHERE = ("budgets", "loops")
"""Guards whose refusals have detectors of their own."""
_NO_ACTION = (FORGERY, FALSE_ORDER, BYPASS)
"""Rules of refusals on the buses and past the gateway: `detect.forgery` and `detect.bypass` tell of
them."""


class ScopeState(msgspec.Struct):
    """Bound: one number."""

    refused: int = 0


class Scope(PerRun):
    """The first attempt at each action outside the pact is a breach; one that may be tried again
    (other arguments, something else first, later) a warning; an agent cut off after too many
    refusals is runaway. A name that merely does not exist is left to `unknown-tool`, and what a
    pact says that is only watched is nobody's attempt."""

    name = "scope"
    state_type = ScopeState
    handles = (ScopeDecision,)

    def observe(self, state: ScopeState, event: Any, context: Context) -> Observations:
        if event.verdict != "deny":
            return NOTHING
        if event.guard in _ELSEWHERE or event.rule in _NO_ACTION:
            return NOTHING
        runaway = event.runaway
        again = event.advice in ("RETRYABLE", "WAIT") and not runaway
        if event.rule == "tools.unknown" and not runaway:
            return NOTHING
        state.refused += 1
        name = str(event.action.get("name", ""))[:200]
        return [Observation(
            level="warn" if again else "breach", runaway=runaway,
            why=event.reason or f"`{name}` was refused by {event.guard}",
            value=float(state.refused), evidence=shown(event), subject=f"{event.rule} {name}",
        )]  # fmt: skip
