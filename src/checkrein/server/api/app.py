"""The HTTP application: routes by subject, one way of saying what went wrong."""

import logging
from typing import Any

from litestar import Litestar, Request, Response
from litestar.di import Provide
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme

from checkrein.server.api import routes
from checkrein.server.api.controls import ControlAway
from checkrein.server.api.history import HistoryAway, HistoryError
from checkrein.server.api.problems import Problem, ProblemBody
from checkrein.server.api.services import Services
from checkrein.server.api.strict import BODY_BYTES_MAX

_log = logging.getLogger(__name__)
_READ = "See /api/openapi.json for what can be asked."


def build(services: Services) -> Litestar:
    """The application without its door (`door.Door` goes around it)."""
    return Litestar(
        route_handlers=routes.ALL,
        dependencies={"services": Provide(lambda: services, sync_to_thread=False)},
        exception_handlers={
            Problem: _problem,
            HTTPException: _http,
            HistoryAway: _away,
            ControlAway: _away,
            HistoryError: _refused,
            Exception: _unexpected,
        },
        openapi_config=OpenAPIConfig(
            title="Checkrein",
            version="1",
            description="Watch AI agents while they run, and stop them. Times named `_at` and `ts` "
            "are nanoseconds since 1970. Errors are `{error, detail, do}`.",
            path="/api",
            render_plugins=[routes.OPENAPI_JSON],
            use_handler_docstrings=True,
            components=Components(
                security_schemes={"operator": SecurityScheme(type="http", scheme="bearer")}
            ),
            security=[{"operator": []}],
        ),
        request_max_body_size=BODY_BYTES_MAX,
        logging_config=None,
        debug=False,
    )


def _answer(status: int, body: ProblemBody) -> Response[ProblemBody]:
    return Response(body, status_code=status, media_type="application/json")


def _problem(_: Request[Any, Any, Any], problem: Problem) -> Response[ProblemBody]:
    return _answer(problem.status, problem.body)


def _http(_: Request[Any, Any, Any], error: HTTPException) -> Response[ProblemBody]:
    detail = error.detail
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        detail = "; ".join(_place(entry) for entry in error.extra) or detail
    word = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(
        error.status_code, "bad_request"
    )
    if error.status_code >= 500:
        _log.error("answering a request failed: %s", error)
        word, detail = "internal", "something went wrong here; it is in the server's log"
    return _answer(error.status_code, ProblemBody(error=word, detail=detail, do=_READ))


def _place(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    return f"{entry.get('key', 'body')}: {entry.get('message', 'is wrong')}"


def _away(_: Request[Any, Any, Any], error: Exception) -> Response[ProblemBody]:
    do = "Ask again in a moment; `checkrein doctor` says what is not running."
    return _answer(503, ProblemBody(error="unready", detail=str(error), do=do))


def _refused(_: Request[Any, Any, Any], error: Exception) -> Response[ProblemBody]:
    return _answer(400, ProblemBody(error="bad_query", detail=str(error), do=_READ))


def _unexpected(_: Request[Any, Any, Any], error: Exception) -> Response[ProblemBody]:
    _log.error("answering a request failed", exc_info=error)
    body = ProblemBody(
        error="internal",
        detail="something went wrong here; it is in the server's log",
        do="If it happens again, please report it with the log.",
    )
    return _answer(500, body)
