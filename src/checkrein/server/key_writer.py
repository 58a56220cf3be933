"""Writing what stands under keys that changed, again and again until it is stored."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from checkrein.bus.types import BusError
from checkrein.world import World

_log = logging.getLogger(__name__)


class KeyWriter:
    """`write(key)` stores what the key's value is by then; BusError says that it was not stored.
    One write of a key at a time, so an older value never lands on a newer one; many changes of a
    key are one write. Bounded by the keys there are."""

    def __init__(
        self, write: Callable[[str], Awaitable[None]], what: str, world: World,
        pauses_s: Sequence[float], *, gather_s: float = 0.0, tasks: int = 1,
    ) -> None:  # fmt: skip
        """`what`: how the log calls it. `pauses_s`: between tries, the last one for good.
        `gather_s`: how long to wait for more after a rest."""
        self._write, self._what, self._world = write, what, world
        self._pauses_s, self._gather_s, self._tasks = pauses_s, gather_s, tasks
        self._keys: OrderedDict[str, None] = OrderedDict()
        self._under_way: set[str] = set()
        self._news = asyncio.Event()

    @property
    def waiting(self) -> int:
        return len(self._keys) + len(self._under_way)

    def add(self, key: str) -> None:
        self._keys.setdefault(key)
        self._news.set()

    def works(self) -> list[Coroutine[Any, Any, None]]:
        return [self._work() for _ in range(self._tasks)]

    async def _work(self) -> None:
        failures = 0
        while True:
            key = await self._next()
            try:
                await self._write(key)
                failures = 0
            except BusError as error:
                if failures == 0:
                    _log.warning("%s %s could not be written: %s", self._what, key, error)
                self._keys.setdefault(key)
                pause_s = self._pauses_s[min(failures, len(self._pauses_s) - 1)]
                await self._world.sleep(pause_s)
                failures += 1
            finally:
                self._under_way.discard(key)
                if self._keys:
                    self._news.set()

    async def _next(self) -> str:
        while True:
            for key in self._keys:
                if key not in self._under_way:
                    del self._keys[key]
                    self._under_way.add(key)
                    return key
            self._news.clear()
            await self._news.wait()
            if self._gather_s:
                await self._world.sleep(self._gather_s)
