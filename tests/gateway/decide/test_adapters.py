"""LiteLLM and agentgateway ask in their own shapes, as documented; nobody of theirs runs here."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from checkrein.gateway.app import App
from checkrein.gateway.decide.agentgateway import calls_in
from checkrein.gateway.decide.part import DecidePart, open_part
from checkrein.gateway.types import Refusal
from tests.gateway.conftest import GateHouse, Gates

PACT = """
pact: desk
models: [small-*]
tools:
  look: {kind: read}
  refund: {kind: compensable, allow: args.cents <= 500, ask: args.cents > 200}
loops: {no_progress: 15}
"""
REDACTING = "pact: clerk\nredact: [secrets, pii]"
SECRET = "AKIA" + "Z7QPXW4M2LVN8KDT"
LITELLM = "/decide/litellm/beta/litellm_basic_guardrail_api"
META = {"user_api_key_hash": "h", "user_api_key_alias": None}


class Desk:
    def __init__(self, house: GateHouse, part: DecidePart, client: httpx.AsyncClient) -> None:
        self.house, self.part, self.client = house, part, client
        self.key = house.agent("bot")

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        key = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        return await self.client.post(path, content=content, headers=key | headers)

    async def litellm(self, input_type: str, **more: Any) -> dict[str, Any]:
        body = {
            "input_type": input_type, "litellm_call_id": "call-1", "litellm_trace_id": "trace-1",
            "structured_messages": None, "images": None, "tools": None, "texts": [],
            "tool_calls": None, "request_data": META, "additional_provider_specific_params": {},
            "model": "small-1", **more,
        }  # fmt: skip
        answer = await self.post(LITELLM, body)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def webhook(self, way: str, body: Any, model: str = "small-1") -> Any:
        path = f"/decide/agentgateway/{way}"
        answer = await self.post(path, {"body": body}, **{"x-checkrein-model": model})
        assert answer.status_code == 200, answer.text
        return answer.json()["action"]

    def inject(self, text: str) -> None:
        self.house.run().advise(text)


@pytest.fixture
async def desk(gates: Gates) -> AsyncIterator[Desk]:
    house = gates(pact=PACT)
    part = await open_part(house.gate)
    try:
        app = httpx.ASGITransport(App(house.gate, part.routes))
        async with httpx.AsyncClient(transport=app, base_url="http://gateway") as client:
            yield Desk(house, part, client)
    finally:
        await part.close()


def wanted(name: str, arguments: Any) -> list[dict[str, Any]]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return [{"id": "t1", "type": "function", "function": {"name": name, "arguments": text}}]


def said(*texts: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text} for text in texts]}


def answered(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


async def test_litellm_a_call_is_recorded_with_its_answer(desk: Desk) -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    assert await desk.litellm("request", texts=["hello"], tools=tools) == {"action": "NONE"}
    assert await desk.litellm("response", texts=["hi there"]) == {"action": "NONE"}
    (asked,) = desk.house.of("model.request")
    (given,) = desk.house.of("model.response")
    assert (asked["model"], asked["tools"], asked["call_id"]) == (
        "small-1", ["look"], given["call_id"],
    )  # fmt: skip
    assert given["content"] == "hi there"
    assert asked["messages"] == [{"role": "unknown", "content": "hello"}]
    (passage,) = desk.house.of("passage")
    assert (passage["path"], passage["requested_model"]) == ("decide", "small-1")
    assert not desk.house.run().in_flight


async def test_litellm_a_model_that_is_not_allowed_is_blocked(desk: Desk) -> None:
    for model in ("huge-1", None):
        told = await desk.litellm("request", texts=["hello"], model=model)
        assert told["action"] == "BLOCKED"
        assert "models" in told["blocked_reason"]


async def test_litellm_what_the_model_wants_called_is_judged(desk: Desk) -> None:
    await desk.litellm("request", texts=["pay"])
    allowed = await desk.litellm("response", tool_calls=wanted("refund", {"cents": 100}))
    assert allowed["action"] == "NONE"
    for arguments in ({"cents": 900}, {"cents": 300}, "{broken", {}):
        told = await desk.litellm("response", tool_calls=wanted("refund", arguments))
        assert told["action"] == "BLOCKED", arguments
        assert "refund is not allowed" in told["blocked_reason"]
    several: list[list[Any]] = [[{}], [3], [{"function": None}], wanted("", {}), wanted("rm", {})]
    for strange in several:
        assert (await desk.litellm("response", tool_calls=strange))["action"] == "BLOCKED"
    assert {event["verdict"] for event in desk.house.of("scope.decision")} == {"deny", "ask"}
    assert not desk.house.of("tool.invoked"), "nothing was called here"


async def test_litellm_what_is_served_here_is_judged_when_it_is_called(desk: Desk) -> None:
    desk.house.gate.served_tools.take("bot", "crm", frozenset(("refund",)))
    told = await desk.litellm("response", tool_calls=wanted("refund", {"cents": 900}))
    assert told == {"action": "NONE"}


async def test_litellm_a_halted_or_contained_agent_is_blocked(desk: Desk) -> None:
    await desk.litellm("request", texts=["hello"])
    desk.house.halt()
    for way in ("response", "request"):
        told = await desk.litellm(way, texts=["x"])
        assert (told["action"], "was halted" in told["blocked_reason"]) == ("BLOCKED", True)
    desk.house.contain()
    assert "contained" in (await desk.litellm("request", texts=["x"]))["blocked_reason"]


async def test_litellm_directives_are_put_below_the_last_text(desk: Desk) -> None:
    await desk.litellm("request", texts=["hello"])
    desk.inject("be careful")
    told = await desk.litellm("request", texts=["a", "b"], litellm_call_id="call-2")
    assert told["action"] == "GUARDRAIL_INTERVENED"
    assert told["texts"][0] == "a"
    assert told["texts"][1].startswith("b\n[checkrein]")
    assert "be careful" in told["texts"][1]


async def test_litellm_texts_are_redacted_as_the_pact_says(desk: Desk) -> None:
    desk.key = desk.house.agent("clerk", pact=PACT.replace("pact: desk", REDACTING))
    told = await desk.litellm("request", texts=["plain", f"key {SECRET} of ann@example.com"])
    assert told["action"] == "GUARDRAIL_INTERVENED"
    plain, clean = told["texts"]
    assert plain == "plain"
    assert SECRET not in clean
    assert "ann@example.com" not in clean
    (asked,) = desk.house.of("model.request")
    assert SECRET not in json.dumps(asked["messages"])
    (passage,) = desk.house.of("passage")
    assert sum(passage["redacted"].values()) >= 2
    token = clean.rpartition(" of ")[2]
    told = await desk.litellm("response", texts=[f"wrote to {token}"])
    assert told["texts"] == ["wrote to ann@example.com"], "turned back for the agent"
    told = await desk.litellm("response", texts=[f"the key is {SECRET}"])
    assert SECRET not in told["texts"][0]


async def test_litellm_nonsense_and_strangers_are_errors(desk: Desk) -> None:
    for body in (b"", b"[]", b'{"input_type": "x"}', b'{"input_type": "request", "texts": 3}'):
        answer = await desk.post(LITELLM, body)
        assert (answer.status_code, answer.json()["action"]) == (400, "BLOCKED")
    desk.key = "cra_nobody"
    answer = await desk.post(LITELLM, {"input_type": "request"})
    assert (answer.status_code, answer.json()["action"]) == (401, "BLOCKED")
    assert (await desk.post("/decide/litellm", {})).status_code == 404


async def test_agentgateway_passes_and_rejects(desk: Desk) -> None:
    assert await desk.webhook("request", said("hello")) == {"reason": "allowed by Checkrein"}
    assert "body" not in await desk.webhook("response", answered("hi"))
    (given,) = desk.house.of("model.response")
    assert given["content"] == "hi"
    rejected = await desk.webhook("request", said("hello"), model="huge-1")
    assert rejected["status_code"] == 403
    assert "models" in rejected["body"]
    assert "body" not in await desk.webhook("response", answered("a stream's next piece"))


async def test_agentgateway_directives_mask_the_last_message(desk: Desk) -> None:
    await desk.webhook("request", said("hello"))
    desk.inject("be careful")
    masked = await desk.webhook("request", said("a", "b"))
    first, last = masked["body"]["messages"]
    assert first == {"role": "user", "content": "a"}
    assert "be careful" in last["content"]


async def test_agentgateway_messages_are_masked_as_the_pact_says(desk: Desk) -> None:
    desk.key = desk.house.agent("clerk", pact=PACT.replace("pact: desk", REDACTING))
    masked = await desk.webhook("request", said("plain", f"key {SECRET}"))
    first, last = masked["body"]["messages"]
    assert first == {"role": "user", "content": "plain"}
    assert SECRET not in last["content"]
    masked = await desk.webhook("response", answered(f"the key is {SECRET}"))
    (choice,) = masked["body"]["choices"]
    assert choice["message"]["role"] == "assistant"
    assert SECRET not in choice["message"]["content"]


def call(name: str, arguments: Any, ident: int = 7) -> dict[str, Any]:
    params = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": ident, "method": "tools/call", "params": params}


async def test_agentgateway_authorizes_tool_calls(desk: Desk) -> None:
    allowed = await desk.post("/decide/agentgateway/authz", call("refund", {"cents": 100}))
    assert allowed.status_code == 200
    refused = await desk.post("/decide/agentgateway/authz/mcp", call("refund", {"cents": 900}))
    assert refused.status_code == 403
    assert refused.json()["id"] == 7
    assert "refund is not allowed" in refused.json()["error"]["message"]
    listed = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert (await desk.post("/decide/agentgateway/authz", listed)).status_code == 200
    assert (await desk.post("/decide/agentgateway/authz", b"")).status_code == 200
    both = [call("look", {}), call("refund", {"cents": 900}, 8)]
    batch = await desk.post("/decide/agentgateway/authz", both)
    assert (batch.status_code, batch.json()["id"]) == (403, 8)
    run = desk.house.run()
    assert len(run.in_flight) == 2, "how they end is never told"
    desk.part.agentgateway._open.sweep(desk.house.gate.world.monotonic_ns() + 61 * 10**9)
    assert not run.in_flight


async def test_agentgateway_a_person_cannot_be_waited_for_long(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkrein.gateway.decide.agentgateway.AUTHZ_WAIT_S", 0.05)
    desk.house.link.answer = lambda question: None
    answer = await desk.post("/decide/agentgateway/authz", call("refund", {"cents": 300}))
    assert answer.status_code == 403
    assert answer.json()["error"]["data"] == {"code": "held_too_long"}
    (returned,) = desk.house.of("tool.returned")
    assert returned["status"] == "cancelled"


async def test_agentgateway_what_is_unclear_is_refused(desk: Desk) -> None:
    partial = {"x-envoy-auth-partial-body": "true"}
    answer = await desk.post("/decide/agentgateway/authz", call("look", {}), **partial)
    assert answer.status_code == 413
    for way in ("request", "response"):
        answer = await desk.post(f"/decide/agentgateway/{way}", {"body": {"messages": 3}})
        assert (answer.status_code, answer.json()["action"]["status_code"]) == (400, 400)
    assert (await desk.post("/decide/agentgateway/other", {})).status_code == 404
    desk.key = "cra_nobody"
    assert (await desk.post("/decide/agentgateway/authz", b"")).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        b'{"method": "tools/call", "params": {"name": "look", "name": "refund"}}',
        b'{"method": "tools/list", "method": "tools/call"}', b'{"method": "tools/call"}',
        b'{"method": "tools/call", "params": {"name": 3}}', b"3", b"[3]", b"{", b"\xff",
        b'{"method": "tools/call", "params": []}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_body_with_two_readings_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal):
        calls_in(body)
