"""Upstreams that do everything wrong: the agent gets a clean error, and the record says so."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.conftest import within
from tests.gateway.models.conftest import CERTIFICATES, TOOLS, Serve, Served
from tests.gateway.models.raw import answer, bomb, raw_upstream, stream

CHAT = "/openai/v1/chat/completions"
COMPLETION: dict[str, Any] = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"},
                 "finish_reason": "stop"}],
}  # fmt: skip
BODY = json.dumps(COMPLETION).encode()


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    found = {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(found).encode() + b"\n\n"


STREAM = [
    chunk({"role": "assistant", "content": "one "}), chunk({"content": "two"}),
    chunk({}, "stop"), b"data: [DONE]\n\n",
]  # fmt: skip
CLAUDE = [
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","model":"c",'
    b'"content":[],"usage":{"input_tokens":3,"output_tokens":1}}}\n\n',
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n',
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"hi"}}\n\n',
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n',
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
    b'"usage":{"output_tokens":5}}\n\n',
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
]


async def post(served: Served, body: Any = None, path: str = CHAT, **more: Any) -> httpx.Response:
    given = body if isinstance(body, bytes) else json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": "q"}]} | (body or {})
    )  # fmt: skip
    headers = {"authorization": f"Bearer {served.key}"} | more.pop("headers", {})
    async with httpx.AsyncClient(timeout=20, verify=CERTIFICATES) as client:
        return await client.post(f"{served.url}{path}", content=given, headers=headers, **more)


def code(found: httpx.Response) -> str:
    return str(found.json()["error"]["code"])


# -- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (answer(BODY, "text/html"), "'text/html' where JSON is due"),
        (answer(b"", ""), "'' where JSON is due"),
        (answer(b"{" * 3), "not JSON"),
        (answer(b"[1]"), "no JSON object"),
        (answer(b'{"a":' * 70 + b"1" + b"}" * 70), "nested too deep"),
        (answer(b'{"choices": [{"message": 3}, 7]}'), ""),
        (answer(b'{"choices": 3}'), "cannot be read"),
        (answer(BODY, length=len(BODY) + 50), "broke off its answer"),
        (answer(b"x" * 100, length=100_000_000), "says its answer has 100000000 bytes"),
        (answer(BODY, content_encoding="br"), "packed as 'br'"),
        (answer(b"no gzip", content_encoding="gzip"), "cannot be unpacked"),
        (answer(bomb(40 << 20), content_encoding="gzip"), "more than this gateway takes"),
        (answer(b"", status="302 Found", location="http://169.254.169.254/"), "redirects"),
        (answer(b"", status="307 Temporary Redirect", location="file:///etc/passwd"), "redirects"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: nonsense\r\n\r\n", "does not speak HTTP"),
        (b"\x00\x01\x02nonsense\r\n\r\n", "HTTP as it should"),
        (b"", "hung up before it answered"),
        (answer(b"", "text/event-stream"), "where JSON is due"),
    ],
)  # fmt: skip
async def test_a_broken_answer_becomes_a_clean_error(serve: Serve, given: bytes, said: str) -> None:
    async with raw_upstream(given) as upstream, serve(upstream.url) as served:
        found = await post(served)
        if said:
            assert (found.status_code, code(found)) == (502, "checkrein_upstream_failed")
            assert said in found.json()["error"]["message"]
            assert served.house.of("model.response")[0]["error"]
            assert served.house.of("passage")[0]["status"] == "failed"
        else:
            assert found.status_code in (200, 502)
        assert not served.house.fence.in_flight
        assert not served.house.run().in_flight


async def test_an_answer_of_100_mb_is_broken_off(serve: Serve) -> None:
    async def flood(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        for _ in range(100):
            writer.write(b" " * (1 << 20))
            await writer.drain()

    async with raw_upstream(flood) as upstream, serve(upstream.url) as served:
        found = await post(served)
        assert "more than this gateway takes" in found.json()["error"]["message"]


async def test_an_answer_cut_at_every_byte_is_never_taken_for_a_whole_one(serve: Serve) -> None:
    whole = answer(BODY)
    cuts = range(0, len(whole), 13)
    answers = [*(whole[:cut] for cut in cuts), whole]
    async with raw_upstream(*answers) as upstream, serve(upstream.url) as served:
        for _ in cuts:
            assert (await post(served)).status_code == 502
        assert (await post(served)).json() == COMPLETION


async def test_what_goes_back_is_encoded_anew_with_each_key_once(serve: Serve) -> None:
    twice = b'{"id":"c","model":"a","model":"b","choices":[],"big":12345678901234567890123}'
    async with raw_upstream(answer(twice)) as upstream, serve(upstream.url) as served:
        found = await post(served)
        assert found.content.count(b'"model"') == 1
        assert served.house.of("passage")[0]["reported_model"] == "b"


async def test_arguments_with_a_key_twice_are_passed_on_as_they_were_judged(serve: Serve) -> None:
    call = {"id": "t", "type": "function", "function": {
        "name": "refund", "arguments": '{"cents":900,"cents":5}'}}  # fmt: skip
    body = COMPLETION | {"choices": [{
        "index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [call]},
        "finish_reason": "tool_calls",
    }]}  # fmt: skip
    given = answer(json.dumps(body).encode())
    async with raw_upstream(given) as upstream, serve(upstream.url, TOOLS) as served:
        message = (await post(served)).json()["choices"][0]["message"]
        assert message["tool_calls"][0]["function"]["arguments"] == '{"cents":5}'


async def test_an_upstream_that_never_answers_or_stalls_is_given_up(serve: Serve) -> None:
    async def stall(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(BODY)[:-5])
        await writer.drain()
        await asyncio.sleep(5)

    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    async with (
        raw_upstream(stall, silent) as upstream,
        serve(upstream.url, timeout_s=0.2, chunk_s=0.1) as served,
    ):
        stalled, never = await post(served), await post(served)
        assert "in the middle of its answer" in stalled.json()["error"]["message"]
        assert "has not begun to answer in 0.2 s" in never.json()["error"]["message"]
        assert [stalled.status_code, never.status_code] == [504, 504]


# -- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "events", "more"),
    [(CHAT, STREAM, {}), ("/anthropic/v1/messages", CLAUDE, {"max_tokens": 9})],
)
async def test_a_stream_cut_anywhere_ends_in_the_protocols_own_error(
    serve: Serve, path: str, events: list[bytes], more: Any
) -> None:
    whole = stream(*events)
    head = whole.index(b"\r\n\r\n") + 4
    last = whole.index(b"message_stop" if "anthropic" in path else b'"finish_reason": "stop"')
    cuts = range(head, last, 67)
    answers = [*(whole[:cut] for cut in cuts), whole]
    async with raw_upstream(*answers) as upstream, serve(upstream.url) as served:
        for cut in cuts:
            found = await post(served, {"stream": True} | more, path)
            text = found.text if found.status_code == 200 else f"data: {found.text}\n\n"
            assert "checkrein_upstream_failed" in text, (cut, text)
            assert text.endswith("}\n\n")
        found = await post(served, {"stream": True} | more, path)
        assert "checkrein" not in found.text
        said = served.house.of("model.response")
        assert {one.get("finish_reason") for one in said[:-1]} <= {"broken", "", None, "end_turn"}
        assert said[-1]["finish_reason"] in ("stop", "end_turn")


async def test_a_stream_in_pieces_of_one_byte_is_the_same_stream(serve: Serve) -> None:
    pieces = [bytes([one]) for one in b"".join(STREAM)]
    given = [stream(*pieces), stream(*STREAM), stream(b"".join(STREAM).replace(b"\n", b"\r\n"))]
    async with raw_upstream(*given) as upstream, serve(upstream.url) as served:
        texts = {(await post(served, {"stream": True})).text for _ in given}
        assert len(texts) == 1
        (text,) = texts
        assert text.endswith("data: [DONE]\n\n")
        assert [e["content"] for e in served.house.of("model.response")] == ["one two"] * 3


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (b"data: {nonsense\n\n", "not JSON"),
        (b"data: [1]\n\n", "no JSON object"),
        (b'data: {"choices":[{"delta":{"content":5}}]}\n\n', ""),
        (b'data: {"choices":[7]}\n\n', ""),
        (b"data: " + b"x" * (17 << 20), "too much at once"),
    ],
)
async def test_nonsense_in_a_stream_ends_it(serve: Serve, event: bytes, said: str) -> None:
    async with raw_upstream(stream(STREAM[0], event)) as upstream, serve(upstream.url) as served:
        found = await post(served, {"stream": True})
        assert "checkrein_upstream_failed" in found.text
        assert said in found.text
        (passage,) = served.house.of("passage")
        assert passage["status"] == "failed"


async def test_a_providers_own_error_in_a_stream_is_passed_on(serve: Serve) -> None:
    error = b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n'
    async with raw_upstream(stream(STREAM[0], error)) as upstream, serve(upstream.url) as served:
        found = await post(served, {"stream": True})
        assert found.text.endswith(error.decode())
        assert "checkrein" not in found.text
        (passage,) = served.house.of("passage")
        assert (passage["status"], "overloaded" in passage["reason"]) == ("failed", True)


async def test_a_call_that_never_became_whole_does_not_reach_the_agent(serve: Serve) -> None:
    call = {"index": 0, "id": "t", "function": {"name": "search", "arguments": '{"q":'}}
    events = [STREAM[0], chunk({"tool_calls": [call]})]
    async with raw_upstream(stream(*events)) as upstream, serve(upstream.url, TOOLS) as served:
        found = await post(served, {"stream": True})
        assert "tool_calls" not in found.text
        assert "checkrein_upstream_failed" in found.text


async def test_a_stalled_stream_is_given_up(serve: Serve) -> None:
    async def stall(writer: asyncio.StreamWriter) -> None:
        writer.write(stream(STREAM[0], whole=False))
        await writer.drain()
        await asyncio.sleep(5)

    async with raw_upstream(stall) as upstream, serve(upstream.url, chunk_s=0.1) as served:
        found = await post(served, {"stream": True})
        assert "checkrein_upstream_timeout" in found.text
        assert '"one "' in found.text


# -- stopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["halt", "contain"])
@pytest.mark.parametrize("path", [CHAT, "/anthropic/v1/messages", "/openai/v1/responses"])
async def test_what_is_in_flight_is_cut_here_and_upstream(
    serve: Serve, how: str, path: str
) -> None:
    begun = asyncio.Event()

    async def endless(writer: asyncio.StreamWriter) -> None:
        first = CLAUDE[:3] if "anthropic" in path else STREAM[:1]
        if "responses" in path:
            first = [b'data: {"type":"response.output_text.delta","delta":"hi"}\n\n']
        writer.write(stream(*first, whole=False))
        for _ in range(1_000):
            await writer.drain()
            begun.set()
            await asyncio.sleep(0.01)
            writer.write(b"8\r\n: ping\n\n\r\n")

    more = {"stream": True, "max_tokens": 9, "input": "q"}
    async with raw_upstream(endless) as upstream, serve(upstream.url) as served:
        asking = asyncio.ensure_future(post(served, more, path))
        await begun.wait()
        await within(5, lambda: served.house.of("model.request"))
        await asyncio.sleep(0.05)
        if how == "halt":
            served.house.halt()
        else:
            served.house.contain()
        found = await asking
        assert "enough" in found.text
        assert f"checkrein_{'halted' if how == 'halt' else 'contained'}" in found.text
        async with asyncio.timeout(5):
            await upstream.closed.wait()
        (passage,) = served.house.of("passage")
        assert passage["status"] == "cut"
        assert not served.house.fence.in_flight


async def test_when_the_agent_hangs_up_the_upstream_is_cut(serve: Serve) -> None:
    async def slow(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"", length=10_000))
        for _ in range(1_000):
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with raw_upstream(slow) as upstream, serve(upstream.url) as served:
        asking = asyncio.ensure_future(post(served))
        await within(5, lambda: upstream.requests)
        asking.cancel()
        async with asyncio.timeout(5):
            await upstream.closed.wait()
        await within(5, lambda: served.house.of("passage"))
        assert served.house.of("passage")[0]["status"] == "cut"
        assert served.house.of("model.response")[0]["error"]


# -- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"model":"a","model":"b"}', "'model' stands twice"),
        (b'{"model":"a","n":NaN}', "NaN"),
        (b'{"model":"a","m":"\\ud800"}', "the body.m is half"),
        (b'{"model":"a","n":99999999999999999999}', "64 bits"),
        (b'{"model":"a","x":' + b"[" * 70 + b"]" * 70 + b"}", "deeper than 64"),
        (b"[]", "no JSON object"),
        (b'"x"', "no JSON object"),
        (b'{"model":["a"]}', "`model` is no text"),
        (b'{"model":"a","tools":5}', "none of this endpoint's"),
        (b'{"model":"a","background":true}', "background"),
        (b"", "line 1, column 1"),
    ],
)
async def test_a_request_that_could_be_read_in_two_ways_is_refused(
    serve: Serve, body: bytes, said: str
) -> None:
    async with raw_upstream(answer(BODY)) as upstream, serve(upstream.url) as served:
        found = await post(served, body)
        assert (found.status_code, code(found)) == (400, "checkrein_bad_request")
        assert said in found.json()["error"]["message"]
        assert upstream.requests == []


async def test_a_request_over_32_mb_is_refused(serve: Serve) -> None:
    async with raw_upstream(answer(BODY)) as upstream, serve(upstream.url) as served:
        found = await post(served, b'{"a":"' + b"x" * (33 << 20) + b'"}')
        assert (found.status_code, code(found)) == (413, "checkrein_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/openai/v1/files", 404), ("GET", "/openai/v1/responses/resp_1", 404),
        ("GET", "/openai/v1/chat/completions", 405), ("POST", "/openai/v1/models", 404),
        ("GET", "/openai/v1/models/../files", 404), ("GET", "/openai/v1/models/%2e%2e/x", 404),
        ("POST", "/anthropic/v1/messages/batches", 404), ("POST", "/openai/v1/completions", 404),
        ("POST", "/openai//v1/chat/completions", 404), ("DELETE", "/openai/v1/models/x", 404),
    ],
)  # fmt: skip
async def test_what_could_not_be_judged_is_not_served(
    serve: Serve, method: str, path: str, status: int
) -> None:
    async with raw_upstream(answer(BODY)) as upstream, serve(upstream.url) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url[-5:].strip(":")))
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {served.key}\r\n"
        writer.write(f"{head}content-length: 2\r\nconnection: close\r\n\r\n{{}}".encode())
        found = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert f" {status} ".encode() in found.split(b"\r\n")[0]
        assert upstream.requests == []
