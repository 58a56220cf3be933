"""agentgateway: its guardrail webhook for models, and its HTTP authorization for MCP.

As its source stood in 2026 (1.x):

    POST …/request   {"body": {"messages": [{"role", "content"}]}}
    POST …/response  {"body": {"choices": [{"message": {"role", "content"}}]}}
      answered {"action": {"reason"?}} (pass), {"action": {"body": {…}}} (mask) or
      {"action": {"body": text, "status_code", "reason"?}} (reject)
    …/authz          the request itself, with its body (`extAuthz`, protocol `http`,
                     `includeRequestBody`): 2xx lets it pass, anything else is the client's answer

The model is not in the webhook's body: agentgateway puts it in a header, `x-checkrein-model`.
"""

import itertools
from asyncio import timeout
from typing import Any

import msgspec

from checkrein.events import strict
from checkrein.gateway.decide.guardrails import Guardrails, held_too_long
from checkrein.gateway.decide.open_calls import OpenCall, OpenCalls
from checkrein.gateway.decide.words import is_verdict
from checkrein.gateway.gate import Gate, said_in
from checkrein.gateway.types import UNNAMED, Refusal
from checkrein.gateway.wire import Answer, Request, first_of
from checkrein.sdk.calls import ToolCall
from checkrein.sdk.instruments import exchange

PREFIX = "/decide/agentgateway"
MODEL_HEADER = "x-checkrein-model"
PARTIAL_HEADER = "x-envoy-auth-partial-body"
DEPTH_MAX = 64
BODY_BYTES_MAX = 32 * 1024 * 1024
PASS = {"action": {"reason": "allowed by Checkrein"}}
CHANGED = "redacted, or a directive was put below it"
AUTHZ_WAIT_S = 1.5
"""agentgateway gives up after 2 s."""
AUTHZ_OPEN_S = 60.0
"""How a call ended that was only authorized is never told: so long it counts as under way."""


class Message(msgspec.Struct, frozen=True):
    role: str = ""
    content: str = ""


class Choice(msgspec.Struct, frozen=True):
    message: Message


class Messages(msgspec.Struct, frozen=True):
    messages: list[Message]


class Choices(msgspec.Struct, frozen=True):
    choices: list[Choice]


class Prompted(msgspec.Struct, frozen=True):
    body: Messages


class Answered(msgspec.Struct, frozen=True):
    body: Choices


