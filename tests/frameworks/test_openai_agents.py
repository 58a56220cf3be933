"""The OpenAI Agents SDK: sync and async tools, responses and chat completions, the halt matrix."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
)
from openai import AsyncOpenAI

from checkrein.events import types as events
from checkrein.sdk.errors import Halted
from checkrein.sdk.tool import tool as checkrein_tool
from checkrein.server.demo.models import ModelServer
from tests.frameworks import tools
from tests.recorded import Recorded

QUIET = RunConfig(tracing_disabled=True)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    tools.ran.clear()


@pytest.fixture
async def client(models: ModelServer) -> AsyncIterator[Any]:
    """Makes a client for a script; closes them all."""
    made: list[AsyncOpenAI] = []

    def make(script: str) -> AsyncOpenAI:
        made.append(AsyncOpenAI(base_url=f"{models.url}/v1", api_key=f"scripted:{script}"))
        return made[-1]

    yield make
    for one in made:
        await one.close()


def awaited(function: Any) -> Any:
    """The same as a coroutine function."""
    import functools

    @functools.wraps(function)
    async def call(*given: Any, **more: Any) -> Any:
        await asyncio.sleep(0)
        return function(*given, **more)

    return call


def agent(client: AsyncOpenAI, functions: list[Any], how: str = "sync", api: str = "") -> Any:
    kind = OpenAIChatCompletionsModel if api == "chat" else OpenAIResponsesModel
    made = [function_tool(awaited(f) if how == "async" else f) for f in functions]
    return Agent(name="test", model=kind("gpt-5-mini", client), tools=list(made))


async def run(made: Any) -> str:
    return str((await Runner.run(made, "go", run_config=QUIET)).final_output)


@pytest.mark.parametrize("api", ["responses", "chat"])
@pytest.mark.parametrize("how", ["sync", "async"])
async def test_call(client: Any, record: Recorded, how: str, api: str) -> None:
    assert await run(agent(client("add"), [tools.add], how, api)) == "it said: 5"
    tools.check_added(record)
    asked, said = record.of(events.ModelRequest), record.of(events.ModelResponse)
    assert asked[0].tools == ["add"]
    assert said[0].tool_calls[0]["id"] == record.of(events.ToolSelected)[0].call_id


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_streamed(client: Any, record: Recorded, api: str) -> None:
    result = Runner.run_streamed(agent(client("add"), [tools.add], api=api), "go", run_config=QUIET)
    async for _ in result.stream_events():
        pass
    assert result.final_output == "it said: 5"
    tools.check_added(record)
    said = record.of(events.ModelResponse)
    assert len(said) == 2
    assert all(event.first_token_ns > 0 for event in said)


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_denied(client: Any, record: Recorded, how: str) -> None:
    made = agent(client("forbidden"), [tools.add, tools.forbidden], how)
    tools.check_denied(record, await run(made))


async def test_denied_where_errors_are_raised(client: Any, record: Recorded) -> None:
    made = agent(client("forbidden"), [])
    made.tools = [function_tool(tools.forbidden, failure_error_function=None)]
    tools.check_denied(record, await run(made))


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_failure_is_an_error_though_the_model_reads_a_text(
    client: Any, record: Recorded, how: str
) -> None:
    told = await run(agent(client("fail"), [tools.fail], how))
    assert "error" in told.lower()
    tools.check_failed(record)


async def test_arguments_that_do_not_fit(client: Any, record: Recorded) -> None:
    await run(agent(client("unfit"), [tools.add]))
    assert record.of(events.ToolReturned)[0].status == "error"
    assert tools.ran == []


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_halted_inside_a_tool_gets_out(client: Any, record: Recorded, how: str) -> None:
    with pytest.raises(Halted):
        await run(agent(client("stop"), [tools.stop], how))
    assert record.of(events.ToolReturned)[0].status == "cancelled"
    assert len(record.of(events.ModelRequest)) == 1


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_halted_before_a_tool_gets_out(client: Any, record: Recorded, how: str) -> None:
    await tools.check_halted_between(record, lambda: run(agent(client("add"), [tools.add], how)))


async def test_own_tool_inside_is_one_call(client: Any, record: Recorded) -> None:
    made = agent(client("add"), [checkrein_tool(tools.add, kind="read")])
    assert await run(made) == "it said: 5"
    tools.check_added(record)
