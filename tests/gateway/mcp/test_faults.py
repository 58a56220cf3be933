"""Tool servers that lie, break off, stall or change: the client gets a clean no, and soon."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import MCPError

from checkrein.gateway.mcp.rpc import MESSAGE_BYTES_MAX
from tests.conftest import within
from tests.gateway.mcp.conftest import McpHouse, McpHouses

TOOL = {"name": "echo", "description": "Says it.", "inputSchema": {"type": "object"}}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
RESULT = {"content": [{"type": "text", "text": "said"}], "resultType": "complete"}
Answering = Callable[[dict[str, Any], asyncio.StreamWriter], Any]


def whole(value: Any, kind: str = "application/json", status: str = "200 OK") -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    if kind == "text/event-stream":
        body = b"event: message\ndata: " + body + b"\n\n"
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def answer(message: dict[str, Any], result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


@asynccontextmanager
async def raw_server(call: Answering, tool: dict[str, Any] | None = None) -> AsyncIterator[str]:
    """Lists one tool as it should, and answers its calls byte by byte as the test says."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            message = json.loads(await reader.readexactly(length))
            if message["method"] == "tools/list":
                writer.write(whole(answer(message, {"tools": [tool or TOOL]})))
            else:
                found = call(message, writer)
                if found is not None:
                    await found
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    finally:
        server.close()


async def call(house: McpHouse, agent: str = "", **arguments: Any) -> Any:
    """One call, by an agent of its own where the guard would tire of an agent that goes on."""
    ident, key = 1, house.house.agent(agent) if agent else ""
    params = {"name": "echo", "arguments": arguments, "_meta": META}
    body = {"jsonrpc": "2.0", "id": ident, "method": "tools/call", "params": params}
    status, found = await house.post(json.dumps(body).encode(), key=key)
    assert status == 200
    assert found["id"] == ident
    return found


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_an_answer_cut_at_any_byte_is_a_clean_error(mcp_house: McpHouses, kind: str) -> None:
    cut = [0]
    sent = whole(answer({"id": 1}, RESULT), kind)

    def broken(message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(sent[: cut[0]])

    async with raw_server(broken) as url, mcp_house(url=url) as house:
        for cut[0] in range(0, len(sent), 11):
            found = await call(house, f"agent-{cut[0]}")
            assert found["error"]["data"]["code"] == "upstream_failed", cut
        cut[0] = len(sent)
        assert (await call(house))["result"]["content"] == RESULT["content"]
        statuses = [event.get("status", "ok") for event in house.events("tool.returned")]
        assert set(statuses[:-1]) == {"error"}
        assert statuses[-1] == "ok"


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (whole(b"<html>no</html>", "text/html"), "text/html"),
        (whole(answer({"id": 2}, RESULT)), "something else than was asked"),
        (whole(b'{"jsonrpc":"2.0","id":1,"result":{},"result":{}}'), "stands twice"),
        (whole(b'{"jsonrpc":"2.0","id":1,"result":{"a":NaN}}'), "NaN"),
        (whole(b'{"jsonrpc":"2.0","id":1,"result":{"a":"\\ud800"}}'), "half of a character"),
        (whole(b"[1]"), "a batch"),
        (whole(b"x", status="500 No"), "answered 500"),
        (whole(b"", status="302 Found\r\nlocation: http://169.254.169.254/"), "somewhere else"),
        (whole(b" " * (MESSAGE_BYTES_MAX + 9)), "over 4194304 bytes"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n"
            b"content-length: 40\r\n\r\n" + gzip.compress(b"0" * 1_000)[:40],
            "it is packed",
        ),
        (whole(answer({"id": 1}, [])), "no object"),
        (whole(answer({"id": 1}, {"content": "text"})), "no list"),
    ],
)
async def test_an_answer_that_is_none_does_not_pass(
    mcp_house: McpHouses, sent: bytes, why: str
) -> None:
    async with (
        raw_server(lambda message, writer: writer.write(sent)) as url,
        mcp_house(url=url) as house,
    ):
        found = await call(house)
        told = (
            found["error"]["message"] if "error" in found else found["result"]["content"][0]["text"]
        )
        assert why in told


async def test_a_stalled_server_is_not_waited_for(mcp_house: McpHouses) -> None:
    def stall(message: dict[str, Any], writer: asyncio.StreamWriter) -> Any:
        return asyncio.sleep(30)

    async with raw_server(stall) as url, mcp_house(url=url, timeout_s=0.2) as house:
        assert (await call(house))["error"]["data"]["code"] == "upstream_timeout"


