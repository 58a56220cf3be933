"""The real `anthropic` package, in all its ways, against the scripted server."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import beta_async_tool, beta_tool
from tests.recorded import Recorded, ambient, recorded

from checkrein.events import types as events
from checkrein.sdk.rein import Ordered
from checkrein.server.demo.models import ModelServer

ASK: Any = [{"role": "user", "content": "What is the weather?"}]
TOOLS: Any = [{"name": "weather", "input_schema": {"type": "object", "properties": {}}}]
MODEL: Any = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": ASK, "tools": TOOLS}


@pytest.fixture
def client(models: ModelServer, record: Recorded) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=models.url, api_key="scripted:weather") as made:
        yield made


@pytest.fixture
async def aclient(models: ModelServer, record: Recorded) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=models.url, api_key="scripted:weather") as made:
        yield made


def check(record: Recorded, *, stream: bool) -> None:
    assert record.types("model.") == ["model.request", "model.response"]
    (asked,), (said,) = record.of(events.ModelRequest), record.of(events.ModelResponse)
    assert (asked.provider, asked.model, asked.stream) == ("anthropic", "claude-haiku-4-5", stream)
    assert asked.tools == ["weather"]
    assert asked.parameters["max_tokens"] == 100
    assert said.content == "Let me look."
    assert [(c["name"], c["arguments"]) for c in said.tool_calls] == [
        ("weather", {"town": "Bern"}),
        ("weather", {"town": "Basel"}),
    ]
    assert said.finish_reason == "tool_use"
    assert said.model == "claude-haiku-4-5"
    # What was read from the cache was read, too.
    assert said.input_tokens == -(-len('{"role": "user", "content": "What is the weather?"}') // 4)
    assert said.cached_tokens == 3
    assert said.output_tokens > 5
    assert said.usd is not None
    assert (said.first_token_ns > 0) is stream


def test_messages(client: anthropic.Anthropic, record: Recorded) -> None:
    client.messages.create(**MODEL)
    check(record, stream=False)


def test_messages_with_system(client: anthropic.Anthropic, record: Recorded) -> None:
    client.messages.create(**MODEL, system="Be brief.")
    asked = record.of(events.ModelRequest)[0]
    assert asked.messages == [{"role": "system", "content": "Be brief."}, *ASK]


def test_stream(client: anthropic.Anthropic, record: Recorded) -> None:
    kinds = [event.type for event in client.messages.create(**MODEL, stream=True)]
    assert kinds[-1] == "message_stop"
    check(record, stream=True)


def test_stream_helper(client: anthropic.Anthropic, record: Recorded) -> None:
    with client.messages.stream(**MODEL) as stream:
        assert "".join(stream.text_stream) == "Let me look."
    check(record, stream=True)


def test_raw(client: anthropic.Anthropic, record: Recorded) -> None:
    assert client.messages.with_raw_response.create(**MODEL).parse().stop_reason == "tool_use"
    check(record, stream=False)


def test_streamed_response(client: anthropic.Anthropic, record: Recorded) -> None:
    with client.messages.with_streaming_response.create(**MODEL) as response:
        assert response.parse().stop_reason == "tool_use"
    check(record, stream=False)


def test_beta(client: anthropic.Anthropic, record: Recorded) -> None:
    client.beta.messages.create(**MODEL)
    check(record, stream=False)


PACT = "pact: t\njob: t\nowner: t\ntools: {%s: {kind: read}}\n"


def weather(town: str) -> str:
    """The weather of a town."""
    return f"sun in {town}"


@pytest.mark.parametrize("allowed", [True, False])
async def test_tool_runner(models: ModelServer, tmp_path: Path, allowed: bool) -> None:
    pact = PACT % ("weather" if allowed else "news")
    with (
        recorded(tmp_path, pact) as record,
        anthropic.Anthropic(base_url=models.url, api_key="scripted:weather") as client,
    ):
        runner = client.beta.messages.tool_runner(
            **MODEL | {"tools": [beta_tool(weather)]}, thread=False
        )
        told = runner.until_done().content[0].text  # type: ignore[union-attr] # it is text
    returned = record.of(events.ToolReturned)
    assert [event.status for event in returned] == ["ok" if allowed else "denied"] * 2
    assert ("sun in Bern, sun in Basel" in told) is allowed
    assert ("not in the pact" in told) is not allowed


async def test_async_tool_runner(models: ModelServer, record: Recorded) -> None:
    async def aweather(town: str) -> str:
        return weather(town)

    tool = beta_async_tool(aweather, name="weather", description="The weather of a town.")
    async with anthropic.AsyncAnthropic(base_url=models.url, api_key="scripted:weather") as client:
        given = MODEL | {"tools": [tool], "thread": False}
        runner = client.beta.messages.tool_runner(**given)
        await runner.until_done()
    assert [event.result for event in record.of(events.ToolReturned)] == [
        "sun in Bern", "sun in Basel",
    ]  # fmt: skip


async def test_async(aclient: anthropic.AsyncAnthropic, record: Recorded) -> None:
    await aclient.messages.create(**MODEL)
    check(record, stream=False)


async def test_async_stream(aclient: anthropic.AsyncAnthropic, record: Recorded) -> None:
    kinds = [event.type async for event in await aclient.messages.create(**MODEL, stream=True)]
    assert kinds[-1] == "message_stop"
    check(record, stream=True)


async def test_async_stream_helper(aclient: anthropic.AsyncAnthropic, record: Recorded) -> None:
    async with aclient.messages.stream(**MODEL) as stream:
        assert (await stream.get_final_message()).stop_reason == "tool_use"
    check(record, stream=True)


async def test_async_raw(aclient: anthropic.AsyncAnthropic, record: Recorded) -> None:
    raw = await aclient.messages.with_raw_response.create(**MODEL)
    assert (await raw.parse()).stop_reason == "tool_use"
    check(record, stream=False)


def test_stream_that_breaks(models: ModelServer, record: Recorded) -> None:
    with (
        anthropic.Anthropic(base_url=models.url, api_key="scripted:breaks") as client,
        pytest.raises(anthropic.APIError),
        client.messages.stream(**MODEL) as stream,
    ):
        stream.get_final_message()
    (said,) = record.of(events.ModelResponse)
    assert "the line is cut" in said.error


def test_error(models: ModelServer, record: Recorded) -> None:
    with (
        anthropic.Anthropic(
            base_url=models.url, api_key="scripted:rate-limited", max_retries=1
        ) as client,
        pytest.raises(anthropic.RateLimitError),
    ):
        client.messages.create(**MODEL)
    (said,) = record.of(events.ModelResponse)
    assert "RateLimitError" in said.error


@pytest.mark.parametrize("system", [{}, {"system": "Be kind."}])
def test_directive(models: ModelServer, record: Recorded, system: dict[str, str]) -> None:
    order = Ordered(command_id="c", verb="inject", epoch=1, arguments={"text": "say less"})
    ambient().obey(order)
    with anthropic.Anthropic(base_url=models.url, api_key="scripted:prompt") as client:
        answer: Any = client.messages.create(**MODEL, **system)  # type: ignore[arg-type]
    text = answer.content[0].text
    assert text.startswith(system.get("system", ""))
    assert "say less|What is the weather?" in text
