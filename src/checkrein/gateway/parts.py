"""The protocols that a gateway speaks, each a part of its own."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from checkrein.gateway.app import Route
from checkrein.gateway.decide import part as decide
from checkrein.gateway.gate import Gate


class Part(Protocol):
    """One protocol. It may keep connections open until `close`."""

    @property
    def routes(self) -> list[Route]: ...

    async def close(self) -> None: ...


OpenPart = Callable[[Gate], Awaitable[Part]]

PARTS: list[OpenPart] = [decide.open_part]
