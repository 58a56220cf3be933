"""An upstream that answers with any bytes whatever, one way or another."""

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Write = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Upstream:
    """`requests` are what came, head and body. `answers` are taken one by one; the last repeats."""

    url: str = ""
    answers: list[bytes | Write] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        try:
            await self._answer(reader, writer)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            writer.transport.abort()
            self.closed.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [
                line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
            ]
            size = int(lengths[0].split(b":")[1]) if lengths else 0
            self.requests.append(head + await reader.readexactly(size))
            given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(given, bytes):
                writer.write(given)
                await writer.drain()
            else:
                await given(writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def raw_upstream(*answers: bytes | Write) -> AsyncIterator[Upstream]:
    found = Upstream(answers=list(answers))
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()
        for task in list(found.tasks):
            task.cancel()
        await asyncio.sleep(0)
        await asyncio.gather(*found.tasks, return_exceptions=True)


def answer(
    body: bytes, kind: str = "application/json", status: str = "200 OK", length: int | None = None,
    **headers: str,
) -> bytes:  # fmt: skip
    """A whole answer; `length` other than the body's own lies."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {size}\r\n{more}\r\n"
    return head.encode() + body


def stream(*events: bytes, whole: bool = True) -> bytes:
    """A streamed answer, each event a chunk; `whole` False: without the last, empty one."""
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    return head + chunks + (b"0\r\n\r\n" if whole else b"")


def bomb(size: int) -> bytes:
    """Packs `size` blanks, a piece at a time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    piece = b" " * 65536
    return b"".join(packer.compress(piece) for _ in range(size // len(piece))) + packer.flush()
