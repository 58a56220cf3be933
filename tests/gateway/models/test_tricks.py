"""What means one thing to whoever looks at it and another to whoever obeys it."""

import json
from typing import Any

import pytest

from checkrein.gateway.models import sse
from tests.gateway.models.conftest import TOOLS, Serve, settings_for
from tests.gateway.models.raw import answer, raw_upstream, stream
from tests.gateway.models.test_faults import BODY, CHAT, CLAUDE, COMPLETION, chunk, code, post

MODELS = "pact: bot\njob: test\nmodels: [small-*]\n"
KEY = "sk-real/openai-key-0123456789"


async def test_nobodys_body_is_not_even_read(serve: Serve) -> None:
    async with raw_upstream(answer(BODY)) as upstream, serve(upstream.url) as served:
        for body in (b"no JSON", b"x" * (1 << 20)):
            found = await post(served, body, headers={"authorization": "Bearer cra_nobody"})
            assert (found.status_code, code(found)) == (401, "checkrein_unauthenticated")


async def test_a_key_in_the_address_goes_nowhere(serve: Serve) -> None:
    async with raw_upstream(answer(BODY)) as upstream, serve(upstream.url) as served:
        found = await post(served, path=f"{CHAT}?key={served.key}")
        assert (found.status_code, code(found)) == (400, "checkrein_bad_request")
        assert served.key not in found.text
        assert upstream.requests == []


@pytest.mark.parametrize("name", ["Model", "MODEL", "\u017ftream", "Tools", "me\u017f\u017fages"])
async def test_a_name_that_some_servers_read_as_another_is_refused(serve: Serve, name: str) -> None:
    async with raw_upstream(answer(BODY)) as upstream, serve(upstream.url) as served:
        found = await post(served, {name: "x"})
        assert (found.status_code, code(found)) == (400, "checkrein_bad_request")
        assert upstream.requests == []


async def test_names_of_their_own_that_are_not_looked_at_pass(serve: Serve) -> None:
    async with raw_upstream(answer(BODY)) as upstream, serve(upstream.url) as served:
        assert (await post(served, {"chatTemplateKwargs": {"Model": 1}})).status_code == 200


@pytest.mark.parametrize("model", [None, ""])
@pytest.mark.parametrize(
    "path", [CHAT, "/openai/v1/responses", "/anthropic/v1/messages/count_tokens"]
)
async def test_a_model_that_is_not_named_is_on_no_list(
    serve: Serve, model: str | None, path: str
) -> None:
    async with raw_upstream(answer(BODY)) as upstream, serve(upstream.url, MODELS) as served:
        found = await post(served, {"model": model}, path)
        assert found.status_code == 403
        assert "`unnamed` is not in the pact" in found.json()["error"]["message"]
        assert upstream.requests == []


async def test_tokens_of_a_forbidden_model_are_not_counted(serve: Serve) -> None:
    path = "/anthropic/v1/messages/count_tokens"
    given = answer(b'{"input_tokens": 3}')
    async with raw_upstream(given) as upstream, serve(upstream.url, MODELS) as served:
        assert (await post(served, {"model": "large-1"}, path)).status_code == 403
        assert upstream.requests == []
        assert (await post(served, {"model": "small-1"}, path)).status_code == 200


# -- the real key ---------------------------------------------------------------------------------


async def test_the_real_key_comes_back_in_no_spelling(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = COMPLETION | {"system_fingerprint": f"you sent {KEY}"}
    spelt = json.dumps(said).replace(KEY, KEY.replace("/", "\\/")).encode()
    pieces = chunk({"content": f"key {KEY}"}).replace(b"/", b"\\u002f") + chunk({}, "stop")
    given = [
        answer(spelt), answer(spelt, status="401 Unauthorized"),
        answer(BODY, x_echo=f"Bearer {KEY}", x_other="fine", x_odd="caf\u00e9"),
        stream(pieces, b"data: [DONE]\n\n"),
    ]  # fmt: skip
    async with raw_upstream(*given) as upstream:
        settings = settings_for(upstream.url)
        async with serve(settings=settings) as served:
            monkeypatch.setenv("REAL_OPENAI", KEY)
            for _ in range(2):
                found = await post(served)
                assert KEY not in found.text
                assert "[redacted:key]" in found.text
            third = await post(served)
            assert third.headers["x-other"] == "fine"
            assert not {"x-echo", "x-odd"} & set(third.headers)
            assert third.status_code == 200
            streamed = await post(served, {"stream": True})
            assert KEY not in streamed.text
            assert "[redacted:key]" in streamed.text


# -- answers --------------------------------------------------------------------------------------


def test_a_name_of_several_lines_begins_no_event() -> None:
    assert sse.written("x\ndata: {}\n\nevent: y", b"{}") == b"data: {}\n\n"


async def test_an_error_in_a_stream_carries_no_call(serve: Serve) -> None:
    hidden = {
        "type": "content_block_start", "index": 0, "error": {"message": "overloaded"},
        "content_block": {"type": "tool_use", "id": "t", "name": "refund", "input": {"cents": 999}},
    }  # fmt: skip
    event = b"event: content_block_start\ndata: " + json.dumps(hidden).encode() + b"\n\n"
    async with (
        raw_upstream(stream(CLAUDE[0], event)) as upstream,
        serve(upstream.url, TOOLS) as served,
    ):
        found = await post(served, {"stream": True}, "/anthropic/v1/messages")
        assert "overloaded" in found.text
        assert "refund" not in found.text


@pytest.mark.parametrize("ident", ["same", "", None])
async def test_calls_that_share_an_id_are_judged_one_by_one(
    serve: Serve, ident: str | None
) -> None:
    wanted = {"type": "function", "function": {"name": "refund", "arguments": '{"cents": 10}'}}
    calls = [wanted | ({} if ident is None else {"id": ident})] * 2
    said: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": calls}
    choices = [{"index": 0, "message": said, "finish_reason": "tool_calls"}]
    given = answer(json.dumps(COMPLETION | {"choices": choices}).encode())
    pact = TOOLS + "budgets: {tool_calls: 1}\n"
    async with raw_upstream(given) as upstream, serve(upstream.url, pact) as served:
        found = (await post(served)).json()["choices"][0]["message"]
        assert len(found["tool_calls"]) == 1
        assert "tool_calls" in found["content"]
        assert len({e["call_id"] for e in served.house.of("tool.invoked")}) == 1


async def test_of_two_calls_with_one_id_each_is_recorded(serve: Serve) -> None:
    wanted = {"type": "function", "function": {"name": "refund", "arguments": '{"cents": 10}'}}
    said: dict[str, Any] = {"role": "assistant", "tool_calls": [wanted | {"id": "x"}] * 2}
    choices = [{"index": 0, "message": said, "finish_reason": "tool_calls"}]
    given = answer(json.dumps(COMPLETION | {"choices": choices}).encode())
    async with raw_upstream(given) as upstream, serve(upstream.url, TOOLS) as served:
        for _ in range(2):
            found = (await post(served)).json()["choices"][0]["message"]
            assert len(found["tool_calls"]) == 2
        assert len({e["call_id"] for e in served.house.of("tool.selected")}) >= 2
