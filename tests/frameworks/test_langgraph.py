"""LangGraph: sync and async graphs, both providers' chat models, the halt matrix."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_anthropic import _client_utils as anthropic_clients
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI
from langchain_openai.chat_models import _client_utils as openai_clients
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from checkrein.events import types as events
from checkrein.sdk.errors import Denied, Halted
from checkrein.sdk.tool import tool as checkrein_tool
from checkrein.server.demo.models import ModelServer
from tests.frameworks import tools
from tests.recorded import Recorded, ambient

Run = Callable[..., Any]


@pytest.fixture
async def model_of(models: ModelServer) -> AsyncIterator[Run]:
    """Makes a chat model for a script. LangChain keeps its connections for the whole process; here
    each test has a loop of its own, so they are closed and forgotten."""
    made: list[Any] = []

    def make(script: str, provider: str = "openai", streaming: bool = False) -> Any:
        if provider == "anthropic":
            made.append(
                ChatAnthropic(
                    model_name="claude-haiku-4-5",
                    base_url=models.url,
                    api_key=f"scripted:{script}",  # type: ignore[arg-type] # becomes a secret
                    streaming=streaming,
                    timeout=10,
                    stop=None,
                )
            )
        else:
            made.append(
                ChatOpenAI(
                    model="gpt-5-mini",
                    base_url=f"{models.url}/v1",
                    api_key=f"scripted:{script}",  # type: ignore[arg-type] # becomes a secret
                    streaming=streaming,
                    use_responses_api=provider == "responses",
                )
            )
        return made[-1]

    yield make
    for model in made:
        if isinstance(model, ChatAnthropic):
            model._client.close()
            await model._async_client.close()
        else:
            model.root_client.close()
            await model.root_async_client.close()
    openai_clients._cached_sync_httpx_client.cache_clear()
    openai_clients._cached_async_httpx_client.cache_clear()
    anthropic_clients._get_default_httpx_client.cache_clear()
    anthropic_clients._get_default_async_httpx_client.cache_clear()


def graph(model: Any, functions: list[Any], **node: Any) -> Any:
    made = [StructuredTool.from_function(f) for f in functions]
    bound = model.bind_tools(made)

    def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [bound.invoke(state["messages"])]}

    async def athink(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    from langchain_core.runnables import RunnableLambda

    builder = StateGraph(MessagesState)
    builder.add_node("think", RunnableLambda(think, athink))
    builder.add_node("tools", ToolNode(made, **node))
    builder.add_edge(START, "think")
    builder.add_conditional_edges("think", tools_condition, {"tools": "tools", END: END})
    builder.add_edge("tools", "think")
    return builder.compile()


async def run(made: Any, how: str) -> str:
    asked = {"messages": [("user", "go")]}
    if how == "sync":
        answer = made.invoke(asked)
    else:
        answer = await made.ainvoke(asked)
    return str(answer["messages"][-1].content)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    tools.ran.clear()


@pytest.mark.parametrize("provider", ["openai", "responses", "anthropic"])
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("how", ["sync", "async"])
async def test_call(
    model_of: Run, record: Recorded, how: str, provider: str, streaming: bool
) -> None:
    made = graph(model_of("add", provider, streaming), [tools.add])
    assert "it said: 5" in await run(made, how)
    tools.check_added(record)
    asked, said = record.of(events.ModelRequest), record.of(events.ModelResponse)
    assert [event.stream for event in asked] == [streaming, streaming]
    assert asked[0].tools == ["add"]
    assert said[0].tool_calls[0]["name"] == "add"
    assert said[0].tool_calls[0]["id"] == record.of(events.ToolSelected)[0].call_id
    assert all(event.input_tokens > 0 and event.output_tokens > 0 for event in said)


@pytest.mark.parametrize("node", [{}, {"handle_tool_errors": True}])
@pytest.mark.parametrize("how", ["sync", "async"])
async def test_denied(model_of: Run, record: Recorded, how: str, node: dict[str, Any]) -> None:
    made = graph(model_of("forbidden", "openai"), [tools.add, tools.forbidden], **node)
    tools.check_denied(record, await run(made, how))


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_a_programs_own_call_is_denied_by_an_error(record: Recorded, how: str) -> None:
    made = StructuredTool.from_function(tools.forbidden)

    async def call() -> None:
        if how == "sync":
            made.invoke({"what": "all"})
        else:
            await made.ainvoke({"what": "all"})

    with pytest.raises(Denied, match="not in the pact"):
        await call()
    assert tools.ran == []


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_failure_default(model_of: Run, record: Recorded, how: str) -> None:
    made = graph(model_of("fail", "openai"), [tools.fail])
    with pytest.raises(ValueError, match="too small"):
        await run(made, how)
    tools.check_failed(record)


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_failure_handled(model_of: Run, record: Recorded, how: str) -> None:
    made = graph(model_of("fail", "openai"), [tools.fail], handle_tool_errors=True)
    assert "too small" in await run(made, how)
    tools.check_failed(record)


async def test_tool_that_does_not_exist(model_of: Run, record: Recorded) -> None:
    made = graph(model_of("unknown", "openai"), [tools.add])
    told = await run(made, "async")
    assert "did you mean" in told.lower()
    assert record.of(events.ScopeDecision)[0].rule == "tools.unknown"
    assert record.of(events.ToolReturned)[0].status == "denied"


@pytest.mark.parametrize("node", [{}, {"handle_tool_errors": True}])
@pytest.mark.parametrize("how", ["sync", "async"])
async def test_halted_inside_a_tool_gets_out(
    model_of: Run, record: Recorded, how: str, node: dict[str, Any]
) -> None:
    made = graph(model_of("stop", "openai"), [tools.stop], **node)
    with pytest.raises(Halted):
        await run(made, how)
    assert record.of(events.ToolReturned)[0].status == "cancelled"
    assert len(record.of(events.ModelRequest)) == 1


@pytest.mark.parametrize("node", [{}, {"handle_tool_errors": True}])
@pytest.mark.parametrize("how", ["sync", "async"])
async def test_halted_before_a_tool_gets_out(
    model_of: Run, record: Recorded, how: str, node: dict[str, Any]
) -> None:
    model = model_of("add", "openai")
    made = graph(model, [tools.add], **node)
    await tools.check_halted_between(record, lambda: run(made, how))


async def test_own_tool_inside_is_one_call(model_of: Run, record: Recorded) -> None:
    made = graph(model_of("add", "openai"), [checkrein_tool(tools.add, kind="read")])
    assert "it said: 5" in await run(made, "sync")
    tools.check_added(record)


async def test_many_at_once_keep_apart(model_of: Run, record: Recorded) -> None:
    made = graph(model_of("add", "openai"), [tools.add])
    answers = await asyncio.gather(*(run(made, "async") for _ in range(2)))
    assert all("it said: 5" in answer for answer in answers)
    assert record.types("tool.").count("tool.returned") == 2
    assert ambient().calls_in_flight() == []
