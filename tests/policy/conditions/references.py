"""Two implementations of CEL that are not ours: `cel` (Rust) and `celpy` (Python)."""

from typing import Any

import cel
import celpy
from celpy import celtypes
from celpy.adapter import json_to_cel
from celpy.celparser import CELParseError
from celpy.evaluation import CELEvalError


class Refused:
    """There is no value. Equal to every other: what each says of it is its own."""

    def __init__(self, said: str) -> None:
        self.said = said

    def __repr__(self) -> str:
        return f"Refused({self.said!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Refused)

    def __hash__(self) -> int:
        return 0


_ENVIRONMENT = celpy.Environment()


def by_rust(text: str, facts: dict[str, Any]) -> Any:
    try:
        return cel.evaluate(text, facts)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError) as error:
        return Refused(str(error))


def by_python(text: str, facts: dict[str, Any]) -> Any:
    try:
        program = _ENVIRONMENT.program(_ENVIRONMENT.compile(text))
        return _plain(program.evaluate({name: json_to_cel(facts[name]) for name in facts}))
    except (CELEvalError, CELParseError, ValueError, TypeError) as error:
        return Refused(str(error))


def same(one: Any, other: Any) -> bool:
    """Of one type and equal, all the way down; NaN is NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other or (one != one and other != other))


def _plain(value: Any) -> Any:
    match value:
        case celtypes.BoolType():
            return bool(value)
        case celtypes.DoubleType():
            return float(value)
        case celtypes.IntType() | celtypes.UintType():
            return int(value)
        case celtypes.StringType():
            return str(value)
        case list():
            return [_plain(each) for each in value]
        case dict():
            return {_plain(key): _plain(each) for key, each in value.items()}
        case _:
            return value
