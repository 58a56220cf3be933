"""What one expression's value can still be, after all that a conjunction says of it."""

import math
from typing import Any

import msgspec

from checkrein.policy.conditions.types import Kind
from checkrein.policy.conditions.values import equal

_SPAN_MAX = 64


class Domain(msgspec.Struct, frozen=True):
    """A range of numbers (`least_open`: without its end), the only values possible (None: any), and
    those that are not. `whole`: an int; `two`: a bool."""

    least: float = -math.inf
    least_open: bool = False
    most: float = math.inf
    most_open: bool = False
    only: tuple[Any, ...] | None = None
    never: tuple[Any, ...] = ()
    whole: bool = False
    two: bool = False

    def among(self, values: tuple[Any, ...]) -> "Domain":
        if self.only is not None:
            values = tuple(value for value in self.only if _held(value, values))
        return self._with(only=values)

    def without(self, values: tuple[Any, ...]) -> "Domain":
        return self._with(never=(*self.never, *values))

    def above(self, least: float, is_open: bool) -> "Domain":
        if self.whole and math.isfinite(least):
            least, is_open = (math.floor(least) + 1 if is_open else math.ceil(least)), False
        if (least, is_open) <= (self.least, self.least_open):
            return self
        return self._with(least=least, least_open=is_open)

    def below(self, most: float, is_open: bool) -> "Domain":
        if self.whole and math.isfinite(most):
            most, is_open = (math.ceil(most) - 1 if is_open else math.floor(most)), False
        if (most, not is_open) >= (self.most, not self.most_open):
            return self
        return self._with(most=most, most_open=is_open)

    def empty(self) -> bool:
        if self.only is not None:
            return not any(self._allows(value) for value in self.only)
        if self.two:
            return _held(True, self.never) and _held(False, self.never)
        if self.least > self.most:
            return True
        if self.least == self.most:
            return self.least_open or self.most_open or _held(self.least, self.never)
        if self.whole and self.most - self.least < _SPAN_MAX:
            span = range(int(self.least), int(self.most) + 1)
            return all(_held(value, self.never) for value in span)
        return False

    def _allows(self, value: Any) -> bool:
        if _held(value, self.never):
            return False
        number = type(value) in (int, float)
        if not number:
            return self.least == -math.inf and self.most == math.inf
        if self.whole and type(value) is float and not value.is_integer():
            return False
        if (value == self.least and self.least_open) or (value == self.most and self.most_open):
            return False
        return bool(self.least <= value <= self.most)

    def _with(self, **changes: Any) -> "Domain":
        return msgspec.structs.replace(self, **changes)


def domain(kind: Kind, by_schema: bool) -> Domain:
    """Before anything is said. `by_schema`: with the values and bounds that its kind carries."""
    begun = Domain(whole=kind.name == "int", two=kind.name == "bool")
    if not by_schema:
        return begun
    if kind.values is not None:
        begun = begun.among(kind.values)
    if kind.least is not None:
        begun = begun.above(kind.least, False)
    if kind.most is not None:
        begun = begun.below(kind.most, False)
    return begun


def _held(value: Any, values: tuple[Any, ...]) -> bool:
    return any(equal(value, each) for each in values)
