"""What the bus link ships: this process's recorder, and those that dead processes have left."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from checkrein.bus.types import Bus
from checkrein.sdk import quiet
from checkrein.sdk.aside import aside
from checkrein.world import REAL, World

if TYPE_CHECKING:
    from checkrein.sdk.recorder import Recorder
    from checkrein.sdk.shipper import Shipper

LEFTOVERS_S = 30.0


class Shipping(Protocol):
    """What brings recorded events to the events bus."""

    async def run(self, bus: Bus, agents: set[str], stop: asyncio.Event) -> None:
        """Ships what this process records, and what dead processes left for these agents, until
        `stop` is set."""

    async def drain(self, seconds: float) -> None:
        """Waits until the bus has all that is recorded now, for at most `seconds`."""


class RingShipping:
    """Ships the rings in a folder with `sdk.shipper`."""

    def __init__(self, root: Path, recorder: "Recorder", world: World = REAL) -> None:
        self._root = root
        self._recorder = recorder
        self._world = world
        self._shipper: Shipper | None = None

    async def run(self, bus: Bus, agents: set[str], stop: asyncio.Event) -> None:
        from checkrein.sdk.reader import RingReader
        from checkrein.sdk.ring import RingError
        from checkrein.sdk.shipper import Shipper

        shipper = self._shipper = Shipper([], bus, self._world)
        try:
            async with asyncio.TaskGroup() as group:
                shipping = group.create_task(shipper.run(stop))
                if self._recorder.open():
                    try:
                        shipper.add(RingReader(self._recorder.directory), self._recorder)
                    except RingError as error:
                        quiet.fault("reading our own recorder", error)
                looking = group.create_task(self._look(shipper, agents))
                await shipping
                looking.cancel()
        finally:
            self._shipper = None

    async def drain(self, seconds: float) -> None:
        if self._shipper is not None:
            await self._shipper.flush(seconds)

    async def _look(self, shipper: "Shipper", agents: set[str]) -> None:
        """Takes up what dead processes of these agents left; another process may be quicker."""
        from checkrein.sdk.reader import RingReader, find_recorders
        from checkrein.sdk.ring import RingError

        while True:
            for found in await aside(find_recorders, self._root):
                known = found.meta.recorder in shipper.recorders
                if not found.alive and not known and found.meta.agent in agents:
                    with suppress(RingError):
                        shipper.add(RingReader(found.directory))
            await self._world.sleep(LEFTOVERS_S)


class NoShipping:
    """Events stay where they are recorded."""

    async def run(self, bus: Bus, agents: set[str], stop: asyncio.Event) -> None:
        await stop.wait()

    async def drain(self, seconds: float) -> None:
        return None
