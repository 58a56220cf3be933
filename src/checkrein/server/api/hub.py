"""Handing the live tail to those who watch: filters, bounded queues, server-sent events.

A watcher that reads too slowly never holds up anybody: what does not fit its queue is left out, and
it is told how much.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec

from checkrein.server.api.tail import Seen

QUEUE_EVENTS_MAX = 5_000
QUEUE_BYTES_MAX = 8 * 1024 * 1024
CHUNK_BYTES_MAX = 64 * 1024
BEAT_S = 10.0
WATCHERS_MAX = 200


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What a watcher wants to see; an empty field lets everything through."""

    types: frozenset[str] = frozenset()
    agent: str = ""
    room: str = ""
    run_id: str = ""
    task_id: str = ""

    def wants(self, seen: Seen) -> bool:
        head = seen.head
        return (
            (not self.types or head.type in self.types)
            and (not self.agent or head.agent == self.agent)
            and (not self.room or head.room == self.room)
            and (not self.run_id or head.run_id == self.run_id)
            and (not self.task_id or head.task_id == self.task_id)
        )


class Watcher:
    """One reader of the stream, with what waits for it."""

    def __init__(self, wanted: Filter, after: tuple[int, int] = (0, -1)) -> None:
        self.wanted = wanted
        self._after = after
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._skipped = 0
        self.skipped_total = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.closed = False

    def offer(self, events: Iterable[Seen]) -> None:
        """Queues what the filter lets through; leaves out, and counts, what does not fit."""
        for seen in events:
            if (seen.position, seen.index) <= self._after or not self.wanted.wants(seen):
                continue
            if len(self._frames) >= QUEUE_EVENTS_MAX or self._bytes >= QUEUE_BYTES_MAX:
                self._skipped += 1
                self.skipped_total += 1
                continue
            if self._skipped:
                self._say_skipped()
            self._put(frame(seen))
        self._news.set()

    async def give(self, events: Iterable[Seen]) -> None:
        """Like `offer`, but waits for room: for reading up what is past."""
        for seen in events:
            if (seen.position, seen.index) <= self._after or not self.wanted.wants(seen):
                continue
            while not self.closed and len(self._frames) >= QUEUE_EVENTS_MAX // 2:
                self._room.clear()
                await self._room.wait()
            self._put(frame(seen))
        self._news.set()

    def past(self, position: int) -> None:
        """Everything up to this message of the stream has been seen; 0: nothing has."""
        self._after = (position, 1 << 62) if position else (0, -1)

    def notice(self, name: str, about: dict[str, Any]) -> None:
        """A message of ours between the events."""
        self._put(b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(about)))
        self._news.set()

    def close(self) -> None:
        self.closed = True
        self._news.set()
        self._room.set()

    async def chunks(self, beat_s: float = BEAT_S) -> AsyncIterator[bytes]:
        """What to send, as it comes; a comment every `beat_s` of silence; ends when closed."""
        while True:
            while self._frames or self._skipped:
                if not self._frames:
                    self._say_skipped()
                yield self._next_chunk()
            if self.closed:
                return
            self._news.clear()
            try:
                async with asyncio.timeout(beat_s):
                    await self._news.wait()
            except TimeoutError:
                yield b": still here\n\n"

    def _say_skipped(self) -> None:
        count, self._skipped = self._skipped, 0
        self._put(b'event: skipped\ndata: {"events":%d,"why":"read too slowly"}\n\n' % count)

    def _put(self, data: bytes) -> None:
        self._frames.append(data)
        self._bytes += len(data)

    def _next_chunk(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while self._frames and size < CHUNK_BYTES_MAX:
            part = self._frames.popleft()
            parts.append(part)
            size += len(part)
        self._bytes -= size
        self._room.set()
        return b"".join(parts)


class Hub:
    """All watchers, and how far the live tail has come."""

    def __init__(self) -> None:
        self.watchers: set[Watcher] = set()
        self.position = 0
        self.skipped_before = 0

    @property
    def skipped(self) -> int:
        return self.skipped_before + sum(watcher.skipped_total for watcher in self.watchers)

    def join(self, watcher: Watcher) -> None:
        """From the next event on, `watcher` hears them."""
        self.watchers.add(watcher)

    def leave(self, watcher: Watcher) -> None:
        watcher.close()
        if watcher in self.watchers:
            self.watchers.discard(watcher)
            self.skipped_before += watcher.skipped_total

    def publish(self, position: int, events: list[Seen]) -> None:
        self.position = max(self.position, position)
        for watcher in self.watchers:
            watcher.offer(events)

    def close(self) -> None:
        for watcher in list(self.watchers):
            self.leave(watcher)


def frame(seen: Seen) -> bytes:
    return b"id: %d:%d\ndata: %s\n\n" % (seen.position, seen.index, seen.json)
