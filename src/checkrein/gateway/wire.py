"""HTTP as the gateway's handlers see it: a request that is read with bounds, an answer that is
written piece by piece. Over ASGI, so that the server below is a library's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from checkrein.gateway.types import Refusal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_BYTES_MAX = 32 * 1024 * 1024
BODY_S = 120.0
"""So long a body may take to come; slower ones only keep a connection open."""
_json = msgspec.json.Encoder().encode


class Request:
    """One request. `headers`: names in lower case; of a name sent twice, the first counts (what a
    proxy must not see twice is refused: `content-length`, `authorization`, `host`)."""

    __slots__ = ("_receive", "headers", "method", "path", "peer", "query")

    _ONCE = frozenset(
        ("content-length", "authorization", "host", "x-api-key", "api-key", "content-type")
    )

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method = str(scope["method"])
        self.path = str(scope["path"])
        self.query = bytes(scope.get("query_string", b"")).decode("latin-1")
        self.peer: tuple[str, int] | None = scope.get("client")
        self._receive = receive
        self.headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name = raw_name.decode("latin-1")
            if name not in self.headers:
                self.headers[name] = raw_value.decode("latin-1")
            elif name in self._ONCE:
                raise Refusal(400, "bad_request", f"the header {name} was sent twice")

    async def body(self, bytes_max: int = BODY_BYTES_MAX) -> bytes:
        """All of it. Raises Refusal: too large, too slow, or cut off."""
        try:
            async with asyncio.timeout(BODY_S):
                return await self._body(bytes_max)
        except TimeoutError:
            raise Refusal(
                408, "bad_request", f"the body was not whole within {BODY_S:g} s"
            ) from None

    async def _body(self, bytes_max: int) -> bytes:
        length = self.headers.get("content-length", "")
        if length and (not length.isdigit() or int(length) > bytes_max):
            raise Refusal(413, "too_large", f"the body is over {bytes_max} bytes")
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "bad_request", "the connection closed before the body was whole")
            part = message.get("body", b"")
            size += len(part)
            if size > bytes_max:
                raise Refusal(413, "too_large", f"the body is over {bytes_max} bytes")
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, until it ends or whoever asked has hung up."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body", False):
                return

    async def gone(self) -> None:
        """Returns when whoever asked has hung up. Only after the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


class Answer:
    """The answer to one request. `begun`: its head has been sent, so no other can be."""

    __slots__ = ("_send", "begun", "ended")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self.ended = False

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        self.begun = True
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def piece(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        self.ended = True
        await self._send({"type": "http.response.body", "body": data})

    async def whole(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        await self.begin(status, headers | {"content-length": str(len(data))})
        await self.end(data)

    async def json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        head = {"content-type": "application/json"} | (headers or {})
        await self.whole(status, _json(value), head)


async def first_of(work: Awaitable[None], hung_up: Awaitable[None]) -> None:
    """Does the work unless whoever asked hangs up first: then it is cancelled, and with it whatever
    it has open upstream. What the work raises is raised."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(hung_up)
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return
        working.cancel()
        await asyncio.wait((working,))
        failed = None if working.cancelled() else working.exception()
        if failed is not None and not isinstance(failed, Refusal):
            raise failed  # of a refusal there is nobody left to tell
    finally:
        watching.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))
