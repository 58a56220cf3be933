"""The door: what every request passes before any route sees it.

1. The Host must be a name of ours, so that no foreign name can be pointed at us (DNS rebinding).
2. An Origin, when a browser sends one, must be ours too, so that no foreign page can ask.
3. Everything but what OPEN names needs a token as `Authorization: Bearer …`: the operator's, one
   that was made for somebody, an agent's key, or an identity provider's; it may do what its role
   may (`roles`).
4. A body is bounded, and JSON is strict.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from checkrein.server.api import token
from checkrein.server.api.metrics import Metrics
from checkrein.server.api.problems import BadRequest, Forbidden, Problem, TooLarge, Unauthorised
from checkrein.server.api.roles import OWNER, Identity, allowed, may
from checkrein.server.api.strict import BODY_BYTES_MAX, check_json
from checkrein.world import World

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]
Identify = Callable[[str], Awaitable[Identity | None]]
"""Whose token it is; None: nobody's. Raises Problem to say why not."""

OPEN = frozenset(("/healthz", "/metrics", "/api", "/api/openapi.json"))
"""What is told to anybody. A path is compared as it was sent: what the router would read as one of
them, but is written in another way, needs the token."""
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
_SUBJECTS = frozenset(
    ("runs", "tasks", "events", "incidents", "commands", "agents", "rooms", "pacts", "sessions",
     "tokens", "run-tokens", "approvals", "escalations", "mcp-tools", "status", "stream",
     "contents", "healthz", "metrics")
)  # fmt: skip


class Door:
    """An ASGI application around another. Holds no state of its own."""

    def __init__(
        self, inner: App, operator_token: str, names: Iterable[str], world: World, metrics: Metrics,
        identify: Identify,
    ) -> None:  # fmt: skip
        self._inner, self._token, self._world, self._metrics = (
            inner, operator_token, world, metrics,
        )  # fmt: skip
        self._identify = identify
        self._names = frozenset(name.lower() for name in (*LOOPBACK_NAMES, *names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        begun = self._world.monotonic_ns()
        status = [500]

        async def noting(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        try:
            receive = await self._pass(scope, receive)
            await self._inner(scope, receive, noting)
        except Problem as problem:
            await _refuse(problem, noting)
        finally:
            self._note(scope, status[0], (self._world.monotonic_ns() - begun) / 1e9)

    async def _pass(self, scope: Scope, receive: Receive) -> Receive:
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        self._check_host(headers.get("host", b"").decode("latin-1"))
        self._check_origin(headers.get("origin"))
        path = str(scope["path"])
        if path not in OPEN:
            identity = await self._check_token(headers.get("authorization", b""))
            if not may(identity, str(scope["method"]), path):
                raise _may_not(identity, str(scope["method"]), path)
            scope.setdefault("state", {})["identity"] = identity
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return receive
        body = await _whole_body(headers.get("content-length"), receive)
        check_json(body)
        return _again(body, receive)

    def _check_host(self, host: str) -> None:
        if _host_name(f"//{host}") not in self._names:
            raise Forbidden(
                f"this server does not answer to the name {host[:100]!r}",
                "Use the address that `checkrein up` prints.",
                "wrong_host",
            )

    def _check_origin(self, origin: bytes | None) -> None:
        if origin is not None and _host_name(origin.decode("latin-1")) not in self._names:
            raise Forbidden(
                f"a page from {origin[:100].decode('latin-1')!r} may not ask this server",
                "Use the page that this server serves, or the terminal.",
                "wrong_origin",
            )

    async def _check_token(self, header: bytes) -> Identity:
        kind, _, given = header.decode("latin-1").partition(" ")
        if kind.lower() == "bearer":
            if token.matches(self._token, given.strip()):
                return OWNER
            found = await self._identify(given.strip())
            if found is not None:
                return found
        raise Unauthorised(
            "the token is wrong" if given else "no token was sent",
            "Send `Authorization: Bearer TOKEN`; `checkrein up` keeps the operator's token in "
            f"DATA/{token.FILE_NAME} (for the terminal: --token or CHECKREIN_TOKEN).",
        )

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        parts = str(scope["path"]).strip("/").split("/")
        named = parts[2] if parts[:2] == ["api", "v1"] and len(parts) > 2 else parts[0]
        subject = named if named in _SUBJECTS else "other"
        self._metrics.count(
            "checkrein_http_requests_total",
            labels=(("method", scope["method"][:8]), ("status", str(status)), ("to", subject)),
        )
        if subject != "stream":
            self._metrics.observe("checkrein_http_seconds", seconds, (("to", subject),))


def _may_not(identity: Identity, method: str, path: str) -> Forbidden:
    may_do = ", ".join(sorted(allowed(method, path)))
    if identity.agent:
        said = f"this is the key of agent {identity.agent!r}: it opens the agent's own sessions"
    else:
        said = f"{identity.name!r} is {', '.join(sorted(identity.roles))}: it may not do this"
    return Forbidden(said, f"Ask somebody who may ({may_do}); `checkrein token list` shows who.")


def _host_name(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


async def _whole_body(length: bytes | None, receive: Receive) -> bytes:
    """The body, given up as soon as it is known to be over the limit."""
    if length is not None:
        if not length.isdigit():
            raise BadRequest("Content-Length is not a number", "Send its length in bytes.")
        _check_size(int(length))
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("the connection closed before the body was whole", "Send it again.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        _check_size(size)
        more = message.get("more_body", False)
    return b"".join(parts)


def _check_size(size: int) -> None:
    if size > BODY_BYTES_MAX:
        raise TooLarge(
            f"the body is over {BODY_BYTES_MAX} bytes", "Send less at once.",
        )  # fmt: skip


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, then whatever comes."""
    given = False

    async def replay() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(problem: Problem, send: Send) -> None:
    body = msgspec.json.encode(problem.body)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if problem.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="checkrein"'))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
