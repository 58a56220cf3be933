"""Refusals as the clients of each protocol read them. Pure."""

from collections.abc import Callable
from typing import Any

import msgspec

from checkrein.gateway.models import sse
from checkrein.gateway.types import Refusal

_encode = msgspec.json.Encoder().encode
_OPENAI = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
    404: "invalid_request_error", 413: "invalid_request_error", 429: "rate_limit_error",
}  # fmt: skip
_ANTHROPIC = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error",
    529: "overloaded_error",
}  # fmt: skip


def code_of(refusal: Refusal) -> str:
    """`checkrein_denied`, `checkrein_halted`, …: so it is told from a provider's own codes."""
    return f"checkrein_{refusal.code}"


def openai(refusal: Refusal) -> dict[str, Any]:
    kind = _OPENAI.get(refusal.status, "api_error")
    error: dict[str, Any] = {
        "message": refusal.text, "type": kind, "param": None, "code": code_of(refusal),
    }  # fmt: skip
    return {"error": error | _more(refusal)}


def anthropic(refusal: Refusal) -> dict[str, Any]:
    kind = _ANTHROPIC.get(refusal.status, "api_error")
    error: dict[str, Any] = {"type": kind, "message": refusal.text, "code": code_of(refusal)}
    return {"type": "error", "error": error | _more(refusal)}


def _more(refusal: Refusal) -> dict[str, str]:
    said = {"rule": refusal.rule, "advice": refusal.advice, "appeal": refusal.appeal}
    return {name: value for name, value in said.items() if value}


def chat_end(refusal: Refusal) -> bytes:
    """What a chat stream that has begun ends with."""
    return sse.written("", _encode(openai(refusal)))


def responses_end(refusal: Refusal) -> bytes:
    """The protocol's error event, with `error` besides, by which clients raise."""
    whole = openai(refusal)
    event = {
        "type": "error", "code": code_of(refusal), "message": refusal.text, "param": None,
        "sequence_number": 0,
    }  # fmt: skip
    return sse.written("error", _encode(event | whole))


def messages_end(refusal: Refusal) -> bytes:
    return sse.written("error", _encode(anthropic(refusal)))


End = Callable[[Refusal], bytes]
