"""Ways past the gateway: what the supervisor saw a program connect to although its calls are meant
to go through the gateway, or what it did not let a confined one reach.

The supervisor says so with a `scope.decision` of the rule `bypass`; only here that becomes a
signal.
"""

from typing import Any

import msgspec

from checkrein.detect.base import NOTHING, Observations, PerRun, shown
from checkrein.detect.types import Context, Observation
from checkrein.events.refusals import BYPASS
from checkrein.events.types import Base, ScopeDecision

_ONLY_STRANGE = ("name service", "cpu")
"""What honest programs do, too: looking a name up, working long without a word."""


class Attempts(msgspec.Struct):
    """Bound: one number."""

    refused: int = 0


class Bypass(PerRun):
    """What went past the gateway is a breach; what was not let through a warning, and so is what
    is only strange."""

    name = "bypass"
    state_type = Attempts
    handles = (ScopeDecision,)

    def key(self, event: Base) -> str | None:
        return event.run_id if isinstance(event, ScopeDecision) and event.rule == BYPASS else None

    def observe(self, state: Attempts, event: Any, context: Context) -> Observations:
        if event.rule != BYPASS:
            return NOTHING
        kind = str(event.action.get("kind", ""))
        through = event.verdict != "deny"
        state.refused += not through
        return [Observation(
            level="breach" if through and kind not in _ONLY_STRANGE else "warn",
            why=event.reason or "a way past the gateway", evidence=shown(event),
            subject=f"{kind} {event.action.get('name', '')}"[:200],
        )]  # fmt: skip
