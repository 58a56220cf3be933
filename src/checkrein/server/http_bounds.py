"""HTTP/1.1 whose heads are bounded, in bytes and in time: uvicorn itself reads one for ever, from
whoever connects."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX = 128 * 1024
"""Of the request line and all headers, and what one read brings more."""
HEAD_S = 30.0
"""A head that is not whole after so long, or twice that at most, is given up."""


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._in_head = self._begun = True
        self._head_bytes = 0
        self._heads = self._ends = 0
        self._heads_then = -1
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._heads, self._ends
        super().data_received(data)
        if self._in_head and (self._heads, self._ends) == before:  # not the end of a body
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self.send_400_response(f"The headers are over {HEAD_BYTES_MAX} bytes.")

    def on_message_begin(self) -> None:
        self._begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._heads += 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._ends += 1
        self._in_head, self._begun, self._head_bytes = True, False, 0
        super().on_message_complete()

    def _look(self) -> None:
        if self._in_head and self._begun and self._heads == self._heads_then:
            self.transport.close()
            return
        self._heads_then = self._heads
        self._timer = self.loop.call_later(HEAD_S, self._look)
