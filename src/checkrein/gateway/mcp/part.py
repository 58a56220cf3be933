"""MCP as a part of the gateway: opened with it, closed with it."""

import asyncio
from functools import partial

from checkrein.gateway.app import Route
from checkrein.gateway.gate import Gate
from checkrein.gateway.mcp import http, rpc, tunnel
from checkrein.gateway.mcp.desk import Desk, way_out
from checkrein.gateway.mcp.pins import Pins
from checkrein.gateway.mcp.tunnel import Tunnels
from checkrein.gateway.types import Refusal


class McpPart:
    def __init__(self, gate: Gate, pins: Pins) -> None:
        self._desk = Desk(gate, pins, way_out(gate))
        self._tunnels = Tunnels(self._desk)
        self._beside = [
            asyncio.ensure_future(pins.follow()), asyncio.ensure_future(self._desk.sweep()),
        ]  # fmt: skip
        self.routes = [
            Route(http.PREFIX, partial(http.handle, self._desk), shape),
            Route(tunnel.PREFIX, self._tunnels.handle, shape),
        ]

    async def close(self) -> None:
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        await self._tunnels.close()
        await self._desk.close()


async def open_part(gate: Gate) -> McpPart:
    """Raises BusError."""
    pins = Pins(gate.world, gate.open_bucket)
    await pins.open()
    return McpPart(gate, pins)


def shape(refusal: Refusal) -> object:
    """A refusal of what was no request that could be read."""
    return rpc.refused(None, refusal)
