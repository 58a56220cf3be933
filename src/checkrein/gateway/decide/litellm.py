"""LiteLLM's generic guardrail: POST …/beta/litellm_basic_guardrail_api, before and after a call.

As its documentation and types stood in 2026 (beta): `input_type` `request` or `response`, `texts`,
`structured_messages`, `tools`, `tool_calls`, `model`, `litellm_call_id`, `litellm_trace_id`; the
answer is `{"action": "NONE" | "BLOCKED" | "GUARDRAIL_INTERVENED", "blocked_reason"?, "texts"?}`.
Unknown fields are passed over, as its types grow.
"""

from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from checkrein.gateway.decide.guardrails import Guardrails
from checkrein.gateway.decide.words import is_verdict
from checkrein.gateway.gate import Gate, said_in
from checkrein.gateway.types import UNNAMED, Announced, Refusal
from checkrein.gateway.wire import Answer, Request, first_of
from checkrein.sdk.instruments import exchange

PREFIX = "/decide/litellm"
PATH = f"{PREFIX}/beta/litellm_basic_guardrail_api"
BODY_BYTES_MAX = 32 * 1024 * 1024
NAME_CHARS_MAX = 128


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    input_type: Literal["request", "response"]
    texts: list[str] | None = None
    structured_messages: list[Any] | None = None
    tools: list[Any] | None = None
    tool_calls: list[Any] | None = None
    model: str | None = None
    litellm_call_id: str | None = None
    litellm_trace_id: str | None = None


_decoder = msgspec.json.Decoder(Asked)


class LiteLlm:
    def __init__(self, guardrails: Guardrails) -> None:
        self._guardrails = guardrails

    async def handle(self, gate: Gate, request: Request, answer: Answer) -> None:
        if request.path != PATH:
            raise Refusal(404, "no_route", f"LiteLLM's `api_base` is …{PREFIX}")
        await gate.keys.caller_of(request.headers)
        asked = read(await request.body(BODY_BYTES_MAX))
        await first_of(self._answer(request, asked, answer), request.gone())

    async def _answer(self, request: Request, asked: Asked, answer: Answer) -> None:
        try:
            told = await self._told(request, asked)
        except Refusal as refusal:
            if not is_verdict(refusal):
                raise
            told = shape(refusal)
        await answer.json(200, told)

    async def _told(self, request: Request, asked: Asked) -> dict[str, Any]:
        said = run_of(said_in(request.headers), asked.litellm_trace_id)
        call_id = (asked.litellm_call_id or "")[:NAME_CHARS_MAX]
        given, headers = asked.texts or [], request.headers
        if asked.input_type == "response":
            calls = calls_in(asked.tool_calls)
            texts = await self._guardrails.after(headers, said, given, calls, call_id)
        else:
            texts = await self._guardrails.before(headers, said, request_of(asked), given, call_id)
        if texts == given:
            return {"action": "NONE"}
        return {"action": "GUARDRAIL_INTERVENED", "texts": texts}


def read(body: bytes) -> Asked:
    """Raises Refusal (400)."""
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refusal(400, "bad_request", f"the body cannot be read: {error}") from error


def shape(refusal: Refusal) -> dict[str, Any]:
    return {"action": "BLOCKED", "blocked_reason": refusal.text}


def run_of(said: Announced, name: str | None) -> Announced:
    """One conversation, one run."""
    return replace(said, run=name[:NAME_CHARS_MAX]) if name and not said.run else said


def request_of(asked: Asked) -> exchange.Request:
    """Texts without their roles are nobody's: none of them counts as the user's word."""
    messages = asked.structured_messages
    if not messages:
        messages = [{"role": "unknown", "content": text} for text in asked.texts or ()]
    names = (function_of(tool).get("name") for tool in asked.tools or ())
    return exchange.Request(
        provider="litellm", model=asked.model or UNNAMED, messages=messages, parameters={},
        tools=tuple(str(name) for name in names if name), stream=False,
    )  # fmt: skip


def calls_in(tool_calls: list[Any] | None) -> list[dict[str, Any]]:
    """What the model wants called; one that cannot be read has no name, and no pact allows it."""
    found = []
    for call in tool_calls or ():
        function = function_of(call)
        arguments = exchange.parsed(function.get("arguments"))
        found.append({"name": function.get("name") or "", "arguments": arguments})
    return found


def function_of(tool: Any) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function if isinstance(function, dict) else {}
