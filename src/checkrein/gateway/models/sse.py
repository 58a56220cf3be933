"""Server-sent events, read from bytes that may be cut anywhere, and written. Pure."""

from typing import NamedTuple

EVENT_BYTES_MAX = 16 * 1024 * 1024
KEEP_ALIVE = b": \n\n"


class TooLong(Exception):
    """An event is larger than 16 MB, or one that never ends."""


class Event(NamedTuple):
    """`data` b"" with `name` "": a comment, which keeps a connection awake."""

    name: str
    data: bytes


_COMMENT = Event("", b"")


class Parser:
    """Reads events as `feed` brings their bytes. A last event without its empty line is none."""

    __slots__ = ("_begun", "_bytes", "_held_return", "_parts", "bytes_max")

    def __init__(self, bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._parts: list[bytes] = []
        self._bytes = 0
        self._held_return = False
        self._begun = False
        self.bytes_max = bytes_max

    @property
    def open(self) -> bool:
        """Bytes are left over: they are part of an event that is not whole."""
        return any(part.strip() for part in self._parts)

    def feed(self, data: bytes) -> list[Event]:
        """The events that are whole by now. Raises TooLong."""
        if not self._begun and data:
            self._begun = True
            data = data.removeprefix(b"\xef\xbb\xbf")
        if self._held_return or b"\r" in data:
            data = self._plain(data)
        parts = self._parts
        if b"\n\n" not in data and not (parts and data[:1] == b"\n" and parts[-1].endswith(b"\n")):
            self._keep(data)
            return []
        if parts:
            parts.append(data)
            data = b"".join(parts)
            parts.clear()
            self._bytes = 0
        *blocks, last = data.split(b"\n\n")
        self._keep(last)
        return [event for block in blocks if (event := _event(block)) is not None]

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._bytes += len(rest)
            if self._bytes > self.bytes_max:
                raise TooLong(f"an event of the stream is over {self.bytes_max} bytes")
            self._parts.append(rest)

    def _plain(self, data: bytes) -> bytes:
        """All ends of lines as one: a return at the very end may have its newline still to come."""
        if self._held_return:
            data = b"\r" + data
        self._held_return = data.endswith(b"\r")
        if self._held_return:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _event(block: bytes) -> Event | None:
    name = ""
    data: list[bytes] = []
    comment = False
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            name = line[6:].strip().decode("utf-8", "replace")
        elif line.startswith(b":"):
            comment = True
        elif line == b"data":
            data.append(b"")
    if data:
        return Event(name, data[0] if len(data) == 1 else b"\n".join(data))
    return _COMMENT if comment else None


def written(name: str, data: bytes) -> bytes:
    """One event. `data` is on one line, as JSON is; a name that is not is left out."""
    if name and "\n" not in name and "\r" not in name:
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
    return b"data: %b\n\n" % data
