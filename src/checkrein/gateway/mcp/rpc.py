"""JSON-RPC 2.0 as MCP uses it: one message at a time, read strictly, written anew.

What goes on is always our own encoding of what was read and judged, never the bytes that came: a
message that two parsers could read in two ways (a key twice, NaN, broken text) is refused.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from checkrein.events import strict
from checkrein.gateway.types import Refusal

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
DEPTH_MAX = strict.DEPTH_MAX
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
        value = strict.read(data).value
    except strict.NotStrict as error:
        raise Refusal(400, "bad_request", f"the message is no strict JSON: {error}") from error
    if not isinstance(value, dict):
        what = "is a batch, which no current revision has" if isinstance(value, list) else "is none"
        raise Refusal(400, "bad_request", f"one JSON-RPC message is expected, and this {what}")
    _check(value)
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
    return _STATUS.get(told.get("code", 0), 200) if isinstance(told, dict) else 200


def _check(value: Message) -> None:
    """The envelope. Raises Refusal."""
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
