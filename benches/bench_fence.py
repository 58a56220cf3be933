"""How fast is an agent shut out at the gateway, and what is in flight cut?

A real `up`, 64 connections of one agent that stream all the while from a made-up provider, and one
more that asks again and again. Measured from the moment the command is sent to the api: until the
first call is refused, and until each of the streams has ended. The agent uses its own key, so
nobody but the gateway stops it.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benches.gateway_house import add_agent, post, request_of
from benches.harness import Row
from benches.whole import percentile, whole
from tests.system import System, eventually

QUESTION = "How long from contain or halt to the first refusal, and until all streams are cut?"
STREAMS = 64
ROUNDS = 8
TARGET_MS = 50.0
PACE_S = 0.05
_BODY = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "go"}]}
_CHUNK = {
    "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-5-mini",
    "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}],
}  # fmt: skip
_WHOLE = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5-mini",
    "choices": [{"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": "word"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip


def run() -> list[Row]:
    before = dict(os.environ)
    try:
        return asyncio.run(_measured())
    finally:
        os.environ.clear()
        os.environ.update(before)


async def _measured() -> list[Row]:
    async with _provider() as port:
        os.environ |= {
            "CHECKREIN_OPENAI_UPSTREAM": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "k",
        }  # fmt: skip
        opened = whole()
        running = await asyncio.to_thread(opened.__enter__)
        try:
            return [row for verb in ("contain", "halt") for row in await _rows(running, verb)]
        finally:
            await asyncio.to_thread(opened.__exit__, None, None, None)


async def _rows(running: System, verb: str) -> list[Row]:
    refused: list[float] = []
    cut: list[float] = []
    for number in range(ROUNDS):
        first, ends = await _round(running, verb, f"{verb}-{number}")
        refused.append(first)
        cut += ends
    return [
        Row(name=f"{verb}: first refusal, p99", measured=percentile(refused, 0.99), unit="ms",
            target=TARGET_MS, note=f"{ROUNDS} rounds; p50 {percentile(refused, 0.5):.1f}"),
        Row(name=f"{verb}: {STREAMS} streams cut, p99", measured=percentile(cut, 0.99), unit="ms",
            target=TARGET_MS, note=f"{len(cut)} streams; p50 {percentile(cut, 0.5):.1f}"),
    ]  # fmt: skip


async def _round(running: System, verb: str, agent: str) -> tuple[float, list[float]]:
    """Milliseconds to the first refusal, and to the end of each stream."""
    key = await asyncio.to_thread(add_agent, running, agent)
    ready, flowing = asyncio.Event(), [0]
    async with asyncio.TaskGroup() as group:
        streams = [
            group.create_task(_stream(running.gateway_port, key, flowing, ready))
            for _ in range(STREAMS)
        ]
        async with asyncio.timeout(60):
            await ready.wait()
        asking = group.create_task(_until_refused(running.gateway_port, key))
        await asyncio.to_thread(eventually, lambda: _listed(running, agent), 20, "it is listed")
        await asyncio.sleep(0.2)
        command = {"verb": verb, "target": f"agent:{agent}", "reason": "bench", "wait_ms": 5000}
        began = time.perf_counter()
        state = await asyncio.to_thread(post, running, "/api/v1/commands", command)
    if state["runs"][0]["confirmed"] != "gateway":
        raise RuntimeError(f"nobody confirmed it: {state}")
    ends = [(task.result() - began) * 1e3 for task in streams]
    return (asking.result() - began) * 1e3, ends


def _listed(running: System, agent: str) -> bool:
    return any(run["agent"] == agent and run["live"] for run in running.get("/api/v1/runs"))


async def _stream(port: int, key: str, flowing: list[int], ready: asyncio.Event) -> float:
    """When the stream ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request_of("/openai/v1/chat/completions", key, {**_BODY, "stream": True}))
    await reader.readuntil(b"word ")
    flowing[0] += 1
    if flowing[0] == STREAMS:
        ready.set()
    while True:
        data = await reader.read(65536)
        if not data or b"error" in data:
            break
    ended = time.perf_counter()
    writer.close()
    return ended


async def _until_refused(port: int, key: str) -> float:
    """When the first call was refused."""
    request = request_of("/openai/v1/chat/completions", key, _BODY, "connection: close")
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        if not answer.startswith(b"HTTP/1.1 200"):
            return time.perf_counter()
        await asyncio.sleep(0.002)


@asynccontextmanager
async def _provider() -> AsyncIterator[int]:
    """Streams without end, at a pace, or answers at once."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            body = json.loads(await reader.readexactly(length))
            if body.get("stream"):
                await _flow(writer)
            data = json.dumps(_WHOLE).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n" % len(data) + data
            )
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def _flow(writer: asyncio.StreamWriter) -> None:
    """Raises ConnectionError when it is cut."""
    data = b"data: " + json.dumps(_CHUNK).encode() + b"\n\n"
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    while not writer.is_closing():
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await writer.drain()
        await asyncio.sleep(PACE_S)
    raise ConnectionError("cut")