class AgentGateway:
    """On the gateway's loop."""

    def __init__(self, gate: Gate, guardrails: Guardrails) -> None:
        self._gate = gate
        self._guardrails = guardrails
        self._open: OpenCalls[ToolCall] = OpenCalls()
        self._ids = itertools.count(1)

    async def handle(self, gate: Gate, request: Request, answer: Answer) -> None:
        ways = {"/request": self._request, "/response": self._response}
        rest = request.path.removeprefix(PREFIX)
        if rest == "/authz" or rest.startswith("/authz/"):
            await gate.keys.caller_of(request.headers)
            body = await request.body(BODY_BYTES_MAX)
            await first_of(self._authz(request, body, answer), request.gone())
        elif rest in ways and request.method == "POST":
            await gate.keys.caller_of(request.headers)
            body = await request.body(BODY_BYTES_MAX)
            await first_of(self._webhook(ways[rest], request, body, answer), request.gone())
        else:
            raise Refusal(404, "no_route", f"there are {PREFIX}/request, …/response and …/authz")

    def sweep(self) -> None:
        self._open.sweep(self._gate.world.monotonic_ns())

    def close(self) -> None:
        self._open.end_all()

    # -- the webhook --------------------------------------------------------------------------

    async def _webhook(self, way: Any, request: Request, body: bytes, answer: Answer) -> None:
        try:
            told = await way(request, body)
        except Refusal as refusal:
            if not is_verdict(refusal):
                raise
            told = shape(refusal)
        await answer.json(200, told)

    async def _request(self, request: Request, body: bytes) -> dict[str, Any]:
        messages = _read(body, Prompted).body.messages
        asked = exchange.Request(
            provider="agentgateway", model=request.headers.get(MODEL_HEADER, UNNAMED)[:200],
            messages=[{"role": each.role, "content": each.content} for each in messages],
            parameters={}, tools=(), stream=False,
        )  # fmt: skip
        said = said_in(request.headers)
        given = [each.content for each in messages]
        texts = await self._guardrails.before(request.headers, said, asked, given, "")
        if texts == given:
            return PASS
        changed = [Message(each.role, text) for each, text in zip(messages, texts, strict=True)]
        return {"action": {"body": Messages(changed), "reason": CHANGED}}

    async def _response(self, request: Request, body: bytes) -> dict[str, Any]:
        choices = _read(body, Answered).body.choices
        given = [choice.message.content for choice in choices]
        said = said_in(request.headers)
        texts = await self._guardrails.after(request.headers, said, given, [], "")
        if texts == given:
            return PASS
        changed = [
            Choice(Message(choice.message.role, text))
            for choice, text in zip(choices, texts, strict=True)
        ]
        return {"action": {"body": Choices(changed), "reason": CHANGED}}

    # -- authorization ------------------------------------------------------------------------

    async def _authz(self, request: Request, body: bytes, answer: Answer) -> None:
        begun: Any = None
        try:
            if request.headers.get(PARTIAL_HEADER) == "true":
                raise Refusal(413, "too_large", "only a part of the body was sent here")
            calls = calls_in(body)
            for ident, tool, arguments in calls:
                begun = ident
                await self._call(request, tool, arguments)
            if not calls:
                await self._gate.caller(request.headers)
        except Refusal as refusal:
            error = {"code": -32001, "message": refusal.text, "data": {"code": refusal.code}}
            await answer.json(refusal.status, {"jsonrpc": "2.0", "id": begun, "error": error})
            return
        await answer.json(200, {"verdict": "allow"})

    async def _call(self, request: Request, tool: str, arguments: Any) -> None:
        headers = request.headers
        async with self._gate.visit(headers, "decide", said_in(headers)) as visit:
            try:
                async with timeout(AUTHZ_WAIT_S):
                    call = await visit.begin_tool(tool, arguments)
            except TimeoutError:
                raise held_too_long(tool, AUTHZ_WAIT_S) from None
            if call.changed:
                changed = Refusal(
                    403, "denied", f"{tool} may only be called with other arguments, which cannot "
                    "be given here", advice="ESCALATE",
                )  # fmt: skip
                visit.fail_tool(call, changed)
                raise changed
            until_ns = self._gate.world.monotonic_ns() + round(AUTHZ_OPEN_S * 1e9)
            key = (visit.run.run_id, f"authz-{next(self._ids)}")
            self._open.put(key, OpenCall(visit, call, until_ns, visit.fail_tool))


def calls_in(body: bytes) -> list[tuple[Any, str, Any]]:
    """The tool calls of a JSON-RPC body: id, name, arguments. Raises Refusal for what could be read
    in two ways, since the very bytes go on to the server."""
    if not body.strip():
        return []
    try:
        found = strict.read_with_care(body, DEPTH_MAX)
    except strict.NotStrict as error:
        raise Refusal(400, "bad_request", f"the body is no clear JSON: {error}") from error
    calls = []
    for message in found if isinstance(found, list) else [found]:
        if not isinstance(message, dict):
            raise Refusal(400, "bad_request", "the body is no JSON-RPC")
        if message.get("method") != "tools/call":
            continue
        params = message.get("params")
        if not isinstance(params, dict):
            raise Refusal(400, "bad_request", "a tools/call without parameters")
        name = params.get("name")
        if not isinstance(name, str) or not name:
            raise Refusal(400, "bad_request", "a tools/call without the tool's name")
        calls.append((message.get("id"), name, params.get("arguments", {})))
    return calls


def shape(refusal: Refusal) -> dict[str, Any]:
    status = refusal.status if refusal.status >= 400 else 403
    return {"action": {"body": refusal.text, "status_code": status, "reason": refusal.reason}}


def _read(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refusal(400, "bad_request", f"the body cannot be read: {error}") from error
