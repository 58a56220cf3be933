"""What values are at run time, and the comparisons and bounds that every operation shares.

Facts are JSON as Python has it: None, bool, int, float, str, list (or tuple), dict; conditions add
bytes, Timestamp, Duration and TypeName. A value of any other class is an error wherever it would
have to be understood: an object that says it is equal to a text must not pass for it.
"""

from typing import Any, Final

import msgspec

from checkrein.policy.conditions.literals import INT_LEAST, INT_MOST
from checkrein.policy.conditions.times import Duration, Timestamp
from checkrein.policy.conditions.types import EvaluationError

STEPS_MAX = 200_000
"""How many parts of macros' bodies one evaluation may look at."""
CHARS_A_STEP = 64


class TypeName(msgspec.Struct, frozen=True):
    """What `type(x)` gives, and what `int`, `string` … mean where no variable has that name."""

    name: str


TYPE_NAMES: Final = {
    name: TypeName(name)
    for name in (
        "bool", "int", "double", "string", "bytes", "null_type", "list", "map", "type",
    )
}  # fmt: skip
_TYPES: Final = {
    bool: TYPE_NAMES["bool"], int: TYPE_NAMES["int"], float: TYPE_NAMES["double"],
    str: TYPE_NAMES["string"], bytes: TYPE_NAMES["bytes"], type(None): TYPE_NAMES["null_type"],
    list: TYPE_NAMES["list"], tuple: TYPE_NAMES["list"], dict: TYPE_NAMES["map"],
    TypeName: TYPE_NAMES["type"], Timestamp: TypeName("google.protobuf.Timestamp"),
    Duration: TypeName("google.protobuf.Duration"),
}  # fmt: skip
_ORDERED: Final = (str, bytes, bool, Timestamp, Duration)
_NUMBERS: Final = (int, float)
_LISTS: Final = (list, tuple)

Budget = list[int]
"""One number, the steps left. None outside of macros, where the text itself bounds the work."""


def type_of(value: Any) -> TypeName:
    found = _TYPES.get(type(value))
    if found is None:
        raise EvaluationError(f"a value of class {type(value).__name__}, which no condition reads")
    return found


def word(value: Any) -> str:
    """What a value is, for messages."""
    return type_of(value).name.removeprefix("google.protobuf.").lower()


def no_such(operation: str, *values: Any) -> EvaluationError:
    """The error of values that an operation is not for."""
    return EvaluationError(f"no {operation} of {' and '.join(word(value) for value in values)}")


def spend(budget: Budget, steps: int) -> None:
    budget[0] -= steps
    if budget[0] < 0:
        raise EvaluationError(f"too much to look at: more than {STEPS_MAX:,} steps")


def spend_on(budget: Budget | None, *values: Any) -> None:
    """Before something that takes time with the length of these."""
    if budget is not None:
        for value in values:
            if type(value) in (str, bytes, list, tuple, dict):
                spend(budget, 1 + len(value) // CHARS_A_STEP)


def whole(value: int) -> int:
    """A whole number that 64 bits hold."""
    if INT_LEAST <= value <= INT_MOST:
        return value
    raise EvaluationError("a whole number of more than 64 bits")


def text(value: Any, operation: str) -> str:
    """A text, for an operation that is for nothing else."""
    if type(value) is str:
        return value
    raise EvaluationError(f"no {operation} of a {word(value)}")


def equal(left: Any, right: Any, budget: Budget | None = None) -> bool:
    """CEL's: numbers by their value whatever their type, bool is no number, values of different
    types are not equal, lists and maps by their parts."""
    kind, other = type(left), type(right)
    if kind is other and kind in (str, int, bool, float):
        return bool(left == right)
    if kind in _NUMBERS and other in _NUMBERS:
        return bool(left == right)
    name, second = type_of(left), type_of(right)
    if name is not second:
        return False
    if kind in _LISTS or kind is dict:
        # Counted even outside of macros: `[[x, x], [x, x]]` and so on is small to write, and takes
        # exponential time to walk.
        budget = budget or [STEPS_MAX]
        spend(budget, 1 + len(left))
    if kind in _LISTS:
        return len(left) == len(right) and all(
            equal(a, b, budget) for a, b in zip(left, right, strict=True)
        )
    if kind is dict:
        return len(left) == len(right) and all(
            key in right and equal(value, right[key], budget) for key, value in left.items()
        )
    return bool(left == right)


def unequal(left: Any, right: Any, budget: Budget | None = None) -> bool:
    return not equal(left, right, budget)


def _comparable(left: Any, right: Any) -> None:
    kind, other = type(left), type(right)
    if kind in _NUMBERS and other in _NUMBERS:
        return
    if kind is not other or kind not in _ORDERED:
        raise no_such("order", left, right)


def less(left: Any, right: Any) -> bool:
    """Of two numbers (by value, exactly), texts (by code points), bytes, bools, moments, spans."""
    _comparable(left, right)
    return bool(left < right)


def at_most(left: Any, right: Any) -> bool:
    _comparable(left, right)
    return bool(left <= right)


def greater(left: Any, right: Any) -> bool:
    _comparable(left, right)
    return bool(left > right)


def at_least(left: Any, right: Any) -> bool:
    _comparable(left, right)
    return bool(left >= right)


def inside(value: Any, among: Any, budget: Budget | None = None) -> bool:
    """`value in among`: a list's element, or a map's key."""
    if budget is not None:
        spend_on(budget, among)
    if type(among) is dict:
        key = map_key(value)
        return key is not None and key in among
    if type(among) not in _LISTS:
        raise no_such("`in`", value, among)
    if type(value) is str and value in among:
        return True
    budget = budget or [STEPS_MAX]
    return any(equal(value, each, budget) for each in among)


def modest(value: Any) -> Any:
    """The value, when it is what JSON has and of no more parts than `STEPS_MAX`: what a text builds
    can be too large to write down, and a moment has no form in JSON."""
    budget = [STEPS_MAX]

    def look(part: Any) -> None:
        kind = type(part)
        if kind in _LISTS or kind is dict:
            spend(budget, 1 + len(part))
            for each in part.values() if kind is dict else part:
                look(each)
        elif part is not None and kind not in (str, bool, int, float):
            raise EvaluationError(f"a {word(part)} cannot be a result")

    look(value)
    return value


def map_key(value: Any) -> str | int | None:
    """The key that this value is, or None when no map has such a key. 2.0 is the key 2."""
    match value:
        case bool():
            return None
        case str() | int():
            return value
        case float() if value.is_integer():
            return int(value)
        case _:
            type_of(value)
            return None


def truth(value: Any) -> bool:
    """The value, which must be a bool."""
    if type(value) is bool:
        return value
    raise EvaluationError(f"a {word(value)} where true or false should be")
