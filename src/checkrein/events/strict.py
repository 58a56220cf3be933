"""Strict JSON: what two parsers could read in two ways is refused.

A body with a key twice, with NaN, with a number too large, or with a broken string means one thing
to the program that checked it and another to the one that obeys it.
"""

import json
import math
from typing import Any, NamedTuple, NoReturn

import msgspec
import re2

DEPTH_MAX = 64
INT_MIN, INT_MAX = -(2**63), 2**64 - 1
_DIGITS_MAX = 40
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_long_number = re2.compile(rb"[0-9]{19}").search


class NotStrict(ValueError):
    """Not JSON, or JSON that can be read in two ways: what is wrong, and where."""


class Strict(NamedTuple):
    """`encoded` is our own encoding of `value`, and so the one to pass on."""

    value: Any
    encoded: bytes


def read(body: bytes, depth_max: int = DEPTH_MAX) -> Strict:
    """Reads strict JSON. Raises NotStrict, naming the place.

    A body that is the same byte by byte when it is encoded again has each key once; as most clients
    write no spaces, few bodies have to be read with more care.
    """
    try:
        value = _decode(body)
        encoded = _encode(value)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
        value = read_with_care(body, depth_max)
        return Strict(value, _encode(value))
    if encoded != body or _long_number(body) is not None:
        value = read_with_care(body, depth_max)
        encoded = _encode(value)
    elif too_deep(value, depth_max):
        raise NotStrict(f"the body is nested deeper than {depth_max}")
    return Strict(value, encoded)


def read_with_care(body: bytes, depth_max: int = DEPTH_MAX) -> Any:
    """The value, every object and number looked at. Raises NotStrict."""
    try:
        value = json.loads(
            body.decode("utf-8"), object_pairs_hook=_once_each, parse_constant=_no_constant,
            parse_int=_whole, parse_float=_finite,
        )  # fmt: skip
    except NotStrict:
        raise
    except UnicodeDecodeError as error:
        raise NotStrict(f"the body is not UTF-8 at byte {error.start}") from error
    except RecursionError:
        raise NotStrict(f"the body is nested deeper than {depth_max}") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise NotStrict(f"the body is not JSON at {place}: {error.msg}") from error
    except ValueError as error:
        raise NotStrict(f"the body is not JSON: {error}") from error
    if too_deep(value, depth_max):
        raise NotStrict(f"the body is nested deeper than {depth_max}")
    broken = _broken(value)
    if broken:
        raise NotStrict(f"{broken} is half of a character (a lone surrogate)")
    return value


def too_deep(value: Any, depth_max: int) -> bool:
    """Whether a value has more than so many containers in one another."""
    level = [value] if type(value) in (dict, list) else []
    for _ in range(depth_max):
        if not level:
            return False
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
    return bool(level)


def _broken(value: Any) -> str:
    """Where a text stands that UTF-8 cannot carry; "" when all can."""
    todo = [("the body", value)]
    while todo:
        place, one = todo.pop()
        if isinstance(one, str):
            if not one.isascii() and not one.isprintable() and _is_broken(one):
                return f"a part of {place}"
        elif isinstance(one, dict):
            for key in one:
                if not key.isascii() and _is_broken(key):
                    return f"a part of a key of {place}"
            todo += [(f"{place[:200]}.{key[:60]}", inner) for key, inner in one.items()]
        elif isinstance(one, list):
            todo += [(f"{place[:200]}[{index}]", inner) for index, inner in enumerate(one)]
    return ""


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise NotStrict(f"the key {_shown(key)} stands twice in one object")
            seen.add(key)
    return found


def _shown(key: str) -> str:
    return repr(key[:60].encode("utf-8", "replace").decode())


def _no_constant(text: str) -> NoReturn:
    raise NotStrict(f"{text} is not JSON")


def _whole(text: str) -> int:
    value = int(text) if len(text) <= _DIGITS_MAX else INT_MAX + 1
    if not INT_MIN <= value <= INT_MAX:
        raise NotStrict(f"the number {text[:_DIGITS_MAX]} does not fit into 64 bits")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise NotStrict(f"the number {text[:_DIGITS_MAX]} is beyond what a number can be")
    return value
