"""Budgets: what a run has spent against its pact, seen from outside.

Where the agent's own guard enforces the pact, the first sign is its refusal; where none does, the
totals of the events tell. Being over a budget that stops is a runaway; over one that pauses
(`exhausted: pause`), going on is: the call that used it up had begun before, the third thing done
after it had not.
"""

from typing import Any

import msgspec

from checkrein.detect.base import NOTHING, Observations, PerRun, shown
from checkrein.detect.types import Context, Observation
from checkrein.events.types import (
    ModelResponse,
    RunStart,
    ScopeDecision,
    Status,
    StepStart,
    ToolInvoked,
)
from checkrein.policy.budgets import Limit, Spent, has_budgets, limits
from checkrein.policy.prices import cost

GOES_ON_MAX = 2
GRACE_S = 60.0
"""So long over its time a run may be that has made no call since: none was there to be held."""


class BudgetState(msgspec.Struct):
    """Bound: a few counters, and the names of at most five budgets told of, three times each.
    `raised`: what somebody has added to a budget; `gone_on`: what was done since one was over."""

    spent: Spent
    paused_since_ns: int = 0
    told: dict[str, bool] = {}
    raised: dict[str, float] = {}
    gone_on: int = 0
    is_over: bool = False


class Budget(PerRun):
    name = "budget"
    state_type = BudgetState
    handles = (RunStart, StepStart, ToolInvoked, ModelResponse, ScopeDecision, Status)
    ticks = True

    def start(self) -> BudgetState:
        return BudgetState(Spent())

    def observe(self, state: BudgetState, event: Any, context: Context) -> Observations:
        spent = state.spent
        if not spent.started_ns:
            spent.started_ns = context.now_ns
        match event:
            case StepStart():
                spent.steps = max(spent.steps + 1, event.step)
            case ToolInvoked():
                spent.tool_calls += 1
            case ModelResponse():
                self._spend(spent, event, context)
            case Status():
                _pause(state, event.status in ("paused", "waiting_human"), context.now_ns)
                _raise(state, event.detail.get("raised"))
                return NOTHING
            case ScopeDecision():
                return _refused(event)
            case _:
                return NOTHING
        if not has_budgets(context.pact):
            return NOTHING
        found = self._compare(state, context, shown(event))
        state.gone_on = state.gone_on + 1 if state.is_over else 0
        return found

    def tick(self, state: BudgetState, context: Context) -> Observations:
        if context.pact.budgets.wall_s is None or state.paused_since_ns:
            return NOTHING
        return self._compare(state, context, (), ticking=True)

    def _spend(self, spent: Spent, event: ModelResponse, context: Context) -> None:
        spent.tokens += event.input_tokens + event.output_tokens
        usd = event.usd
        if usd is None and context.pact.budgets.usd is not None and not event.error:
            usd = cost(
                event.provider, event.model, event.input_tokens, event.output_tokens,
                event.cached_tokens,
            )  # fmt: skip
            if usd is None:
                spent.unpriced += 1
                spent.unpriced_model = event.model
        spent.usd += usd or 0.0

    def _compare(
        self, state: BudgetState, context: Context, evidence: tuple[tuple[str, int], ...],
        ticking: bool = False,
    ) -> list[Observation]:  # fmt: skip
        """A tick tells of time only: everything else changes by events."""
        found, pact = [], context.pact
        is_over = False
        for each in limits(pact, state.spent, context.now_ns):
            if ticking and each.name != "wall":
                continue
            limit = Limit(each.name, each.spent, each.limit + state.raised.get(each.name, 0.0))
            over = limit.spent > limit.limit
            is_over = is_over or over
            if not over and limit.share < pact.warn_at:
                continue
            long_over = limit.name == "wall" and limit.spent > limit.limit + GRACE_S
            goes_on = long_over or (state.gone_on > GOES_ON_MAX and not ticking)
            runs_on = over and (pact.budgets.exhausted == "stop" or goes_on)
            name = f"{limit.name}{' over' if over else ''}{' and on' if runs_on else ''}"
            if name in state.told:
                continue
            state.told[name] = True
            found.append(_observation(limit, over, runs_on, evidence))
        if not ticking:
            state.is_over = is_over
        if state.spent.unpriced and "unpriced" not in state.told:
            state.told["unpriced"] = True
            found.append(Observation(
                level="warn", evidence=evidence, subject="unpriced",
                why=f"no price is known for the model `{state.spent.unpriced_model}`: the budget "
                "of money counts only the calls whose price is known",
            ))  # fmt: skip
        return found


def _observation(
    limit: Limit, over: bool, runs_on: bool, evidence: tuple[tuple[str, int], ...]
) -> Observation:
    return Observation(
        level="breach" if over else "warn",
        why=f"{limit} are used" + (", which is over the budget" if over else ""),
        runaway=runs_on,
        value=limit.spent,
        limit=limit.limit,
        evidence=evidence,
        subject=limit.name,
    )


def _refused(event: ScopeDecision) -> Observations:
    if event.guard != "budgets" or event.verdict != "deny":
        return NOTHING
    # After WAIT, or when nobody knows a price, it may go on.
    spent = event.advice != "WAIT" and not event.rule.endswith("unpriced")
    return [Observation(
        level="breach" if spent else "warn", runaway=spent, why=event.reason,
        evidence=shown(event), subject=event.rule.removeprefix("budgets."),
    )]  # fmt: skip


def _raise(state: BudgetState, raised: Any) -> None:
    for name, amount in raised.items() if isinstance(raised, dict) else ():
        if isinstance(amount, int | float) and len(state.raised) < 16:
            key = str(name).removesuffix("_s")
            state.raised[key] = state.raised.get(key, 0.0) + amount
            for told in (f"{key} over", f"{key} over and on"):
                state.told.pop(told, None)


def _pause(state: BudgetState, paused: bool, now_ns: int) -> None:
    if paused and not state.paused_since_ns:
        state.paused_since_ns = now_ns
    elif not paused and state.paused_since_ns:
        state.spent.paused_ns += now_ns - state.paused_since_ns
        state.paused_since_ns = 0