async def test_a_result_must_fit_the_schema_that_was_promised(mcp_house: McpHouses) -> None:
    schema = {"type": "object", "properties": {"total": {"type": "integer"}}}
    given: list[Any] = [{"total": "many"}, None, {"total": 5}]

    def answering(message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        value = given[message["params"]["arguments"]["n"]]
        result = RESULT | ({"structuredContent": value} if value is not None else {})
        writer.write(whole(answer(message, result)))

    tool = TOOL | {"outputSchema": schema}
    async with raw_server(answering, tool) as url, mcp_house(url=url) as house:
        wrong, missing, right = [await call(house, n=n) for n in range(3)]
        assert wrong["result"]["isError"] is True
        assert "$.total" in wrong["result"]["content"][0]["text"]
        assert "no structured content" in missing["result"]["content"][0]["text"]
        assert right["result"]["structuredContent"] == {"total": 5}


async def test_a_changed_tool_is_held_within_one_call(mcp_house: McpHouses) -> None:
    """By a client that lists again, and by one that never does."""
    async with mcp_house() as house:
        async with house.client("legacy") as client:
            await client.list_tools()
            assert not (await client.call_tool("echo", {"text": "a"})).is_error
            await client.call_tool("rewrite", {"name": "echo"})
            names = {tool.name for tool in (await client.list_tools(cache_mode="bypass")).tools}
            assert "echo" not in names
            refused = await client.call_tool("echo", {"text": "b"})
            assert refused.is_error
            assert refused.meta is not None
            assert refused.meta["checkrein/refusal"]["code"] == "changed"
            await client.call_tool("rewrite", {"name": "add"})
        for catalogue in [shared.catalogue for shared in house.part._desk._shared.values()]:
            catalogue._listed_ns = 0
        async with house.client("legacy") as client:
            assert (await client.call_tool("add", {"a": 1, "b": 2})).is_error
        told = [e for e in house.events("scope.decision") if e["rule"] == "mcp.changed"]
        assert {e["action"]["name"] for e in told} == {"echo", "add"}
        assert len(house.events("escalation.raised")) == 2
        assert house.calls.made == [("echo", "a")]


async def test_changes_may_be_trusted(mcp_house: McpHouses) -> None:
    async with mcp_house(trust_changes=True) as house, house.client("legacy") as client:
        await client.list_tools()
        await client.call_tool("rewrite", {"name": "echo"})
        listed = await client.list_tools(cache_mode="bypass")
        assert "echo" in {tool.name for tool in listed.tools}
        assert not (await client.call_tool("echo", {"text": "b"})).is_error


async def test_a_child_that_dies_in_a_call_ends_the_session_cleanly(mcp_house: McpHouses) -> None:
    async with mcp_house(stdio=True) as house:
        async with house.client("legacy") as client:
            with pytest.raises(MCPError, match="it has ended"):
                await client.call_tool("die", {})
            with pytest.raises(MCPError):
                await client.call_tool("echo", {"text": "x"})
        async with house.client("2026-07-28") as client:
            with pytest.raises(MCPError, match="it has ended"):
                await client.call_tool("die", {})
            assert not (await client.call_tool("echo", {"text": "x"})).is_error, "a new one"
        await within(5, lambda: len(house.part._desk._children) <= 1)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', "stands twice"),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', "a batch"),
        (b'{"id":1,"method":"ping"}', "jsonrpc"),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', "`id`"),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', "`params`"),
        (b"{", "JSON"),
        (b"\xff", "JSON"),
    ],
)
async def test_what_is_no_message_is_refused(mcp_house: McpHouses, body: bytes, why: str) -> None:
    async with mcp_house() as house:
        status, found = await house.post(body)
        assert status == 400
        assert why in found["error"]["message"]


async def test_what_is_not_known_is_not_passed(mcp_house: McpHouses) -> None:
    async with mcp_house() as house:
        params = {"_meta": META}
        for method, code in (("tasks/result", -32601), ("evil/do", -32601)):
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            _, found = await house.post(json.dumps(body).encode())
            assert found["error"]["code"] == code
        unknown = await call(house, n=1)
        assert "error" in unknown or unknown["result"].get("isError")
