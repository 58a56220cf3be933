"""The decision service as a part of the gateway."""

import asyncio
from contextlib import suppress

from checkrein.gateway.app import Route
from checkrein.gateway.decide import agentgateway, litellm
from checkrein.gateway.decide.guardrails import Guardrails
from checkrein.gateway.decide.service import Service
from checkrein.gateway.decide.words import shape
from checkrein.gateway.gate import Gate

SWEEP_S = 10.0


class DecidePart:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.service = Service(gate)
        self.guardrails = Guardrails(gate)
        self.agentgateway = agentgateway.AgentGateway(gate, self.guardrails)
        handlers = litellm.LiteLlm(self.guardrails)
        self.routes = [
            Route("/decide", self.service.handle, shape),
            Route(litellm.PREFIX, handlers.handle, litellm.shape),
            Route(agentgateway.PREFIX, self.agentgateway.handle, agentgateway.shape),
        ]
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def close(self) -> None:
        self._sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await self._sweeping
        for each in (self.service, self.guardrails, self.agentgateway):
            each.close()

    async def _sweep(self) -> None:
        while True:
            await self._gate.world.sleep(SWEEP_S)
            for each in (self.service, self.guardrails, self.agentgateway):
                each.sweep()


async def open_part(gate: Gate) -> DecidePart:
    return DecidePart(gate)
