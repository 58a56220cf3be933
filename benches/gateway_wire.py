"""Both ends of the gateway's benchmarks, as cheap as they can be: a provider that always answers
the same, and a client that measures. As a program it is the provider, and prints its port:

    python -m benches.gateway_wire
"""

import asyncio
import contextlib
import json
import socket
import sys
import time
from typing import Any

CHUNKS = 50
PACE_S = 0.002
_HEAD = "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{length}\r\n"


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def completion() -> bytes:
    """An answer of about 1 kB."""
    message = {"role": "assistant", "content": "the parcel has arrived. " * 30, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 120, "completion_tokens": 180, "total_tokens": 300}
    return _json({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1760000000, "model": "gpt-5",
        "system_fingerprint": "fp", "choices": [choice], "usage": usage,
    })  # fmt: skip


def pieces(count: int) -> list[bytes]:
    """A streamed answer, event by event."""
    frame = {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1760000000,
        "model": "gpt-5", "system_fingerprint": "fp",
    }  # fmt: skip

    def event(delta: dict[str, Any], finish: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return b"data: " + _json(frame | {"choices": [choice]}) + b"\n\n"

    words = [event({"content": " parcel"}, None) for _ in range(count)]
    return [*words, event({}, "stop") + b"data: [DONE]\n\n"]


def asking(stream: bool = False, chunks: int = CHUNKS) -> bytes:
    """A request of about 2 kB. The provider streams `chunks` pieces."""
    messages = [
        {"role": "system", "content": "You resolve tickets. " * 20},
        {"role": "user", "content": "Where is my parcel? " * 60},
    ]
    more = {"stream": True, "user": f"chunks-{chunks}"} if stream else {}
    return _json({"model": "gpt-5", "messages": messages, "max_tokens": 300} | more)


class Provider(asyncio.Protocol):
    """Answers requests whose length is told, one after another."""

    def __init__(self) -> None:
        self._left = b""
        self._transport: Any = None
        whole = completion()
        head = _HEAD.format(kind="application/json", length=f"content-length: {len(whole)}\r\n")
        self._whole = head.encode() + whole
        head = _HEAD.format(kind="text/event-stream", length="transfer-encoding: chunked\r\n")
        self._stream_head = head.encode()
        self._streaming: set[asyncio.Future[None]] = set()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._left += data
        while (end := self._left.find(b"\r\n\r\n")) >= 0:
            head = self._left[:end].lower()
            at = head.index(b"content-length:") + 15
            size = int(head[at:].split(b"\r\n", 1)[0])
            if len(self._left) < end + 4 + size:
                return
            body = self._left[end + 4 : end + 4 + size]
            self._left = self._left[end + 4 + size :]
            if b'"stream":true' in body:
                count = int(body[body.index(b"chunks-") + 7 :].split(b'"', 1)[0])
                flowing = asyncio.ensure_future(self._flow(pieces(count)))
                self._streaming.add(flowing)
                flowing.add_done_callback(self._streaming.discard)
            else:
                self._transport.write(self._whole)

    async def _flow(self, events: list[bytes]) -> None:
        head = self._stream_head
        for event in events:
            if self._transport.is_closing():
                return
            self._transport.write(head + b"%x\r\n%b\r\n" % (len(event), event))
            head = b""
            await asyncio.sleep(PACE_S)
        self._transport.write(b"0\r\n\r\n")


class Caller(asyncio.Protocol):
    """One connection that asks again and again. `first_ns` and `whole_ns` are each answer's."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._transport: Any = None
        self._parts: list[bytes] = []
        self._began = 0
        self._chunked = False
        self._wanted = -1
        self._have = 0
        self._done: asyncio.Future[None] | None = None
        self.first_ns: list[int] = []
        self.whole_ns: list[int] = []

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    async def ask(self) -> None:
        """Raises ConnectionError for anything but an answer 200."""
        self._done = asyncio.get_running_loop().create_future()
        self._wanted, self._have = -1, 0
        self._parts.clear()
        self._began = time.perf_counter_ns()
        self._transport.write(self._request)
        await self._done

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        if self._wanted < 0:
            head, found, body = b"".join(self._parts).partition(b"\r\n\r\n")
            if not found:
                return
            head = head.lower()
            if b" 200 " not in head[:20]:
                self._end(ConnectionError((head + body)[:500].decode(errors="replace")))
                return
            self._chunked = b"transfer-encoding: chunked" in head
            at = -1 if self._chunked else head.index(b"content-length:") + 15
            self._wanted = 0 if self._chunked else int(head[at:].split(b"\r\n", 1)[0])
            self._have = len(body)
            if body:
                self._first()
        else:
            if not self._have:
                self._first()
            self._have += len(data)
        if self._chunked:
            if data.endswith(b"0\r\n\r\n"):
                self._end(None)
        elif self._have >= self._wanted:
            self._end(None)

    def _first(self) -> None:
        self.first_ns.append(time.perf_counter_ns() - self._began)

    def _end(self, error: Exception | None) -> None:
        self.whole_ns.append(time.perf_counter_ns() - self._began)
        if self._done is not None and not self._done.done():
            if error is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(error)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or ConnectionError("the connection was closed"))

    def close(self) -> None:
        self._done = None
        self._transport.close()


def http_request(port: int, path: str, key: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\naccept: application/json\r\n"
        f"user-agent: bench\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def load(
    port: int, request: bytes, connections: int, calls: int
) -> tuple[list[Caller], float]:
    """So many calls over so many connections; the callers, and the seconds that it took."""
    loop = asyncio.get_running_loop()
    callers = []
    for _ in range(connections):
        _, caller = await loop.create_connection(lambda: Caller(request), "127.0.0.1", port)
        callers.append(caller)

    async def work(caller: Caller, count: int) -> None:
        for _ in range(count):
            await caller.ask()

    began = time.perf_counter()
    await asyncio.gather(*(work(caller, calls // connections) for caller in callers))
    seconds = time.perf_counter() - began
    for caller in callers:
        caller.close()
    return callers, seconds


async def _serve() -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = await asyncio.get_running_loop().create_server(Provider, sock=listener)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    with (
        contextlib.suppress(KeyboardInterrupt),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_serve())
