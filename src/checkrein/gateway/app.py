"""Which handler answers: the first part of the path is the protocol.

/openai/v1/…   /anthropic/v1/…   /mcp/NAME   /decide…   /healthz
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from checkrein.gateway.gate import Gate
from checkrein.gateway.types import Refusal
from checkrein.gateway.wire import Answer, Receive, Request, Scope, Send

_log = logging.getLogger(__name__)

Handler = Callable[[Gate, Request, Answer], Awaitable[None]]
"""Answers one request. May raise Refusal before the answer has begun."""
Shape = Callable[[Refusal], object]
"""A refusal as a protocol's clients read it: a JSON object."""


class Route:
    """`shape` None: the handler tells refusals itself."""

    def __init__(self, prefix: str, handler: Handler, shape: Shape | None = None) -> None:
        self.prefix = prefix
        self.handler = handler
        self.shape = shape or plain


def plain(refusal: Refusal) -> object:
    """A refusal outside of any protocol."""
    found = {
        "code": refusal.code, "message": refusal.text, "rule": refusal.rule,
        "advice": refusal.advice, "by": refusal.by, "appeal": refusal.appeal,
    }  # fmt: skip
    return {"error": {name: value for name, value in found.items() if value}}


class App:
    """The ASGI application. An error of ours is told as a refusal without its inside, and logged
    with it: what could not be judged does not pass."""

    def __init__(self, gate: Gate, routes: list[Route]) -> None:
        self._gate = gate
        self._routes = sorted(routes, key=lambda route: -len(route.prefix))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answer = Answer(send)
        shape: Shape = plain
        try:
            request = Request(scope, receive)
            if request.path == "/healthz":
                await answer.json(200, {"status": "ok", "in_flight": self._gate.fence.in_flight})
                return
            route = self._route(request.path)
            shape = route.shape
            await route.handler(self._gate, request, answer)
        except Refusal as refusal:
            await self._refuse(answer, shape, refusal)
        except asyncio.CancelledError:
            raise
        except Exception:
            _log.exception("a request to %s failed", scope.get("path"))
            failed = Refusal(500, "guard_error", "the gateway failed, so no: see its log")
            await self._refuse(answer, shape, failed)

    def _route(self, path: str) -> Route:
        for route in self._routes:
            if path == route.prefix or path.startswith(route.prefix + "/"):
                return route
        known = ", ".join(sorted(route.prefix for route in self._routes))
        raise Refusal(404, "no_route", f"{path[:200]} is no path of the gateway: there are {known}")

    async def _refuse(self, answer: Answer, shape: Shape, refusal: Refusal) -> None:
        """An answer that has begun is broken off by whoever began it; nothing is added here."""
        if answer.begun:
            if not answer.ended:
                await answer.end()
            return
        headers = {"x-should-retry": "false"} if refusal.status < 500 else {}
        if refusal.retry_after_s is not None:
            headers["retry-after"] = str(round(refusal.retry_after_s))
        await answer.json(refusal.status, self._gate.known.plain(shape(refusal)), headers)
