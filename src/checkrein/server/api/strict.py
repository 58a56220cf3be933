"""Strict JSON: what two parsers could read in two ways is refused.

A body with a key twice, with NaN, with a number too large, or with a broken string means one thing
to the program that checked it and another to the one that obeys it.
"""

import json
import math
from typing import Any, NoReturn

from checkrein.server.api.problems import BadRequest, TooLarge

BODY_BYTES_MAX = 1024 * 1024
DEPTH_MAX = 32
INT_MIN, INT_MAX = -(2**63), 2**64 - 1
_DIGITS_MAX = 40
_DO = "Send one JSON object, each key once, as described at /api/openapi.json."


def check_json(body: bytes) -> None:
    """Raises BadRequest or TooLarge, naming the place, unless the body is strict JSON."""
    if len(body) > BODY_BYTES_MAX:
        raise TooLarge(
            f"the body has {len(body)} bytes; at most {BODY_BYTES_MAX} are taken",
            "Send less at once.",
        )
    try:
        value = json.loads(
            body.decode("utf-8"), object_pairs_hook=_once_each, parse_constant=_no_constant,
            parse_int=_whole, parse_float=_finite,
        )  # fmt: skip
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8 at byte {error.start}", _DO) from error
    except RecursionError:
        raise BadRequest(f"the body is nested deeper than {DEPTH_MAX}", _DO) from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise BadRequest(f"the body is not JSON at {place}: {error.msg}", _DO) from error
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}", _DO) from error
    _check_depth(value, 0)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise BadRequest(f"the key {key[:60]!r} stands twice in one object", _DO)
        found[key] = value
    return found


def _no_constant(text: str) -> NoReturn:
    raise BadRequest(f"{text} is not JSON", _DO)


def _whole(text: str) -> int:
    value = int(text) if len(text) <= _DIGITS_MAX else INT_MAX + 1
    if not INT_MIN <= value <= INT_MAX:
        raise BadRequest(f"the number {text[:_DIGITS_MAX]} does not fit into 64 bits", _DO)
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadRequest(f"the number {text[:_DIGITS_MAX]} is beyond what a number can be", _DO)
    return value


def _check_depth(value: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise BadRequest(f"the body is nested deeper than {DEPTH_MAX}", _DO)
    if isinstance(value, dict):
        for inner in value.values():
            _check_depth(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_depth(inner, depth + 1)
