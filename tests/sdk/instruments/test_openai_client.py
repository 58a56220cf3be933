"""The real `openai` package, in all its ways, against the scripted server."""

import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from tests.recorded import Recorded, ambient, recorded

from checkrein.events import types as events
from checkrein.sdk.errors import Denied, Halted
from checkrein.sdk.rein import Ordered
from checkrein.server.demo.models import ModelServer

ASK: Any = [{"role": "user", "content": "What is the weather?"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
    }
]
FLAT_TOOLS: Any = [{"type": "function", "name": "weather", "parameters": {}, "strict": False}]


@pytest.fixture
def client(models: ModelServer, record: Recorded) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{models.url}/v1", api_key="scripted:weather") as made:
        yield made


@pytest.fixture
async def aclient(models: ModelServer, record: Recorded) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{models.url}/v1", api_key="scripted:weather") as made:
        yield made


def check(record: Recorded, *, stream: bool, first_token: bool, said_usage: bool = True) -> None:
    """One request and one response, with everything the first answer of `weather` carries."""
    assert record.types("model.") == ["model.request", "model.response"]
    (asked,), (said,) = record.of(events.ModelRequest), record.of(events.ModelResponse)
    assert (asked.provider, asked.model, asked.stream) == ("openai", "gpt-5-mini", stream)
    assert asked.tools == ["weather"]
    assert "What is the weather?" in str(asked.messages)
    assert said.call_id == asked.call_id
    assert said.content == "Let me look."
    assert [(c["name"], c["arguments"]) for c in said.tool_calls] == [
        ("weather", {"town": "Bern"}),
        ("weather", {"town": "Basel"}),
    ]
    assert said.tool_calls[0]["id"] != said.tool_calls[1]["id"]
    assert said.model == "gpt-5-mini"
    assert said.input_tokens > 0
    assert said.output_tokens > 0
    if said_usage:
        assert said.cached_tokens == 3
        assert said.usd is not None
    assert (said.first_token_ns > 0) is first_token
    assert said.duration_ns >= said.first_token_ns
    assert said.error == ""


def test_chat(client: openai.OpenAI, record: Recorded) -> None:
    answer = client.chat.completions.create(
        model="gpt-5-mini", messages=ASK, tools=TOOLS, temperature=0.5
    )
    assert answer.choices[0].message.content == "Let me look."
    check(record, stream=False, first_token=False)
    (said,) = record.of(events.ModelResponse)
    assert said.finish_reason == "tool_calls"
    assert said.fingerprint == "fp_scripted"
    assert record.of(events.ModelRequest)[0].parameters == {"temperature": 0.5}


def test_chat_reported_model(client: openai.OpenAI, record: Recorded) -> None:
    again = [*ASK, {"role": "assistant", "content": "hm"}]
    client.chat.completions.create(model="gpt-5-mini", messages=again)
    assert record.of(events.ModelResponse)[0].model == "gpt-5-mini-2026-01-01"


@pytest.mark.parametrize("usage", [True, False])
def test_chat_stream(client: openai.OpenAI, record: Recorded, usage: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if usage else {}
    stream = client.chat.completions.create(
        model="gpt-5-mini", messages=ASK, tools=TOOLS, stream=True, **options
    )
    assert record.types("model.") == ["model.request"]
    assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == "Let me look."
    check(record, stream=True, first_token=True, said_usage=usage)


def test_chat_stream_helper(client: openai.OpenAI, record: Recorded) -> None:
    with client.chat.completions.stream(model="gpt-5-mini", messages=ASK, tools=TOOLS) as stream:
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content == "Let me look."
    check(record, stream=True, first_token=True, said_usage=False)


def test_chat_raw(client: openai.OpenAI, record: Recorded) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-5-mini", messages=ASK, tools=TOOLS
    )
    assert raw.headers["x-request-id"] == "req_scripted"
    assert raw.parse().choices[0].message.content == "Let me look."
    check(record, stream=False, first_token=False)


def test_chat_raw_stream(client: openai.OpenAI, record: Recorded) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-5-mini", messages=ASK, tools=TOOLS, stream=True
    )
    assert len(list(raw.parse())) > 3
    check(record, stream=True, first_token=True, said_usage=False)


def test_chat_streamed_response_read_whole(client: openai.OpenAI, record: Recorded) -> None:
    with client.chat.completions.with_streaming_response.create(
        model="gpt-5-mini", messages=ASK, tools=TOOLS
    ) as response:
        assert record.types("model.") == ["model.request"]
        assert response.parse().choices[0].message.content == "Let me look."
    check(record, stream=False, first_token=False)


