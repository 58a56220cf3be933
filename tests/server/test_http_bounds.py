"""A head that never ends is given up; a connection that only rests between requests is not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from checkrein.server import http_bounds
from checkrein.server.http_bounds import BoundedHttp

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    config.load()
    state = uvicorn.server.ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedHttp(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()
        await server.wait_closed()


async def test_a_head_over_its_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_bounds, "HEAD_BYTES_MAX", 1_000)
    async with connected() as (reader, writer):
        writer.write(HEAD + b"x-long: " + b"y" * 1_000)
        assert b"400 Bad Request" in await reader.read()


@pytest.mark.parametrize("given", [b"", HEAD, HEAD + b"\r\n" + HEAD])
async def test_a_head_that_does_not_come_is_given_up(
    monkeypatch: pytest.MonkeyPatch, given: bytes
) -> None:
    monkeypatch.setattr(http_bounds, "HEAD_S", 0.02)
    async with connected() as (reader, writer):
        writer.write(given)
        async with asyncio.timeout(10):
            assert (await reader.read()).count(b"200 OK") == given.count(b"\r\n\r\n")


async def test_a_connection_may_rest_between_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_bounds, "HEAD_S", 0.01)
    async with connected() as (reader, writer):
        for _ in range(2):
            writer.write(HEAD + b"\r\n")
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.05)


async def test_a_body_of_any_size_is_no_head() -> None:
    async with connected() as (reader, writer):
        for size in (http_bounds.HEAD_BYTES_MAX * 4, 10):
            head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n"
            writer.write(head.encode() + b"x" * size)
            await writer.drain()
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert answer.startswith(b"HTTP/1.1 200 ")
