"""What one run may take from budgets that it shares with others: asked before each call, and told
what it cost."""

from collections.abc import Mapping
from typing import Any

import msgspec

from checkrein.policy.accounts import (
    NOTHING,
    UNKNOWN,
    Actual,
    Amounts,
    Bound,
    bounds_of,
    nano,
    shares,
)
from checkrein.policy.estimates import Estimates, Price, tokens_max
from checkrein.policy.shortage import unpriced
from checkrein.policy.types import Pact, Place, Verdict
from checkrein.sdk import quiet
from checkrein.sdk.purse import Lacking, Paying, Purses, Wish, erred
from checkrein.world import World

WINDOW_NS = 1_000_000_000
"""A run's accounts are looked up anew after so long: an hour may have begun."""
_ONE_CALL = Amounts(tool_calls=1)


class Asked(msgspec.Struct, frozen=True):
    """A model call that is about to be made."""

    pact: Pact
    call_id: str
    provider: str
    model: str
    input_chars: int
    parameters: Mapping[str, Any]


class Allowance:
    """What one run may take from budgets that it shares. The same for every call of the run; its
    methods never raise an Exception but Lacking."""

    __slots__ = (
        "_bounds", "_estimates", "_pact", "_place", "_price", "_purses", "_reserves", "_until_ns",
        "_world",
    )  # fmt: skip

    def __init__(self, purses: Purses, place: Place, price: Price, world: World) -> None:
        self._purses, self._place, self._price, self._world = purses, place, price, world
        self._estimates = Estimates()
        self._pact: Pact | None = None
        self._bounds: tuple[Bound, ...] = ()
        self._until_ns = 0
        self._reserves = False

    @property
    def parts(self) -> tuple[Purses, Place, Price, World]:
        """What it was made of."""
        return self._purses, self._place, self._price, self._world

    def tool(self, pact: Pact, call_id: str, wait: bool) -> Verdict | None:
        """Before a tool call. None: it may begin, and is to be settled by `tool_done`."""
        try:
            wish = self._tool_wish(pact, call_id)
            return None if wish is None else self._reserve(wish, wait)
        except Lacking:
            raise
        except Exception as error:
            return erred(error)

    def model(self, asked: Asked, wait: bool) -> Verdict | None:
        """Before a model call: the most that it may cost. As `tool`."""
        try:
            wish = self._model_wish(asked)
            if not isinstance(wish, Wish):
                return wish
            return self._reserve(wish, wait)
        except Lacking:
            raise
        except Exception as error:
            return erred(error)

    def tool_again(self, pact: Pact, call_id: str) -> Paying | None:
        """For a call that somebody has said yes to: what it must wait for, if anything."""
        wish = self._tool_wish(pact, call_id)
        return None if wish is None else self._paying(wish)

    def model_again(self, asked: Asked) -> Paying | None:
        """As `tool_again`. A yes to a model without a price is one: it counts in tokens."""
        wish = self._model_wish(asked, priced=False)
        return self._paying(wish) if isinstance(wish, Wish) else None

    def not_made(self, call_id: str) -> None:
        """What was reserved is free again."""
        self._settle(call_id, NOTHING)

    def tool_done(self, call_id: str) -> None:
        self._settle(call_id, _ONE_CALL)

    def model_done(
        self, call_id: str, input_chars: int, input_tokens: int, output_tokens: int,
        usd: float | None, failed: bool, begun: bool,
    ) -> None:  # fmt: skip
        """A model call is back. One that failed before its answer `begun` costs nothing; what broke
        off, or came back without counts or without a known price, costs what was reserved."""
        if failed:
            self._settle(call_id, UNKNOWN if begun else NOTHING)
            return
        tokens = input_tokens + output_tokens
        self._estimates.learn(input_chars, input_tokens, output_tokens)
        self._settle(call_id, (0, tokens or None, None if usd is None else nano(usd)))

    def _tool_wish(self, pact: Pact, call_id: str) -> Wish | None:
        bounds = self._bounds_of(pact)
        return Wish(call_id, pact, bounds, _ONE_CALL) if bounds else None

    def _model_wish(self, asked: Asked, priced: bool = True) -> Wish | Verdict | None:
        bounds = self._bounds_of(asked.pact)
        if not bounds:
            return None
        made = self._estimates.of(
            asked.provider, asked.model, asked.input_chars, tokens_max(asked.parameters),
            self._price,
        )  # fmt: skip
        refused = unpriced(asked.pact, bounds, made, asked.model) if priced else None
        if refused is not None:
            return refused
        amounts = Amounts(0, made.tokens, nano(made.usd or 0.0))
        return Wish(asked.call_id, asked.pact, bounds, amounts)

    def _reserve(self, wish: Wish, wait: bool) -> Verdict | None:
        self._reserves = True
        return self._purses.reserve(wish) if wait else self._purses.reserve_now(wish)

    def _paying(self, wish: Wish) -> Paying:
        self._reserves = True
        return Paying(wish, self._purses)

    def _settle(self, call_id: str, actual: Actual) -> None:
        try:
            if self._reserves:
                self._purses.settle(call_id, actual)
        except Exception as error:
            quiet.fault("settling a shared budget", error)

    def _bounds_of(self, pact: Pact) -> tuple[Bound, ...]:
        if pact is self._pact and not self._bounds:
            return ()
        now_ns = self._world.monotonic_ns()
        if pact is not self._pact or now_ns >= self._until_ns:
            self._bounds = (
                bounds_of(pact.budgets, self._place, self._world.now_ns())
                if shares(pact.budgets) else ()
            )  # fmt: skip
            self._pact, self._until_ns = pact, now_ns + WINDOW_NS
        return self._bounds
