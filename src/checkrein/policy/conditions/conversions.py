"""From one type to another, as `int(x)`, `string(x)` and the like write it.

All raise EvaluationError, or a ValueError of Python's own.
"""

import math
import re
from typing import Any

from checkrein.policy.conditions import times
from checkrein.policy.conditions import values as v
from checkrein.policy.conditions.times import Duration, Timestamp
from checkrein.policy.conditions.types import EvaluationError

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}", re.ASCII)
_REAL = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf(?:inity)?|nan)", re.I | re.ASCII
)
_BOOLS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}  # fmt: skip


def to_int(value: Any) -> int:
    """Of a double towards zero; of a text; of a moment its seconds since 1970."""
    match value:
        case bool():
            raise v.no_such("int", value)
        case int():
            return value
        case float():
            return v.whole(int(value))
        case str() if _INTEGER.fullmatch(value):
            return v.whole(int(value))
        case str():
            raise EvaluationError(f"{value[:40]!r} is no whole number")
        case Timestamp():
            return value.ns // 10**9
        case _:
            raise v.no_such("int", value)


def to_double(value: Any) -> float:
    match value:
        case bool():
            raise v.no_such("double", value)
        case int() | float():
            return float(value)
        case str() if len(value) <= 400 and _REAL.fullmatch(value):
            return float(value)
        case str():
            raise EvaluationError(f"{value[:40]!r} is no number")
        case _:
            raise v.no_such("double", value)


def to_string(value: Any, budget: v.Budget | None = None) -> str:
    v.spend_on(budget, value)
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _double_text(value)
        case bytes():
            return value.decode()
        case Timestamp():
            return times.timestamp_text(value)
        case Duration():
            return times.duration_text(value)
        case _:
            raise v.no_such("string", value)


def _double_text(value: float) -> str:
    """The shortest text that reads back as this number; whole ones without `.0`."""
    if math.isinf(value) or math.isnan(value):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(repr(value), "NaN")
    return repr(value).removesuffix(".0")


def to_bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    if type(value) is str and value in _BOOLS:
        return _BOOLS[value]
    raise EvaluationError(f"a {v.word(value)} that is neither true nor false")


def to_bytes(value: Any, budget: v.Budget | None = None) -> bytes:
    v.spend_on(budget, value)
    if type(value) is bytes:
        return value
    return v.text(value, "bytes").encode()


def to_timestamp(value: Any) -> Timestamp:
    """Of a text by RFC 3339; of a whole number, seconds since 1970."""
    match value:
        case Timestamp():
            return value
        case str():
            return times.read_timestamp(value)
        case int() if not isinstance(value, bool):
            return times.timestamp(value * 10**9)
        case _:
            raise v.no_such("timestamp", value)


def to_duration(value: Any) -> Duration:
    match value:
        case Duration():
            return value
        case str():
            return times.read_duration(value)
        case _:
            raise v.no_such("duration", value)


def to_dyn(value: Any) -> Any:
    """The value itself, of which the checker then knows nothing."""
    return value


def as_double(value: Any) -> Any:
    """A value that is declared a double: JSON writes 5.0 as 5 too. Anything but a whole number is
    given back as it is, for the operation to judge."""
    return float(value) if type(value) is int else value


def as_number(value: Any) -> int | float:
    """A value that is declared a number: two texts in its stead must not be put in order."""
    if type(value) is int or type(value) is float:
        return value
    raise v.no_such("number", value)
