"""JSON-RPC 2.0 as MCP uses it: one message at a time, read strictly, written anew.

What goes on is always our own encoding of what was read and judged, never the bytes that came: a
message that two parsers could read in two ways (a key twice, NaN, broken text) is refused.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from checkrein.gateway.types import Refusal

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
DEPTH_MAX = 64
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_DIGITS_MAX = 40
_ID_CHARS_MAX = 256

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022
REFUSED = -32050
"""The gateway says no; `data.code` says which no (see `types.Refusal`)."""
_STATUS = {
    PARSE_ERROR: 400, INVALID_REQUEST: 400, INVALID_PARAMS: 400, HEADER_MISMATCH: 400, -32021: 400,
    UNSUPPORTED_VERSION: 400, METHOD_NOT_FOUND: 404,
}  # fmt: skip
_CODES = {"bad_request": INVALID_REQUEST, "too_large": INVALID_REQUEST, "no_route": INVALID_REQUEST,
          "upstream_failed": INTERNAL_ERROR, "upstream_timeout": INTERNAL_ERROR}  # fmt: skip
FOR_THE_AGENT = frozenset(
    {"denied", "halted", "contained", "held_too_long", "guard_error", "changed", "bad_result"}
)
"""Refusals of a tool call that the agent itself should read: they come as the tool's result."""

Message = dict[str, Any]
Id = str | int
encode = msgspec.json.Encoder().encode


def read(data: bytes) -> Message:
    """One message: a request, a notification, or an answer. Raises Refusal (400)."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise Refusal(413, "too_large", f"the message is over {MESSAGE_BYTES_MAX} bytes")
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_once_each, parse_constant=_no_constant,
            parse_int=_whole, parse_float=_finite,
        )  # fmt: skip
    except UnicodeDecodeError as error:
        raise _bad(f"it is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise _bad(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError:
        raise _bad("it is nested too deeply") from None
    except ValueError as error:
        raise _bad(str(error)) from error
    if not isinstance(value, dict):
        what = "a batch, which no revision that is current has" if isinstance(value, list) else "no"
        raise Refusal(400, "bad_request", f"one JSON-RPC message is expected, this is {what} one")
    _check(value)
    if b"\\u" in data:
        try:
            encode(value)
        except UnicodeEncodeError:
            raise _bad("a text in it is half of a character") from None
    return value


def is_request(message: Mapping[str, Any]) -> bool:
    return "method" in message and "id" in message


def is_answer(message: Mapping[str, Any]) -> bool:
    return "method" not in message


def params_of(message: Mapping[str, Any]) -> dict[str, Any]:
    found = message.get("params")
    return found if isinstance(found, dict) else {}


def meta_of(message: Mapping[str, Any]) -> dict[str, Any]:
    found = params_of(message).get("_meta")
    return found if isinstance(found, dict) else {}


def result(ident: Id | None, value: Any) -> Message:
    return {"jsonrpc": "2.0", "id": ident, "result": value}


def error(ident: Id | None, code: int, text: str, data: Any = None) -> Message:
    told: dict[str, Any] = {"code": code, "message": text}
    if data is not None:
        told["data"] = data
    return {"jsonrpc": "2.0", "id": ident, "error": told}


def refused(ident: Id | None, refusal: Refusal) -> Message:
    """A no as a JSON-RPC error."""
    return error(ident, _CODES.get(refusal.code, REFUSED), refusal.text, told(refusal))


def told(refusal: Refusal) -> dict[str, str]:
    found = {
        "code": refusal.code, "reason": refusal.reason, "rule": refusal.rule,
        "advice": refusal.advice, "by": refusal.by, "appeal": refusal.appeal,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value}


def refused_to_agent(ident: Id | None, refusal: Refusal) -> Message:
    """A no as the result of the tool, so that the model reads it."""
    return result(ident, {
        "content": [{"type": "text", "text": refusal.text}], "isError": True,
        "resultType": "complete", "_meta": {"checkrein/refusal": told(refusal)},
    })  # fmt: skip


def status_of(message: Message) -> int:
    """The HTTP status that goes with an answer."""
    told = message.get("error")
    return _STATUS.get(told.get("code"), 200) if isinstance(told, dict) else 200


def _check(value: Message) -> None:
    """The envelope, and how deep it goes. Raises Refusal."""
    _check_depth(value, 0)
    if value.get("jsonrpc") != "2.0":
        raise Refusal(400, "bad_request", 'a message has `"jsonrpc": "2.0"`')
    method, ident = value.get("method"), value.get("id")
    if "method" in value:
        if not isinstance(method, str) or not method:
            raise Refusal(400, "bad_request", "`method` is a text")
        if "id" in value and not _is_id(ident):
            raise Refusal(400, "bad_request", "`id` is a text or a whole number")
        if "params" in value and not isinstance(value["params"], dict):
            raise Refusal(400, "bad_request", "`params` is an object")
    elif ("result" in value) == ("error" in value):
        raise Refusal(400, "bad_request", "a message has a method, a result or an error")
    elif ident is not None and not _is_id(ident):
        raise Refusal(400, "bad_request", "`id` is a text or a whole number")


def _is_id(ident: Any) -> bool:
    if isinstance(ident, str):
        return len(ident) <= _ID_CHARS_MAX
    return isinstance(ident, int) and not isinstance(ident, bool)


def _bad(why: str) -> Refusal:
    return Refusal(400, "bad_request", f"the message is no strict JSON: {why}")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {double[:60]!r} stands twice in one object")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _whole(text: str) -> int:
    value = int(text) if len(text) <= _DIGITS_MAX else _INT_MAX + 1
    if not _INT_MIN <= value <= _INT_MAX:
        raise ValueError(f"the number {text[:_DIGITS_MAX]} does not fit into 64 bits")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:_DIGITS_MAX]} is beyond what a number can be")
    return value


def _check_depth(value: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise Refusal(400, "bad_request", f"the message is nested deeper than {DEPTH_MAX}")
    if isinstance(value, dict):
        for inner in value.values():
            if isinstance(inner, dict | list):
                _check_depth(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict | list):
                _check_depth(inner, depth + 1)
