"""The answer to one POST: one message, or a stream when there is more to say or it takes long."""

import asyncio

from checkrein.gateway.mcp import rpc, sse
from checkrein.gateway.mcp.rpc import Message
from checkrein.gateway.types import Cut, Refusal
from checkrein.gateway.wire import Answer

PING_S = 15.0
"""After so long without a word a stream says that it is still there: proxies give up on silence."""
_STATUS_TOLD = frozenset(
    {"unauthenticated", "no_session", "bad_request", "too_large", "no_route", "busy"}
)


class Reply:
    """`ident` None: a stream of the server's, which answers nothing. `modern`: the status of the
    answer tells what kind of error it is."""

    def __init__(self, answer: Answer, ident: rpc.Id | None, modern: bool = False) -> None:
        self._answer, self._ident, self._modern = answer, ident, modern
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(PING_S, self._due)
        self._pinging: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """From now on it is a stream."""
        if not self._answer.begun:
            await self._answer.begin(200, sse.HEADERS)

    async def also(self, message: Message) -> None:
        """Something of the server's before the answer."""
        await self.open()
        await self._answer.piece(sse.frame(message))

    async def end(self, message: Message, headers: dict[str, str] | None = None) -> None:
        self.close()
        if self._answer.begun:
            await self._answer.end(sse.frame(message))
        else:
            status = rpc.status_of(message) if self._modern else 200
            await self._whole(status, message, headers)

    async def refuse(self, refusal: Refusal, to_agent: bool) -> None:
        """The no in the shape that reaches whom it is for."""
        if to_agent and refusal.code in rpc.FOR_THE_AGENT and not isinstance(refusal, Cut):
            await self.end(rpc.refused_to_agent(self._ident, refusal))
            return
        self.close()
        message = rpc.refused(self._ident, refusal)
        if self._answer.begun:
            await self._answer.end(sse.frame(message) if self._ident is not None else b"")
        else:
            told = refusal.code in _STATUS_TOLD or self._ident is None
            await self._whole(refusal.status if told else 200, message, None)

    def close(self) -> None:
        self._timer.cancel()

    async def _whole(self, status: int, message: Message, headers: dict[str, str] | None) -> None:
        head = {"content-type": "application/json"} | (headers or {})
        await self._answer.whole(status, rpc.encode(message), head)

    def _due(self) -> None:
        self._timer = self._loop.call_later(PING_S, self._due)
        self._pinging = asyncio.ensure_future(self._ping())

    async def _ping(self) -> None:
        if not self._answer.ended:
            await self.open()
            await self._answer.piece(sse.PING)
