"""Events known to be missing. A record with holes proves less: it is said, never hidden."""

from typing import Any

import msgspec

from checkrein.detect.base import Observations, PerRun, shown
from checkrein.detect.types import Context, Observation
from checkrein.events.types import Loss as LossEvent

BREACH_EVENTS = 1000


class LossState(msgspec.Struct):
    """Bound: one number."""

    lost: int = 0


class Loss(PerRun):
    """Any loss warns; a thousand events of one run are a breach, of the record."""

    name = "loss"
    state_type = LossState
    handles = (LossEvent,)
    blames = False

    def observe(self, state: LossState, event: Any, context: Context) -> Observations:
        state.lost += event.count
        breach = state.lost >= BREACH_EVENTS
        which = f", numbers {event.first} to {event.last}" if event.last else ""
        why = f": {event.why}" if event.why else ""
        return [Observation(
            level="breach" if breach else "warn",
            why=f"{event.count} events of recorder {event.lost_recorder} are missing{which}{why}",
            value=float(state.lost), limit=float(BREACH_EVENTS), evidence=shown(event),
            subject=f"{event.lost_recorder} {event.first}",
        )]  # fmt: skip
