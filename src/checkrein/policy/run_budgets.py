"""One run's own budgets: as its pact has them and as somebody raised them, what is spent, and what
is held back for calls under way."""

from typing import Any, Protocol

import msgspec

from checkrein.policy.budgets import Reservations, Spent, has_budgets, limits, warning_marks
from checkrein.policy.estimates import Estimates
from checkrein.policy.prices import cost
from checkrein.policy.types import Action, Budgets, Pact, Verdict

ASKED_MAX = 256


class MakesVerdict(Protocol):
    def __call__(self, **fields: Any) -> Verdict: ...


class RunBudgets:
    """Not for threads: the guard's lock is around it. Bound: of 256 model calls under way the size
    of the question is known, for estimates."""

    __slots__ = (
        "_asked_chars", "_estimates", "_limited", "_marks", "_pact", "_raised", "_warned",
        "budgets", "reserved", "some", "spent",
    )  # fmt: skip

    def __init__(self, pact: Pact, started_ns: int) -> None:
        self.spent = Spent(started_ns=started_ns)
        self.reserved = Reservations()
        self._raised: dict[str, float] = {}
        self._estimates = Estimates()
        self._asked_chars: dict[str, int] = {}
        self._warned: set[str] = set()
        self.put_in_force(pact)

    def put_in_force(self, pact: Pact) -> None:
        """From now on this pact's, with what was raised; where it warns, it warns anew."""
        self._pact = pact
        budgets = pact.budgets
        more = {
            name: getattr(budgets, name) + amount
            for name, amount in self._raised.items()
            if getattr(budgets, name, None) is not None
        }
        self.budgets: Budgets = msgspec.structs.replace(budgets, **more) if more else budgets
        self._limited = msgspec.structs.replace(pact, budgets=self.budgets)
        self.some = has_budgets(self._limited)
        self._marks = warning_marks(self._limited)
        self._warned.clear()

    def raised(self, name: str, amount: float) -> None:
        """By so much. A name that is no budget changes nothing."""
        self._raised[name] = self._raised.get(name, 0) + amount
        self.put_in_force(self._pact)

    def reserve(self, action: Action) -> None:
        """What this model call may cost at most is held back until it is back."""
        if self.budgets.tokens is None and self.budgets.usd is None:
            return
        price = cost if self.budgets.usd is not None else _no_price
        estimate = self._estimates.of(
            action.provider, action.name, action.input_chars, action.tokens_max, price
        )
        if len(self._asked_chars) < ASKED_MAX:
            self._asked_chars[action.call_id] = action.input_chars
        self.reserved.reserve(action.call_id, estimate.tokens, estimate.usd or 0.0)

    def returned(
        self, call_id: str, model: str, input_tokens: int, output_tokens: int, usd: float | None
    ) -> None:  # fmt: skip
        """A model call came back. `usd` None: nobody knows its price."""
        self.reserved.settle(call_id)
        self._estimates.learn(self._asked_chars.pop(call_id, 0), input_tokens, output_tokens)
        self.spent.tokens += input_tokens + output_tokens
        if usd is not None:
            self.spent.usd += usd
        else:
            self.spent.unpriced += 1
            self.spent.unpriced_model = model

    def warning(self, now_ns: int, verdict: MakesVerdict) -> Verdict | None:
        """Once for each budget, when the share `warn_at` of it is used."""
        if not self.some:
            return None
        spent, marks = self.spent, self._marks
        if (
            spent.steps < marks[0]
            and spent.tool_calls < marks[1]
            and spent.tokens < marks[2]
            and spent.usd < marks[3]
            and spent.wall_s(now_ns) < marks[4]
        ):
            return None
        warn_at = self._pact.warn_at
        for limit in limits(self._limited, spent, now_ns):
            if limit.share >= warn_at and limit.name not in self._warned:
                self._warned.add(limit.name)
                text = f"{limit} are used. Come to an end, or hand over what is left."
                return verdict(
                    kind="steer", guard="budgets", rule=f"budgets.{limit.name}",
                    reason=f"{limit} used, {warn_at:.0%} is where the pact warns",
                    guidance=text,
                )  # fmt: skip
        return None


def _no_price(provider: str, model: str, input_tokens: int, output_tokens: int) -> float | None:
    return None
