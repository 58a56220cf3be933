"""Budgets of a run: what has been spent, what is reserved for calls under way, and what the pact
says about it."""

from typing import Any

import msgspec

from checkrein.policy.types import Budgets, Pact, Shared
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


RESERVATIONS_MAX = 10_000


class Reservations:
    """What a run's calls under way may still cost. A call reserves before it begins and settles
    when it is back, so that calls at once cannot each believe that what is left is theirs: as long
    as `over` is asked first, spent and reserved together go over a budget by less than one call's
    reservation. O(1). Not for threads: the guard's lock is around it.

    Bound: 10,000 calls under way. Beyond, the oldest is forgotten by its name only: what it had
    reserved stays reserved, so that calls which never settle cannot make room.
    """

    __slots__ = ("_of", "tokens", "usd")

    def __init__(self) -> None:
        self.tokens = 0
        self.usd = 0.0
        self._of: dict[str, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._of)

    def over(self, budgets: Budgets, spent: Spent) -> str:
        """Which budget calls under way have used up together with what is spent: "tokens", "usd" or
        "". Only says so of calls under way: what is spent alone is judged elsewhere."""
        if not self._of:
            return ""
        if budgets.tokens is not None and spent.tokens + self.tokens >= budgets.tokens:
            return "tokens"
        if budgets.usd is not None and spent.usd + self.usd >= budgets.usd:
            return "usd"
        return ""

    def reserve(self, call_id: str, tokens: int, usd: float) -> None:
        """A call is about to begin. The same call again replaces what it had reserved."""
        self.settle(call_id)
        if len(self._of) >= RESERVATIONS_MAX:
            self._forget_oldest()
        self._of[call_id] = (tokens, usd)
        self.tokens += tokens
        self.usd += usd

    def settle(self, call_id: str) -> None:
        """The call is back, or was not made: what it cost is counted elsewhere. Unknown calls and
        second settlements change nothing."""
        tokens, usd = self._of.pop(call_id, (0, 0.0))
        self.tokens -= tokens
        self.usd = self.usd - usd if self._of else 0.0  # no dust of rounding is left

    def _forget_oldest(self) -> None:
        forgotten = self._of.pop(_FORGOTTEN, (0, 0.0))
        oldest = self._of.pop(next(iter(self._of)))
        self._of[_FORGOTTEN] = (forgotten[0] + oldest[0], forgotten[1] + oldest[1])


_FORGOTTEN = "\0forgotten"


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


def narrowest(one: Budgets, other: Budgets) -> Budgets:
    """Of each limit the lower one."""
    fields: dict[str, Any] = {
        name: _lower(getattr(one, name), getattr(other, name))
        for name in ("steps", "tool_calls", "tokens", "usd", "wall_s", "alert")
    }
    for name in ("task", "agent", "room", "hour"):
        first, second = getattr(one, name), getattr(other, name)
        fields[name] = Shared(**{
            field: _lower(getattr(first, field), getattr(second, field))
            for field in Shared.__struct_fields__
        })  # fmt: skip
    stops = "stop" in (one.exhausted, other.exhausted)
    return Budgets(**fields, exhausted="stop" if stops else "pause")


def _lower(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else min(one, other)
