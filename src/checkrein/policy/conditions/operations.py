"""Every operation that a checked condition can call, by name.

All raise EvaluationError, or ValueError, OverflowError and the like, which the caller turns into
one. Those in `LINEAR` take time with the length of their values, and are given the budget when
they stand in a macro's body.
"""

import math
from collections.abc import Callable
from typing import Any, Final

from checkrein.policy.conditions import conversions as c
from checkrein.policy.conditions import times
from checkrein.policy.conditions import values as v
from checkrein.policy.conditions.times import Duration, Timestamp
from checkrein.policy.conditions.types import EvaluationError

CHARS_MAX = 1_000_000
ITEMS_MAX = 100_000
Budget = v.Budget | None


def add(left: Any, right: Any, budget: Budget = None) -> Any:
    """Of two numbers, texts, bytes, lists, spans, or a moment and a span."""
    kind, other = type(left), type(right)
    if kind is int and other is int:
        return v.whole(left + right)
    if kind in (int, float) and other in (int, float):
        return float(left) + float(right)
    if kind is other and kind in (str, bytes):
        v.spend_on(budget, left, right)
        return _short_enough(left + right)
    if kind in (list, tuple) and other in (list, tuple):
        v.spend_on(budget, left, right)
        return _few_enough([*left, *right])
    if kind is Duration and other is Duration:
        return times.duration(left.ns + right.ns)
    if {kind, other} == {Timestamp, Duration}:
        return times.timestamp(left.ns + right.ns)
    raise v.no_such("`+`", left, right)


def subtract(left: Any, right: Any) -> Any:
    kind, other = type(left), type(right)
    if kind is int and other is int:
        return v.whole(left - right)
    if kind in (int, float) and other in (int, float):
        return float(left) - float(right)
    if kind is other and kind in (Duration, Timestamp):
        return times.duration(left.ns - right.ns)
    if kind is Timestamp and other is Duration:
        return times.timestamp(left.ns - right.ns)
    raise v.no_such("`-`", left, right)


def multiply(left: Any, right: Any) -> Any:
    kind, other = type(left), type(right)
    if kind is int and other is int:
        return v.whole(left * right)
    if kind in (int, float) and other in (int, float):
        return float(left) * float(right)
    raise v.no_such("`*`", left, right)


def divide(left: Any, right: Any) -> Any:
    """Of whole numbers towards zero; by 0 an error. Of doubles as IEEE 754 has it."""
    kind, other = type(left), type(right)
    if kind is int and other is int:
        if right == 0:
            raise EvaluationError("division by zero")
        quotient = abs(left) // abs(right)
        return v.whole(quotient if (left < 0) == (right < 0) else -quotient)
    if kind in (int, float) and other in (int, float):
        return _ratio(float(left), float(right))
    raise v.no_such("`/`", left, right)


def _ratio(left: float, right: float) -> float:
    if right:
        return left / right
    if not left or math.isnan(left):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def modulo(left: Any, right: Any) -> int:
    """Of whole numbers; its sign is the left one's."""
    if type(left) is not int or type(right) is not int:
        raise v.no_such("`%`", left, right)
    if right == 0:
        raise EvaluationError("division by zero")
    rest = abs(left) % abs(right)
    return -rest if left < 0 else rest


def negate(value: Any) -> Any:
    if type(value) is int:
        return v.whole(-value)
    if type(value) is float:
        return -value
    raise v.no_such("`-`", value)


def field(value: Any, name: str) -> Any:
    """`value.name`."""
    if type(value) is not dict:
        raise EvaluationError(f"no field `{name}` in a {v.word(value)}")
    try:
        return value[name]
    except KeyError:
        raise EvaluationError(f"no field `{name}`") from None


def has(value: Any, name: str) -> bool:
    if type(value) is not dict:
        raise EvaluationError(f"no field `{name}` in a {v.word(value)}")
    return name in value


def element(value: Any, key: Any) -> Any:
    """`value[key]`: a list's element, from 0, or a map's value."""
    if type(value) is dict:
        found = v.map_key(key)
        if found is None or found not in value:
            raise EvaluationError(f"no key {key!r}"[:80])
        return value[found]
    if type(value) not in (list, tuple):
        raise EvaluationError(f"no element of a {v.word(value)}")
    index = v.map_key(key)
    if type(index) is not int:
        raise EvaluationError(f"an element is found by a whole number, not by a {v.word(key)}")
    if not 0 <= index < len(value):
        raise EvaluationError(f"no element {index} in a list of {len(value)}")
    return value[index]


def map_of(*entries: tuple[Any, Any]) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for key, value in entries:
        if type(key) not in (str, int):
            raise EvaluationError(f"a {v.word(key)} is no key: texts and whole numbers are")
        if key in made:
            raise EvaluationError(f"the key {key!r} twice"[:80])
        made[key] = value
    return made


