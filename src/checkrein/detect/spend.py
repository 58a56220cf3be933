"""Spend: a clock hour of an agent that costs a multiple of what its hours cost.

What is expected is the median of the hours (UTC) in which the agent spent anything, the last 168 of
them: a median, so that the hours that were too dear do not make the next one look usual. `alert` in
the pact is the multiple (3 where it says nothing, and then at least 10 cents: three times next to
nothing is nothing). Before there are eight such hours, nothing is expected and nothing is said.
Once an hour; a warning, which halts nothing: budgets are what stops.
"""

import statistics
from typing import Any

import msgspec

from checkrein.detect.base import NOTHING, Observations, PerRun, keep_last
from checkrein.detect.types import Context, Observation
from checkrein.events.types import Base, ModelResponse
from checkrein.policy.prices import cost

MULTIPLE = 3.0
FLOOR_USD = 0.1
HOURS_MIN = 8
HOURS_KEPT = 168
_HOUR_NS = 3_600_000_000_000


class SpendState(msgspec.Struct):
    """Bound: the costs of 168 hours and 16 events as evidence: 3 kB at most for an agent."""

    hour: int = -1
    usd: float = 0.0
    told: bool = False
    evidence: list[tuple[str, int]] = []
    before: list[float] = []


class Spend(PerRun):
    name = "spend"
    state_type = SpendState
    handles = (ModelResponse,)
    per_run = False

    def key(self, event: Base) -> str | None:
        return f"{event.environment}\0{event.agent}"

    def start(self) -> SpendState:
        return SpendState()

    def observe(self, state: SpendState, event: Any, context: Context) -> Observations:
        hour = event.ts // _HOUR_NS
        if hour < state.hour:
            return NOTHING  # of an hour that is closed already: late by more than that
        usd = _cost(event)
        if usd <= 0.0:
            return NOTHING
        if hour > state.hour:
            _turn(state, hour)
        state.usd += usd
        keep_last(state.evidence, event)
        if state.told or len(state.before) < HOURS_MIN:
            return NOTHING
        return self._compare(state, event, context)

    def _compare(
        self, state: SpendState, event: ModelResponse, context: Context
    ) -> Observations:  # fmt: skip
        alert = context.pact.budgets.alert
        expected = statistics.median(state.before)
        limit = expected * (alert or MULTIPLE)
        if alert is None:
            limit = max(limit, FLOOR_USD)
        if state.usd <= limit:
            return NOTHING
        state.told = True
        return [Observation(
            level="warn",
            why=f"this hour of {event.agent} has cost {state.usd:.4g} US dollars so far, "
            f"{state.usd / expected:.1f} times the {expected:.4g} of its usual hour "
            f"(median of {len(state.before)} hours)",
            value=state.usd, limit=limit, evidence=tuple(state.evidence),
            subject=f"hour {state.hour}", run_id=event.run_id,
        )]  # fmt: skip


def _turn(state: SpendState, hour: int) -> None:
    """A new hour with any spending begins; the last one is history."""
    if state.usd > 0.0:
        state.before = [*state.before, state.usd][-HOURS_KEPT:]
    state.hour, state.usd, state.told = hour, 0.0, False
    state.evidence = []


def _cost(event: ModelResponse) -> float:
    """What the event says, else what the table of prices says; a price that nobody knows counts
    nothing here, and is the detector `budget`'s to tell."""
    if event.usd is not None or event.error:
        return event.usd or 0.0
    known = cost(
        event.provider, event.model, event.input_tokens, event.output_tokens, event.cached_tokens
    )
    return known or 0.0
