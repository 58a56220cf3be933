"""The model protocols as a part of the gateway: /openai/v1/… and /anthropic/v1/…"""

from checkrein.gateway.app import Route
from checkrein.gateway.gate import Gate
from checkrein.gateway.models import shapes
from checkrein.gateway.models.serving import Serving
from checkrein.gateway.models.upstream import Upstreams


class Models:
    """As `parts.Part`."""

    def __init__(self, gate: Gate) -> None:
        self._upstreams = Upstreams(gate.settings, gate.world)
        serving = Serving(gate, self._upstreams)
        self.routes = [
            Route("/openai", serving.openai, shapes.openai),
            Route("/anthropic", serving.anthropic, shapes.anthropic),
        ]

    async def close(self) -> None:
        await self._upstreams.close()


async def open_models(gate: Gate) -> Models:
    """Raises SettingsError."""
    return Models(gate)
