"""The routes, one file a subject."""

from litestar.openapi.plugins import JsonRenderPlugin
from litestar.types import ControllerRouterHandler

from checkrein.server.api.routes import (
    agents,
    approvals,
    commands,
    coverage,
    events,
    incidents,
    mcp_tools,
    pacts,
    run_tokens,
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
    *mcp_tools.ROUTES,
    *pacts.ROUTES,
    *sessions.ROUTES,
    *tokens.ROUTES,
    *agents.ROUTES,
    *run_tokens.ROUTES,
    *stream.ROUTES,
    *system.ROUTES,
]
