"""Answers of providers, read with bounds: in bytes, packed or not, and in time."""

import asyncio
import zlib
from collections.abc import AsyncIterator

import aiohttp

from checkrein.gateway.types import Refusal

ANSWER_BYTES_MAX = 32 * 1024 * 1024
STREAM_BYTES_MAX = 256 * 1024 * 1024


def failed(upstream: str, why: str, status: int = 502, code: str = "upstream_failed") -> Refusal:
    """An upstream's fault, as the agent is told."""
    return Refusal(status, code, f"the upstream {upstream} {why}", advice="RETRYABLE")


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
    read = response.content.readany
    while True:
        try:
            async with asyncio.timeout(chunk_s):
                data = await read()
        except TimeoutError as error:
            raise failed(
                upstream, f"has sent nothing for {chunk_s:g} s in the middle of its answer",
                504, "upstream_timeout",
            ) from error  # fmt: skip
        except (aiohttp.ClientError, OSError) as error:
            why = f"broke off its answer ({type(error).__name__})"
            raise failed(upstream, why) from error
        if not data:
            return
        yield inflater.take(data)


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
