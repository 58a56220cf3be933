"""A gate with the MCP part, in front of a tool server."""

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from checkrein.gateway.mcp.part import McpPart, open_part
from checkrein.gateway.settings import McpServer, Settings
from tests.gateway.conftest import GateHouse, Gates
from tests.gateway.mcp.server import Calls, serving

STDIO = (sys.executable, "-m", "tests.gateway.mcp.server")
MODES = ("legacy", "2026-07-28")


class McpHouse:
    """`url` is the gateway's; `calls` what the tool server saw (of one by HTTP)."""

    def __init__(self, house: GateHouse, part: McpPart, url: str, calls: Calls) -> None:
        self.house, self.part, self.url, self.calls = house, part, url, calls
        self.key = house.agent()

    def client(
        self, mode: str = "legacy", name: str = "tools", key: str = "", **more: Any
    ) -> AbstractAsyncContextManager[Client]:
        """The official client, pointed at the gateway with nothing else changed."""
        return _client(f"{self.url}/mcp/{name}", key or self.key, mode, more)

    async def post(
        self, body: bytes, name: str = "tools", key: str = "", **headers: str
    ) -> tuple[int, Any]:
        """One message as bytes; the status and the message that comes back."""
        head = {"authorization": f"Bearer {key or self.key}", "content-type": "application/json"}
        async with httpx2.AsyncClient(timeout=20) as http:
            answer = await http.post(
                f"{self.url}/mcp/{name}", content=body, headers={**head, **headers}
            )
        return answer.status_code, json.loads(answer.content) if answer.content else None

    def events(self, kind: str) -> list[dict[str, Any]]:
        return self.house.of(kind)


@asynccontextmanager
async def _client(url: str, key: str, mode: str, more: dict[str, Any]) -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(headers=headers, timeout=20) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode, **more) as client:
            yield client


McpHouses = Callable[..., AbstractAsyncContextManager[McpHouse]]


@pytest.fixture
async def mcp_house(gates: Gates) -> McpHouses:
    """`async with mcp_house(pact=…, stdio=True, **settings of the server) as house`."""

    @asynccontextmanager
    async def make(
        pact: str = "", stdio: bool = False, url: str = "", options: Any = None, **more: Any
    ) -> AsyncIterator[McpHouse]:
        calls = Calls()
        async with serving(calls, **(options or {})) as served:
            where = {"command": STDIO} if stdio else {"url": url or served}
            server = McpServer(name="tools", **where, **more)
            house = gates(settings=Settings(mcp={"tools": server}), pact=pact)
            part = await open_part(house.gate)
            try:
                async with house.serving(part.routes) as front:
                    yield McpHouse(house, part, front, calls)
            finally:
                await part.close()

    return make
