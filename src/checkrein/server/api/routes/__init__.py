"""The routes, one file a subject."""

from litestar.openapi.plugins import JsonRenderPlugin
from litestar.types import ControllerRouterHandler

from checkrein.server.api.routes import (
    approvals,
    commands,
    coverage,
    events,
    incidents,
    pacts,
    runs,
    sessions,
    stream,
    system,
    tokens,
)

OPENAPI_JSON = JsonRenderPlugin(path="/openapi.json")

ALL: list[ControllerRouterHandler] = [
    *runs.ROUTES,
    *coverage.ROUTES,
    *events.ROUTES,
    *incidents.ROUTES,
    *commands.ROUTES,
    *approvals.ROUTES,
    *pacts.ROUTES,
    *sessions.ROUTES,
    *tokens.ROUTES,
    *stream.ROUTES,
    *system.ROUTES,
]
