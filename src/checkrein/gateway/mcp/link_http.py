"""A tool server by streamable HTTP: one POST for each message, its answer as JSON or as a stream.

The address is the operator's; nothing is followed away from it, nothing is unpacked, and what comes
is bounded while it comes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp

from checkrein.gateway.mcp import headers, rpc, sse
from checkrein.gateway.mcp.link import Also, SessionGone, failed, too_late
from checkrein.gateway.mcp.rpc import Message
from checkrein.gateway.settings import McpServer
from checkrein.gateway.types import Refusal

TELL_S = 2.0
"""So long a server may take to hear that a call was cancelled, or that its session is over."""
_BOTH = "application/json, text/event-stream"


class HttpLink:
    """`session` "" until the server gives one; `version` as it was settled by `initialize`."""

    def __init__(
        self, server: McpServer, http: aiohttp.ClientSession, key: Callable[[], str]
    ) -> None:
        self._server, self._http, self._key = server, http, key
        self.session = ""
        self.version = ""

    async def request(self, message: Message, also: Also, schema: Any = None) -> Message:
        try:
            return await self._request(message, also, schema)
        except asyncio.CancelledError:
            if not headers.is_modern(message) and message["method"] != "initialize":
                await self._cancelled(message)
            raise

    async def send(self, message: Message) -> None:
        async with self._asked("POST", message, self._headers(message, None)) as answer:
            if answer.status >= 300:
                raise self._status(answer.status)

    async def listen(self, also: Also, opened: Callable[[], Awaitable[None]]) -> None:
        head = self._headers(None, None) | {"Accept": "text/event-stream"}
        async with self._asked("GET", None, head, forever=True) as answer:
            if answer.status in (404, 405) or answer.content_type != "text/event-stream":
                raise Refusal(405, "no_stream", f"{self._server.name} has no stream of its own")
            if answer.status != 200:
                raise self._status(answer.status)
            await opened()
            async for data in self._events(answer):
                await also(rpc.read(data))

    async def close(self) -> None:
        if not self.session:
            return
        with suppress(Refusal, TimeoutError):
            async with asyncio.timeout(TELL_S):
                async with self._asked("DELETE", None, self._headers(None, None)):
                    pass
        self.session = ""

    async def _request(self, message: Message, also: Also, schema: Any) -> Message:
        async with self._asked("POST", message, self._headers(message, schema)) as answer:
            if 300 <= answer.status < 400:
                raise failed(self._server.name, "it leads somewhere else, which is not followed")
            if answer.status == 404 and self.session:
                raise SessionGone(self._server.name)
            if answer.status not in (200, 400, 404):
                raise self._status(answer.status)
            kind = answer.content_type
            if kind == "application/json":
                said = rpc.read(await self._whole(answer))
                found: Message | None = _answer_to(message, said)
            elif kind == "text/event-stream" and answer.status == 200:
                found = await self._streamed(message, answer, also)
            else:
                raise self._status(answer.status, kind)
        if found is None:
            raise failed(self._server.name, "its answer ended before it was whole")
        if message["method"] == "initialize" and "result" in found:
            self.session = answer.headers.get(headers.SESSION_HEADER, "")[:256]
            agreed = found["result"]
            version = agreed.get("protocolVersion", "") if isinstance(agreed, dict) else ""
            self.version = str(version)
        return found

    async def _streamed(
        self, message: Message, answer: aiohttp.ClientResponse, also: Also
    ) -> Message | None:
        async for data in self._events(answer):
            said = rpc.read(data)
            if rpc.is_answer(said):
                if said.get("id") == message["id"]:
                    return said
            else:
                await also(said)
        return None

    async def _cancelled(self, message: Message) -> None:
        """Closing the stream is no cancelling in revisions with sessions: the server is told."""
        note = {
            "jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": {"requestId": message["id"], "reason": "cut off at the gateway"},
        }  # fmt: skip
        with suppress(Refusal, TimeoutError):
            async with asyncio.timeout(TELL_S):
                await self.send(note)

    def _headers(self, message: Message | None, schema: Any) -> dict[str, str]:
        found = {"Accept": _BOTH, "Accept-Encoding": "identity"}
        key = self._key()
        if key:
            found["Authorization"] = f"Bearer {key}"
        if message is not None:
            found["Content-Type"] = "application/json"
            if headers.is_modern(message):
                return found | headers.mirrored(message, schema)
        if self.session:
            found["Mcp-Session-Id"] = self.session
        if self.version:
            found["MCP-Protocol-Version"] = self.version
        return found

    @asynccontextmanager
    async def _asked(
        self, method: str, message: Message | None, head: Mapping[str, str], forever: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        name, seconds = self._server.name, self._server.timeout_s
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=5.0, sock_read=None if forever else seconds
        )
        data = rpc.encode(message) if message is not None else None
        try:
            async with self._http.request(
                method, self._server.url, data=data, headers=head, timeout=timeout,
                allow_redirects=False,
            ) as answer:  # fmt: skip
                if answer.headers.get("content-encoding", "identity") != "identity":
                    raise failed(name, "it is packed, which was not asked for")
                yield answer
        except TimeoutError as error:
            raise too_late(name, seconds) from error
        except (aiohttp.ClientError, OSError, sse.TooLarge, ValueError) as error:
            why = f"over {rpc.MESSAGE_BYTES_MAX} bytes" if isinstance(error, sse.TooLarge) else (
                f"{type(error).__name__}: {error}"[:300]
            )  # fmt: skip
            raise failed(name, why) from error
        except Refusal as refusal:  # what it said was no message
            if refusal.code in ("bad_request", "too_large"):
                raise failed(name, refusal.reason) from refusal
            raise

    async def _whole(self, answer: aiohttp.ClientResponse) -> bytes:
        found = bytearray()
        async for piece in answer.content.iter_any():
            found += piece
            if len(found) > rpc.MESSAGE_BYTES_MAX:
                raise sse.TooLarge
        return bytes(found)

    def _events(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        return sse.events(answer.content.iter_any())

    def _status(self, status: int, kind: str = "") -> Refusal:
        shown = f" with {kind[:80]}" if kind else ""
        return failed(self._server.name, f"it answered {status}{shown}")


def _answer_to(message: Message, said: Message) -> Message:
    """What a server says in one piece answers the one request, whatever id it gives an error."""
    if not rpc.is_answer(said) or ("result" in said and said.get("id") != message["id"]):
        raise Refusal(400, "bad_request", "it answered something else than was asked")
    return said | {"id": message["id"]}
