"""Forgeries: somebody spoke as somebody else, or an order came that must not be obeyed.

Neither is seen in what an agent records. Those who refuse it (the bus's servers, control, archive,
the holders of runs) say so with a `scope.decision` of a rule of its own (`events.refusals`), and
only here that becomes a signal: so whatever is refused has one form, one severity, one way to the
queue, and is in the record with its reason even if nobody watches.
"""

from typing import Any

import msgspec

from checkrein.detect.base import NOTHING, Observations, PerRun, shown
from checkrein.detect.types import Context, Observation
from checkrein.events.refusals import FALSE_ORDER, FORGERY
from checkrein.events.types import Base, ScopeDecision

HARMLESS = ("old epoch", "halted")
"""Reasons that orders crossing on the way give, too: noted, but nothing to wake anybody for."""


class NothingKept(msgspec.Struct):
    """Bound: nothing is kept."""


class Forgery(PerRun):
    """An attempt to speak or to listen as somebody else. Each kind of attempt is told once a run,
    whether or not the run has ended."""

    name = "forgery"
    state_type = NothingKept
    handles = (ScopeDecision,)
    per_run = False

    def key(self, event: Base) -> str | None:
        return event.run_id if isinstance(event, ScopeDecision) and event.rule == FORGERY else None

    def observe(self, state: NothingKept, event: Any, context: Context) -> Observations:
        return [_said(event, "breach")] if event.verdict == "deny" else NOTHING

    def done(self, state: NothingKept) -> bool:
        return True


class FalseOrder(Forgery):
    """A holder refused an order. The agent is the one it was aimed at, not the one to blame."""

    name = "false-order"
    blames = False

    def key(self, event: Base) -> str | None:
        mine = isinstance(event, ScopeDecision) and event.rule == FALSE_ORDER
        return event.run_id if mine else None

    def observe(self, state: NothingKept, event: Any, context: Context) -> Observations:
        name = event.action.get("name", "")
        return [_said(event, "warn" if name in HARMLESS else "breach")]


def _said(event: ScopeDecision, level: Any) -> Observation:
    tried = str(event.action.get("name", ""))[:200]
    return Observation(
        level=level, why=f"{event.guard} refused: {event.reason}"[:500], evidence=shown(event),
        subject=tried,
    )  # fmt: skip
