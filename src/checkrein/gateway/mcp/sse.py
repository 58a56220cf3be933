"""Server-sent events, both ways: the frames of streamable HTTP."""

from collections.abc import AsyncIterator

from checkrein.gateway.mcp.rpc import MESSAGE_BYTES_MAX, Message, encode

HEADERS = {
    "content-type": "text/event-stream", "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}  # fmt: skip
PING = b": still at work\n\n"


class TooLarge(ValueError):
    """One event is larger than a message may be."""


def frame(message: Message) -> bytes:
    return b"event: message\ndata: " + encode(message) + b"\n\n"


async def events(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each event of type `message`, as they come. An event that is cut off by the end
    of the stream is none. Raises TooLarge, and what reading raises."""
    data: list[bytes] = []
    size, kind = 0, b"message"
    async for line in _lines(pieces):
        if not line:
            if data and kind == b"message":
                yield b"\n".join(data)
            data, size, kind = [], 0, b"message"
            continue
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data" and value:
            size += len(value)
            if size > MESSAGE_BYTES_MAX:
                raise TooLarge
            data.append(value)
        elif name == b"event":
            kind = value or b"message"


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines, ended by LF or CRLF. What is after the last end is not given. Raises TooLarge."""
    rest = bytearray()
    async for piece in pieces:
        start = len(rest)
        rest += piece
        if b"\n" not in piece:
            if len(rest) > MESSAGE_BYTES_MAX + 64:
                raise TooLarge
            continue
        end = rest.rfind(b"\n", start)
        whole, rest = bytes(rest[:end]), rest[end + 1 :]
        for line in whole.split(b"\n"):
            yield line.removesuffix(b"\r")
