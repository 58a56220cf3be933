"""One agent, and one tool server, leave room for others."""

import json

import httpx2
import pytest

from checkrein.gateway.mcp import desk, pins, tunnel
from checkrein.gateway.mcp.pins import Pins
from checkrein.gateway.types import Refusal
from checkrein.world import REAL
from tests.gateway.mcp.conftest import McpHouse, McpHouses

BEGIN = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}  # fmt: skip


async def begin(house: McpHouse, key: str = "") -> int:
    accept = {"accept": "application/json, text/event-stream"}
    status, _ = await house.post(json.dumps(BEGIN).encode(), key=key, **accept)
    return status


@pytest.mark.parametrize("bound", ["AGENT_SESSIONS_MAX", "AGENT_CHILDREN_MAX"])
async def test_one_agents_sessions_and_children(
    mcp_house: McpHouses, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(desk, bound, 1)
    async with mcp_house(stdio=True) as house:
        assert await begin(house) == 200
        assert await begin(house) == 429
        assert await begin(house, house.house.agent("other")) == 200


async def test_one_agents_names_of_servers(
    mcp_house: McpHouses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "AGENT_NAMES_MAX", 1)

    async with mcp_house() as house, httpx2.AsyncClient() as http:

        async def opened(name: str, key: str) -> int:
            head = {"authorization": f"Bearer {key}"}
            return (await http.post(f"{house.url}/mcp-stdio/{name}", headers=head)).status_code

        assert [await opened(name, house.key) for name in "aba"] == [200, 429, 200]
        assert await opened("b", house.house.agent("other")) == 200


async def test_tools_that_are_always_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "SERVER_PINS_MAX", 2)
    kept = Pins(REAL, None)

    async def listed(server: str, *names: str) -> int:
        tools = [{"name": name, "inputSchema": {}} for name in names]
        return len(await kept.look(server, tools, False, "bot", "run"))

    assert await listed("s", "a", "b") == 2
    with pytest.raises(Refusal, match="listed over 2 tools"):
        await listed("s", "c")
    assert await listed("s", "a", "b") == 2
    assert await listed("other", "c") == 1
