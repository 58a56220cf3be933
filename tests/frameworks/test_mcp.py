"""The official MCP client inside an instrumented agent."""

from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from checkrein.events import types as events
from checkrein.sdk.calls import ToolCall
from checkrein.sdk.errors import Denied
from tests.recorded import Recorded, recorded

seen: list[dict[str, Any]] = []


@pytest.fixture
def server() -> MCPServer[Any]:
    seen.clear()
    server: MCPServer[Any] = MCPServer("tools")

    @server.tool()
    def add(a: int, b: int, ctx: Context[Any, Any]) -> int:
        seen.append(dict(ctx.request_context.meta or {}))
        return a + b

    @server.tool()
    def fail() -> str:
        raise ToolError("no such order")

    @server.tool()
    def forbidden() -> str:
        seen.append({})
        return "done"

    return server


async def test_a_call_is_recorded_once_and_says_which_it_is(
    server: MCPServer[Any], record: Recorded
) -> None:
    async with Client(server) as client:
        result = await client.call_tool("add", {"a": 2, "b": 3}, meta={"mine": 1})
    assert result.structured_content == {"result": 5}
    (returned,) = record.of(events.ToolReturned)
    assert (returned.tool, returned.status, returned.result) == ("add", "ok", {"result": 5})
    assert seen[0]["checkrein/call"] == returned.call_id
    assert seen[0]["checkrein/run"] == returned.run_id
    assert seen[0]["mine"] == 1


async def test_a_tools_own_error_and_a_refusal(server: MCPServer[Any], record: Recorded) -> None:
    async with Client(server) as client:
        assert (await client.call_tool("fail", {})).is_error
        with pytest.raises(Denied):
            await client.call_tool("forbidden", {})
    assert [event.status for event in record.of(events.ToolReturned)] == ["error", "denied"]
    assert seen == []


@pytest.mark.parametrize("known_as", ["add", "tools_add", "mcp.add"])
async def test_a_call_that_a_framework_has_begun_is_the_same_one(
    server: MCPServer[Any], tmp_path: Path, known_as: str
) -> None:
    with recorded(tmp_path) as record:
        outer = await ToolCall.abegin(known_as, {"a": 2, "b": 3}, call_id="call_7")
        async with Client(server) as client:
            await client.call_tool("add", {"a": 2, "b": 3})
        outer.end(5)
    assert len(record.of(events.ToolInvoked)) == 1
    assert seen[0]["checkrein/call"] == "call_7"