def test_chat_streamed_response_read_by_lines(client: openai.OpenAI, record: Recorded) -> None:
    with client.chat.completions.with_streaming_response.create(
        model="gpt-5-mini", messages=ASK, tools=TOOLS, stream=True
    ) as response:
        assert any("[DONE]" in line for line in response.iter_lines())
    check(record, stream=True, first_token=True, said_usage=False)


def test_responses(client: openai.OpenAI, record: Recorded) -> None:
    answer = client.responses.create(
        model="gpt-5-mini", input="What is the weather?", instructions="Be brief.", tools=FLAT_TOOLS
    )
    assert answer.output_text == "Let me look."
    check(record, stream=False, first_token=False)
    assert record.of(events.ModelRequest)[0].messages[0]["content"] == "Be brief."


def test_responses_stream(client: openai.OpenAI, record: Recorded) -> None:
    stream = client.responses.create(
        model="gpt-5-mini", input="What is the weather?", tools=FLAT_TOOLS, stream=True
    )
    assert [event.type for event in stream][-1] == "response.completed"
    check(record, stream=True, first_token=True)


def test_responses_stream_helper(client: openai.OpenAI, record: Recorded) -> None:
    with client.responses.stream(
        model="gpt-5-mini", input="What is the weather?", tools=FLAT_TOOLS
    ) as stream:
        assert stream.get_final_response().output_text == "Let me look."
    check(record, stream=True, first_token=True)


def test_embeddings(client: openai.OpenAI, record: Recorded) -> None:
    assert client.embeddings.create(model="text-embedding-3-small", input="hi").data
    (said,) = record.of(events.ModelResponse)
    assert (said.input_tokens, said.output_tokens) == (1, 0)


async def test_async_chat(aclient: openai.AsyncOpenAI, record: Recorded) -> None:
    await aclient.chat.completions.create(model="gpt-5-mini", messages=ASK, tools=TOOLS)
    check(record, stream=False, first_token=False)


async def test_async_chat_stream(aclient: openai.AsyncOpenAI, record: Recorded) -> None:
    stream = await aclient.chat.completions.create(
        model="gpt-5-mini", messages=ASK, tools=TOOLS, stream=True
    )
    assert len([chunk async for chunk in stream]) > 3
    check(record, stream=True, first_token=True, said_usage=False)


async def test_async_chat_stream_helper(aclient: openai.AsyncOpenAI, record: Recorded) -> None:
    async with aclient.chat.completions.stream(
        model="gpt-5-mini", messages=ASK, tools=TOOLS
    ) as stream:
        await stream.get_final_completion()
    check(record, stream=True, first_token=True, said_usage=False)


async def test_async_chat_raw(aclient: openai.AsyncOpenAI, record: Recorded) -> None:
    raw = await aclient.chat.completions.with_raw_response.create(
        model="gpt-5-mini", messages=ASK, tools=TOOLS
    )
    assert raw.parse().choices[0].message.content == "Let me look."
    check(record, stream=False, first_token=False)


async def test_async_chat_streamed_response(aclient: openai.AsyncOpenAI, record: Recorded) -> None:
    async with aclient.chat.completions.with_streaming_response.create(
        model="gpt-5-mini", messages=ASK, tools=TOOLS
    ) as response:
        assert (await response.parse()).choices[0].message.content == "Let me look."
    check(record, stream=False, first_token=False)


async def test_async_responses(aclient: openai.AsyncOpenAI, record: Recorded) -> None:
    await aclient.responses.create(
        model="gpt-5-mini", input="What is the weather?", tools=FLAT_TOOLS
    )
    check(record, stream=False, first_token=False)


async def test_async_responses_stream(aclient: openai.AsyncOpenAI, record: Recorded) -> None:
    async with aclient.responses.stream(
        model="gpt-5-mini", input="What is the weather?", tools=FLAT_TOOLS
    ) as stream:
        await stream.get_final_response()
    check(record, stream=True, first_token=True)


def test_stream_left_in_the_middle(client: openai.OpenAI, record: Recorded) -> None:
    stream = client.chat.completions.create(model="gpt-5-mini", messages=ASK, stream=True)
    next(stream), next(stream)
    stream.close()
    (said,) = record.of(events.ModelResponse)
    assert (said.content, said.finish_reason) == ("Let", "closed")
    assert said.output_tokens > 0


def test_stream_dropped(client: openai.OpenAI, record: Recorded) -> None:
    stream = client.chat.completions.create(model="gpt-5-mini", messages=ASK, stream=True)
    next(stream), next(stream)
    gc.disable()
    try:
        del stream
        assert record.of(events.ModelResponse)[0].finish_reason == "closed"
    finally:
        gc.enable()


def test_stream_never_read(client: openai.OpenAI, record: Recorded) -> None:
    with client.responses.create(model="gpt-5-mini", input="hi", stream=True):
        assert ambient().calls_in_flight()
    assert record.of(events.ModelResponse)[0].finish_reason == "closed"
    assert ambient().calls_in_flight() == []


