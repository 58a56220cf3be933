"""The protocols that a gateway speaks, each a part of its own."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from checkrein.gateway.app import Route
from checkrein.gateway.decide import part as decide
from checkrein.gateway.gate import Gate
from checkrein.gateway.mcp import part as mcp
from checkrein.gateway.models.part import open_models


class Part(Protocol):
    """One protocol. It may keep connections open until `close`."""

    @property
    def routes(self) -> list[Route]: ...

    async def close(self) -> None: ...


OpenPart = Callable[[Gate], Awaitable[Part]]

PARTS: list[OpenPart] = [open_models, mcp.open_part, decide.open_part]
