"""Pydantic AI: sync and async tools, both providers, streamed runs, the halt matrix."""

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from checkrein.events import types as events
from checkrein.sdk.errors import Halted
from checkrein.sdk.tool import tool as checkrein_tool
from checkrein.server.demo.models import ModelServer
from tests.frameworks import tools
from tests.recorded import Recorded


@pytest.fixture(autouse=True)
def _fresh() -> None:
    tools.ran.clear()


@pytest.fixture
async def model(models: ModelServer) -> AsyncIterator[Any]:
    """Makes a model for a script; closes their clients."""
    made: list[Any] = []

    def make(script: str, provider: str = "openai") -> Any:
        key = f"scripted:{script}"
        if provider == "anthropic":
            anthropic = AsyncAnthropic(base_url=models.url, api_key=key)
            made.append(anthropic)
            return AnthropicModel(
                "claude-haiku-4-5", provider=AnthropicProvider(anthropic_client=anthropic)
            )
        openai = AsyncOpenAI(base_url=f"{models.url}/v1", api_key=key)
        made.append(openai)
        return OpenAIChatModel("gpt-5-mini", provider=OpenAIProvider(openai_client=openai))

    yield make
    for client in made:
        await client.close()


def awaited(function: Any) -> Any:
    @functools.wraps(function)
    async def call(*given: Any, **more: Any) -> Any:
        await asyncio.sleep(0)
        return function(*given, **more)

    return call


def agent(model: Any, functions: list[Any], how: str = "sync") -> Agent[None, str]:
    return Agent(model, tools=[awaited(f) if how == "async" else f for f in functions])


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("how", ["sync", "async"])
async def test_call(model: Any, record: Recorded, how: str, provider: str) -> None:
    result = await agent(model("add", provider), [tools.add], how).run("go")
    assert result.output == "it said: 5"
    tools.check_added(record)
    said = record.of(events.ModelResponse)
    assert said[0].tool_calls[0]["id"] == record.of(events.ToolSelected)[0].call_id


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_streamed(model: Any, record: Recorded, provider: str) -> None:
    async with agent(model("add", provider), [tools.add]).run_stream("go") as result:
        assert await result.get_output() == "it said: 5"
    tools.check_added(record)
    said = record.of(events.ModelResponse)
    assert len(said) == 2
    assert all(event.first_token_ns > 0 and event.error == "" for event in said)


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_denied(model: Any, record: Recorded, how: str) -> None:
    made = agent(model("forbidden"), [tools.add, tools.forbidden], how)
    result = await made.run("go")
    tools.check_denied(record, result.output)
    parts = [part for message in result.all_messages() for part in message.parts]
    assert "denied" in [getattr(part, "outcome", "") for part in parts]


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_failure(model: Any, record: Recorded, how: str) -> None:
    with pytest.raises(ValueError, match="too small"):
        await agent(model("fail"), [tools.fail], how).run("go")
    tools.check_failed(record)


async def test_tool_that_does_not_exist(model: Any, record: Recorded) -> None:
    result = await agent(model("unknown"), [tools.add]).run("go")
    assert "did you mean" in result.output.lower()
    assert record.of(events.ScopeDecision)[0].rule == "tools.unknown"


async def test_arguments_that_do_not_fit(model: Any, record: Recorded) -> None:
    await agent(model("unfit"), [tools.add]).run("go")
    assert record.of(events.ToolArguments)[0].parse_error
    assert record.of(events.ToolReturned)[0].status == "error"
    assert tools.ran == []


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_halted_inside_a_tool_gets_out(model: Any, record: Recorded, how: str) -> None:
    with pytest.raises(Halted):
        await agent(model("stop"), [tools.stop], how).run("go")
    assert record.of(events.ToolReturned)[0].status == "cancelled"
    assert len(record.of(events.ModelRequest)) == 1


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_halted_before_a_tool_gets_out(model: Any, record: Recorded, how: str) -> None:
    await tools.check_halted_between(
        record, lambda: agent(model("add"), [tools.add], how).run("go")
    )


async def test_own_tool_inside_is_one_call(model: Any, record: Recorded) -> None:
    result = await agent(model("add"), [checkrein_tool(tools.add, kind="read")]).run("go")
    assert result.output == "it said: 5"
    tools.check_added(record)