async def test_async_stream_left(aclient: openai.AsyncOpenAI, record: Recorded) -> None:
    stream = await aclient.chat.completions.create(model="gpt-5-mini", messages=ASK, stream=True)
    async with stream:
        async for _ in stream:
            break
    assert record.of(events.ModelResponse)[0].finish_reason == "closed"


@pytest.mark.parametrize("script", ["broken", "rate-limited"])
def test_error(models: ModelServer, record: Recorded, script: str) -> None:
    with (
        openai.OpenAI(
            base_url=f"{models.url}/v1", api_key=f"scripted:{script}", max_retries=0
        ) as client,
        pytest.raises(openai.APIStatusError),
    ):
        client.chat.completions.create(model="gpt-5-mini", messages=ASK)
    (said,) = record.of(events.ModelResponse)
    assert {"broken": "InternalServerError", "rate-limited": "RateLimitError"}[script] in said.error
    assert ambient().calls_in_flight() == []


def test_retry_is_one_call(models: ModelServer, record: Recorded) -> None:
    with openai.OpenAI(base_url=f"{models.url}/v1", api_key="scripted:flaky") as client:
        assert client.responses.create(model="gpt-5-mini", input="hi").output_text
    assert record.types("model.") == ["model.request", "model.response"]


def test_stream_that_breaks(models: ModelServer, record: Recorded) -> None:
    with openai.OpenAI(base_url=f"{models.url}/v1", api_key="scripted:breaks") as client:
        stream = client.chat.completions.create(model="gpt-5-mini", messages=ASK, stream=True)
        with pytest.raises(openai.APIError, match="the line is cut"):
            list(stream)
    assert "the line is cut" in record.of(events.ModelResponse)[0].error


def test_model_not_in_pact(models: ModelServer, tmp_path: Any) -> None:
    pact = "pact: t\njob: t\nowner: t\nmodels: [gpt-5-mini]\n"
    with (
        recorded(tmp_path, pact) as record,
        openai.OpenAI(base_url=f"{models.url}/v1", api_key="scripted:default") as client,
    ):
        with pytest.raises(Denied, match="not in the pact"):
            client.chat.completions.create(model="gpt-5", messages=ASK)
        assert record.of(events.ModelRequest) == []
        assert record.of(events.ScopeDecision)[0].verdict == "deny"
        client.chat.completions.create(model="gpt-5-mini", messages=ASK)


def test_tokens_of_streams_are_counted_against_the_budget(
    models: ModelServer, tmp_path: Any
) -> None:
    pact = "pact: t\njob: t\nowner: t\nbudgets: {tokens: 10}\n"
    with (
        recorded(tmp_path, pact),
        openai.OpenAI(base_url=f"{models.url}/v1", api_key="scripted:default") as client,
    ):
        list(client.chat.completions.create(model="gpt-5-mini", messages=ASK, stream=True))
        with pytest.raises(Denied, match="tokens"):
            client.chat.completions.create(model="gpt-5-mini", messages=ASK, stream=True)


def test_halted(client: openai.OpenAI, record: Recorded) -> None:
    ambient().obey(Ordered(command_id="c", verb="halt", epoch=1, reason="enough"))
    with pytest.raises(Halted):
        client.chat.completions.create(model="gpt-5-mini", messages=ASK)
    assert record.types("model.") == []


def test_directive_is_put_before_the_model(models: ModelServer, record: Recorded) -> None:
    with openai.OpenAI(base_url=f"{models.url}/v1", api_key="scripted:prompt") as client:
        for number, ask in enumerate(("chat", "responses"), 1):
            order = Ordered(
                command_id=ask, verb="inject", epoch=number, arguments={"text": "say less"}
            )
            ambient().obey(order)
            if ask == "chat":
                chat = client.chat.completions.create(model="m", messages=ASK)
                text = chat.choices[0].message.content or ""
            else:
                text = client.responses.create(model="m", input="What is up?").output_text
            assert "[checkrein]" in text
            assert "say less|What is" in text
        assert "say less" not in str(client.responses.create(model="m", input="again").output_text)


def test_uninstrumented_is_as_before(models: ModelServer, tmp_path: Any) -> None:
    from openai import _base_client, _streaming

    places = (
        (_base_client.SyncAPIClient, "request"),
        (_base_client.AsyncAPIClient, "request"),
        (_streaming.Stream, "__stream__"),
        (_streaming.AsyncStream, "__stream__"),
    )
    before = [vars(owner)[name] for owner, name in places]
    with recorded(tmp_path):
        during = [vars(owner)[name] for owner, name in places]
        assert all(a is not b for a, b in zip(before, during, strict=True))
    assert [vars(owner)[name] for owner, name in places] == before
