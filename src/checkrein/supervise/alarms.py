"""One timer for many: each may be rung at a time it asked for, and a thousand cost one handle."""

import asyncio
import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

from checkrein.world import World

T = TypeVar("T")


class Alarms(Generic[T]):
    """`ring(one)` is called at, or soon after, each time set for it; asking whether that time still
    holds is the caller's part. For one event loop."""

    def __init__(self, world: World, ring: Callable[[T], None]) -> None:
        self._world = world
        self._ring = ring
        self._set: list[tuple[int, int, T]] = []
        self._handle: asyncio.TimerHandle | None = None

    def set(self, one: T, at_ns: int) -> None:
        """By the monotonic clock. Times set before stay set."""
        heapq.heappush(self._set, (at_ns, id(one), one))
        if self._set[0][2] is one or self._handle is None:
            self._start()

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _start(self) -> None:
        self.close()
        if self._set:
            wait_s = max(0.0, (self._set[0][0] - self._world.monotonic_ns()) / 1e9)
            self._handle = asyncio.get_running_loop().call_later(wait_s, self._due)

    def _due(self) -> None:
        self._handle = None
        now_ns = self._world.monotonic_ns()
        due: list[T] = []
        while self._set and self._set[0][0] <= now_ns:
            due.append(heapq.heappop(self._set)[2])
        for one in due:
            self._ring(one)
        if self._handle is None:
            self._start()
