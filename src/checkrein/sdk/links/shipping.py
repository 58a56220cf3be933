"""What the bus link needs of the shipper."""

from pathlib import Path
from typing import Any

from checkrein.bus.types import Bus
from checkrein.sdk.links.bus import Shipping


def shipping_of(root: Path, recorder: Any) -> Shipping:
    return _Idle()


class _Idle:
    """Events stay in the recorder."""

    async def run(self, bus: Bus) -> None:
        import asyncio

        await asyncio.Event().wait()

    async def drain(self, seconds: float) -> None:
        return None
