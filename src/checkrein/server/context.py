"""What a role is given when it starts. Each role is one async function in its own file:

    async def run(context: RoleContext) -> None

It calls `context.ready()` once it can serve, works until `context.stop` is set, then finishes what
it has begun and returns. It raises to say that it cannot go on; `up` starts it again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkrein.bus.types import Bus
from checkrein.world import World


@dataclass(frozen=True)
class RoleContext:
    world: World
    role: str
    data: Path
    """The data folder: `keys/`, `store/`, `bus/`, `control/`; a role writes below `data / role`."""
    bus: Bus
    control_bus: Bus
    stop: asyncio.Event
    ready: Callable[[], None]
    store_url: str = ""
    http: tuple[str, int] = ("127.0.0.1", 4400)
    gateway: tuple[str, int] = ("127.0.0.1", 4401)
    has_gateway: bool = False
    """Whether a gateway belongs to this installation: without it nothing is ready."""
    bus_urls: tuple[str, ...] = ()
    control_urls: tuple[str, ...] = ()
    config: dict[str, Any] | None = None
