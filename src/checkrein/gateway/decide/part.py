"""The decision service as a part of the gateway."""

import asyncio
from contextlib import suppress

from checkrein.gateway.app import Route
from checkrein.gateway.decide.service import Service
from checkrein.gateway.decide.words import shape
from checkrein.gateway.gate import Gate

SWEEP_S = 10.0


class DecidePart:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.service = Service(gate)
        self.routes = [Route("/decide", self.service.handle, shape)]
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def close(self) -> None:
        self._sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await self._sweeping
        self.service.close()

    async def _sweep(self) -> None:
        while True:
            await self._gate.world.sleep(SWEEP_S)
            self.service.sweep()


async def open_part(gate: Gate) -> DecidePart:
    return DecidePart(gate)
