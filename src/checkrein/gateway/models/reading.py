"""Answers of providers, read with bounds: in bytes, packed or not, and in time."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec

from checkrein.gateway.types import Refusal

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
ANSWER_BYTES_MAX = 32 * 1024 * 1024
STREAM_BYTES_MAX = 256 * 1024 * 1024
MARK = b"[redacted:key]"
DRAIN_S = 0.2
DRAIN_READS_MAX = 8


def failed(upstream: str, why: str, status: int = 502, code: str = "upstream_failed") -> Refusal:
    """An upstream's fault, as the agent is told."""
    return Refusal(status, code, f"the upstream {upstream} {why}", advice="RETRYABLE")


def value_of(data: bytes, key: bytes) -> Any:
    """JSON without the real key, however that is written. Raises what decoding does."""
    if key and key in data:
        data = data.replace(key, MARK)
    value = _decode(data)
    if key and b"\\" in data and key in (plain := _encode(value)):
        value = _decode(plain.replace(key, MARK))
    return value


class Inflater:
    """Unpacks what was sent packed although nobody asked for it."""

    def __init__(self, encoding: str, upstream: str, bytes_max: int) -> None:
        """Raises Refusal for a packing other than gzip and deflate."""
        self._upstream, self._left = upstream, bytes_max
        self._unpack: zlib._Decompress | None = None
        match encoding.strip().lower():
            case "" | "identity":
                pass
            case "gzip" | "x-gzip" | "deflate":
                self._unpack = zlib.decompressobj(32 + zlib.MAX_WBITS)
            case other:
                raise failed(upstream, f"sends packed as {other[:40]!r}, which nobody asked for")

    def take(self, data: bytes) -> bytes:
        """Raises Refusal: too much, or broken."""
        if self._unpack is not None:
            try:
                data = self._unpack.decompress(data, self._left + 1)
            except zlib.error as error:
                raise failed(self._upstream, f"sends what cannot be unpacked: {error}") from error
        self._left -= len(data)
        if self._left < 0:
            raise failed(self._upstream, "answers with more than this gateway takes")
        return data


async def pieces(
    response: aiohttp.ClientResponse, upstream: str, chunk_s: float, bytes_max: int
) -> AsyncIterator[bytes]:
    """The body as it comes. Raises Refusal: too much, cut off, stalled."""
    inflater = Inflater(response.headers.get("content-encoding", ""), upstream, bytes_max)
    watch = _Watch(response.content, chunk_s)
    try:
        while data := await watch.read():
            yield inflater.take(data)
    except TimeoutError as error:
        raise failed(
            upstream, f"has sent nothing for {chunk_s:g} s in the middle of its answer",
            504, "upstream_timeout",
        ) from error  # fmt: skip
    except (aiohttp.ClientError, OSError) as error:
        why = f"broke off its answer ({type(error).__name__})"
        raise failed(upstream, why) from error
    finally:
        watch.end()


class _Watch:
    """Reads, and breaks off what does not come in time. One timer serves all pieces of an answer: a
    timer of its own for each would cost as much as reading it."""

    def __init__(self, content: aiohttp.StreamReader, chunk_s: float) -> None:
        self._content, self._chunk_s = content, chunk_s
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._reading = False
        self._timer = self._loop.call_later(chunk_s, self._look)

    async def read(self) -> bytes:
        """What has come; b"" at the end. Raises TimeoutError."""
        self._since = self._loop.time()
        self._reading = True
        try:
            return await self._content.readany()
        finally:
            self._reading = False

    def end(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        left_s = self._chunk_s
        if self._reading:
            left_s -= self._loop.time() - self._since
            if left_s <= 0:
                self._content.set_exception(TimeoutError("stalled"))
                return
        self._timer = self._loop.call_later(left_s, self._look)


async def whole(
    response: aiohttp.ClientResponse, upstream: str, chunk_s: float,
    bytes_max: int = ANSWER_BYTES_MAX,
) -> bytes:  # fmt: skip
    """All of the body. Raises Refusal as `pieces`."""
    length = response.content_length
    if length is not None and length > bytes_max:
        raise failed(upstream, f"says its answer has {length} bytes; at most {bytes_max} are taken")
    parts = [part async for part in pieces(response, upstream, chunk_s, bytes_max)]
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def drain(response: aiohttp.ClientResponse) -> None:
    """Reads what an answer has behind its own end, so that the connection can be used again; one
    that does not end by then is closed by whoever holds it."""
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(DRAIN_S):
            for _ in range(DRAIN_READS_MAX):
                if not await response.content.readany():
                    return