def size(value: Any) -> int:
    """Characters of a text, bytes, elements of a list, entries of a map."""
    if type(value) in (str, bytes, list, tuple, dict):
        return len(value)
    raise v.no_such("size", value)


def starts_with(text: Any, what: Any, budget: Budget = None) -> bool:
    v.spend_on(budget, what)
    return v.text(text, "startsWith").startswith(v.text(what, "startsWith"))


def ends_with(text: Any, what: Any, budget: Budget = None) -> bool:
    v.spend_on(budget, what)
    return v.text(text, "endsWith").endswith(v.text(what, "endsWith"))


def contains(text: Any, what: Any, budget: Budget = None) -> bool:
    v.spend_on(budget, text, what)
    return v.text(what, "contains") in v.text(text, "contains")


_LOWER = {**{n: n + 32 for n in range(65, 91)}}
_UPPER = {**{n: n - 32 for n in range(97, 123)}}


def lower_ascii(text: Any, budget: Budget = None) -> str:
    v.spend_on(budget, text)
    return v.text(text, "lowerAscii").translate(_LOWER)


def upper_ascii(text: Any, budget: Budget = None) -> str:
    v.spend_on(budget, text)
    return v.text(text, "upperAscii").translate(_UPPER)


def trim(text: Any, budget: Budget = None) -> str:
    v.spend_on(budget, text)
    return v.text(text, "trim").strip()


def replace(text: Any, old: Any, new: Any, budget: Budget = None) -> str:
    given: str = v.text(text, "replace")
    old, new = v.text(old, "replace"), v.text(new, "replace")
    v.spend_on(budget, given)
    length = len(given) + given.count(old) * (len(new) - len(old))
    if length > max(CHARS_MAX, len(given)):
        raise _too_long()
    if budget is not None:
        v.spend(budget, length // v.CHARS_A_STEP)
    return given.replace(old, new)


def split(text: Any, at: Any, budget: Budget = None) -> list[str]:
    given: str = v.text(text, "split")
    at = v.text(at, "split")
    v.spend_on(budget, given)
    count = given.count(at)
    if budget is not None:
        v.spend(budget, count)
    if count >= ITEMS_MAX:
        raise _too_many()
    return given.split(at) if at else list(given)


def join(items: Any, between: Any = "", budget: Budget = None) -> str:
    if type(items) not in (list, tuple):
        raise v.no_such("join", items)
    v.spend_on(budget, items, between)
    glue: str = v.text(between, "join")
    texts = [v.text(item, "join") for item in items]
    length = sum(len(text) for text in texts) + len(glue) * len(texts)
    if length > CHARS_MAX:
        raise _too_long()
    if budget is not None:
        v.spend(budget, length // v.CHARS_A_STEP)
    return glue.join(texts)


def matches(text: Any, pattern: Callable[[str], bool], budget: Budget = None) -> bool:
    v.spend_on(budget, text)
    return pattern(v.text(text, "matches"))


def _short_enough(text: Any) -> Any:
    if len(text) > CHARS_MAX:
        raise _too_long()
    return text


def _few_enough(items: list[Any]) -> list[Any]:
    if len(items) > ITEMS_MAX:
        raise _too_many()
    return items


def _too_many() -> EvaluationError:
    return EvaluationError(f"a list of more than {ITEMS_MAX:,} elements")


def _too_long() -> EvaluationError:
    return EvaluationError(f"a text of more than {CHARS_MAX:,} characters")


def _part(name: str) -> Callable[[Any], int]:
    read = times.PARTS[name]

    def part(moment: Any) -> int:
        if type(moment) is not Timestamp:
            raise v.no_such(name, moment)
        return int(read(moment))

    return part


_LINEAR: Final[dict[str, Callable[..., Any]]] = {
    "equal": v.equal, "unequal": v.unequal, "inside": v.inside, "add": add,
    "starts_with": starts_with, "ends_with": ends_with, "contains": contains,
    "lower_ascii": lower_ascii, "upper_ascii": upper_ascii, "trim": trim, "replace": replace,
    "split": split, "join": join, "to_string": c.to_string, "to_bytes": c.to_bytes,
}  # fmt: skip
OPERATIONS: Final[dict[str, Callable[..., Any]]] = {
    **_LINEAR,
    "less": v.less, "at_most": v.at_most, "greater": v.greater, "at_least": v.at_least,
    "subtract": subtract, "multiply": multiply, "divide": divide, "modulo": modulo,
    "negate": negate, "as_double": c.as_double,
    "as_number": c.as_number, "element": element, "size": size,
    "to_int": c.to_int, "to_double": c.to_double, "to_bool": c.to_bool,
    "to_timestamp": c.to_timestamp,
    "to_duration": c.to_duration, "to_dyn": c.to_dyn, "type_of": v.type_of, "modest": v.modest,
    **{name: _part(name) for name in times.PARTS},
}  # fmt: skip
LINEAR: Final = frozenset(_LINEAR)
