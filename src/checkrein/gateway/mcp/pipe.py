"""A tool server by lines of JSON: a child of ours, or one that a proxy has started elsewhere.

Ids and progress tokens of several clients would meet on the one line, so each request gets an id of
ours on its way there, and its own back.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from checkrein.gateway.mcp import rpc
from checkrein.gateway.mcp.link import Also, failed, too_late
from checkrein.gateway.mcp.rpc import Message
from checkrein.gateway.types import Refusal

PENDING_MAX = 256
TELL_S = 2.0
STRAYS_MAX = 256
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
Write = Callable[[bytes], Awaitable[None]]
"""Takes one line, without its end. Raises OSError when nobody reads any more."""


@dataclass
class _Pending:
    message: Message
    token: Any
    also: Also
    answer: "asyncio.Future[Message]"
    heard_at: float


class PipeLink:
    """`took(line)` is fed by whoever reads the server's lines; `broke(why)` ends it."""

    def __init__(self, name: str, timeout_s: float, write: Write) -> None:
        self._name, self._timeout_s, self._write = name, timeout_s, write
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._strays: asyncio.Queue[Message | None] = asyncio.Queue(STRAYS_MAX)
        self._listens = False
        self.broken = ""
        self.used_at = asyncio.get_running_loop().time()
        self.stray: Also | None = None
        """Where to, with what is said outside of any request, when nobody listens."""
        self.list_changed: Callable[[], None] = _nothing

    @property
    def busy(self) -> bool:
        return bool(self._pending) or self._listens

    async def request(self, message: Message, also: Also, schema: Any = None) -> Message:
        if self.broken:
            raise failed(self._name, self.broken)
        if len(self._pending) >= PENDING_MAX:
            raise Refusal(503, "busy", f"over {PENDING_MAX} requests wait for {self._name}")
        loop = asyncio.get_running_loop()
        ident, token = next(self._ids), rpc.meta_of(message).get("progressToken")
        pending = _Pending(message, token, also, loop.create_future(), loop.time())
        self._pending[ident] = pending
        self.used_at = pending.heard_at
        try:
            await self._say(_renamed(message, ident, token))
            return await self._answer(pending)
        except (asyncio.CancelledError, Refusal):
            if not pending.answer.done() or pending.answer.cancelled():
                await self._tell_cancelled(ident)
            raise
        finally:
            self._pending.pop(ident, None)

    async def send(self, message: Message) -> None:
        if self.broken:
            raise failed(self._name, self.broken)
        await self._say(message)

    async def listen(self, also: Also, opened: Callable[[], Awaitable[None]]) -> None:
        if self._listens:
            raise Refusal(409, "bad_request", "one stream a session is enough")
        self._listens = True
        try:
            await opened()
            while not self.broken:
                said = await self._strays.get()
                if said is not None:
                    await also(said)
        finally:
            self._listens = False

    async def close(self) -> None:
        self.broke("its session is over")

    def broke(self, why: str) -> None:
        """Nothing comes any more: whoever waits is told. Once."""
        if self.broken:
            return
        self.broken = why
        for pending in self._pending.values():
            if not pending.answer.done():
                pending.answer.set_exception(failed(self._name, why))
        if not self._strays.full():
            self._strays.put_nowait(None)

    async def took(self, line: bytes) -> None:
        """One line of the server's. A line that is no message is the server's failure: what waits
        for it fails in its time. Raises Refusal for it, so that it can be told."""
        said = rpc.read(line)
        if rpc.is_answer(said):
            pending = self._pending.get(said["id"]) if type(said.get("id")) is int else None
            if pending is not None and not pending.answer.done():
                pending.answer.set_result(said | {"id": pending.message["id"]})
            return
        if said["method"] == "notifications/tools/list_changed":
            self.list_changed()
        found = self._concerned(said)
        if found is not None:
            found[0].heard_at = asyncio.get_running_loop().time()
            await found[0].also(found[1])
        elif self._listens:
            if not self._strays.full():
                self._strays.put_nowait(said)
        elif self.stray is not None:
            await self.stray(said)
        elif self._pending:
            await next(reversed(self._pending.values())).also(said)

    def _concerned(self, said: Message) -> tuple[_Pending, Message] | None:
        """The request that a notification belongs to, and that as its client knows it."""
        params = rpc.params_of(said)
        token = params.get("progressToken")
        if token is not None and type(token) is int and token in self._pending:
            pending = self._pending[token]
            return pending, said | {"params": params | {"progressToken": pending.token}}
        meta = rpc.meta_of(said)
        subscription = meta.get(SUBSCRIPTION)
        if type(subscription) is int and subscription in self._pending:
            pending = self._pending[subscription]
            named = meta | {SUBSCRIPTION: pending.message["id"]}
            return pending, said | {"params": params | {"_meta": named}}
        return None

    async def _answer(self, pending: _Pending) -> Message:
        """Waits as long as the server is heard of; a subscription may be silent for ever."""
        if pending.message["method"] == "subscriptions/listen":
            return await pending.answer
        loop = asyncio.get_running_loop()
        while True:
            left = pending.heard_at + self._timeout_s - loop.time()
            if left <= 0:
                raise too_late(self._name, self._timeout_s)
            done, _ = await asyncio.wait((pending.answer,), timeout=left)
            if done:
                return pending.answer.result()

    async def _tell_cancelled(self, ident: int) -> None:
        note = {
            "jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": {"requestId": ident, "reason": "cut off at the gateway"},
        }  # fmt: skip
        with suppress(Refusal, TimeoutError):
            async with asyncio.timeout(TELL_S):
                await self._say(note)

    async def _say(self, message: Message) -> None:
        try:
            await self._write(rpc.encode(message))
        except (OSError, RuntimeError) as error:
            self.broke(f"it does not read any more ({type(error).__name__})")
            raise failed(self._name, self.broken) from error


def _nothing() -> None:
    """Nobody wants to know."""


def _renamed(message: Message, ident: int, token: Any) -> Message:
    if token is None:
        return message | {"id": ident}
    params = rpc.params_of(message)
    meta = rpc.meta_of(message) | {"progressToken": ident}
    return message | {"id": ident, "params": params | {"_meta": meta}}
