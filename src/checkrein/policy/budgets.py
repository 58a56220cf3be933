"""Budgets of a run: what has been spent, and what the pact says about it."""

import msgspec

from checkrein.policy.types import Budgets, Pact
from checkrein.policy.units import duration_text


class Spent(msgspec.Struct):
    """Running totals of one run. `unpriced` counts model calls whose price nobody knows."""

    steps: int = 0
    tool_calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    unpriced: int = 0
    unpriced_model: str = ""
    started_ns: int = 0
    paused_ns: int = 0

    def wall_s(self, now_ns: int) -> float:
        """Time since the start without the time it stood still in pauses."""
        return (now_ns - self.started_ns - self.paused_ns) / 1e9 if self.started_ns else 0.0


class Limit(msgspec.Struct, frozen=True):
    """One budget beside what has been spent of it."""

    name: str
    spent: float
    limit: float

    @property
    def share(self) -> float:
        return self.spent / self.limit

    def __str__(self) -> str:
        match self.name:
            case "usd":
                return f"{self.spent:.4g} of {self.limit:g} US dollars"
            case "wall":
                return f"{duration_text(self.spent)} of {duration_text(self.limit)} wall-clock time"
            case _:
                return f"{self.spent:g} of {self.limit:g} {self.name.replace('_', ' ')}"


def limits(pact: Pact, spent: Spent, now_ns: int) -> list[Limit]:
    """Every budget that the pact sets."""
    budgets = pact.budgets
    found = []
    for name, limit, used in (
        ("steps", budgets.steps, spent.steps),
        ("tool_calls", budgets.tool_calls, spent.tool_calls),
        ("tokens", budgets.tokens, spent.tokens),
        ("usd", budgets.usd, spent.usd),
        ("wall", budgets.wall_s, spent.wall_s(now_ns)),
    ):
        if limit is not None:
            found.append(Limit(name, float(used), float(limit)))
    return found


def has_budgets(pact: Pact) -> bool:
    return pact.budgets != _NONE


_NONE = Budgets()


def warning_marks(pact: Pact) -> tuple[float, float, float, float, float]:
    """Where the pact warns: steps, tool calls, tokens, US dollars, seconds; endless without one."""
    budgets, share = pact.budgets, pact.warn_at
    return (
        share * _or_endless(budgets.steps),
        share * _or_endless(budgets.tool_calls),
        share * _or_endless(budgets.tokens),
        share * _or_endless(budgets.usd),
        share * _or_endless(budgets.wall_s),
    )


def _or_endless(limit: float | None) -> float:
    return float("inf") if limit is None else limit
