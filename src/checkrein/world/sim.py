"""A world made from a seed: virtual time, replayable chance."""

import heapq
import random
from collections.abc import Callable

from checkrein.world.ids import uuid7_from

_EPOCH_NS = 1_760_000_000_000_000_000


class SimWorld:
    """Virtual clock and seeded chance. Not for threads: a simulation runs in one.

    Callbacks are put on the virtual clock by `call_later` and run, in order of time, by `step` or
    `run_until`; nothing here ever waits for real.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.wall_offset_ns = 0
        self._now_ns = 0
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0

    def now_ns(self) -> int:
        return _EPOCH_NS + self._now_ns + self.wall_offset_ns

    def monotonic_ns(self) -> int:
        return self._now_ns

    def random(self) -> float:
        return self.chance.random()

    def random_bytes(self, count: int) -> bytes:
        return self.chance.randbytes(count)

    def uuid7(self) -> str:
        return uuid7_from(self.now_ns() // 1_000_000, self.chance.randbytes(10))

    def trace_id(self) -> str:
        return f"{self.chance.getrandbits(128) | 1:032x}"

    def nonce(self) -> str:
        return self.chance.randbytes(16).hex()

    async def sleep(self, seconds: float) -> None:
        """Moves the clock on at once; code that awaits it runs alone."""
        self.run_until(self._now_ns + round(seconds * 1e9))

    def step_wall_clock(self, seconds: float) -> None:
        """Makes the wall clock jump, as NTP or an operator would; the monotonic one does not."""
        self.wall_offset_ns += round(seconds * 1e9)

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._due, (self._now_ns + round(seconds * 1e9), self._order, call))

    def step(self) -> bool:
        """Runs the next due callback at its time. False when nothing is due any more."""
        if not self._due:
            return False
        at, _, call = heapq.heappop(self._due)
        self._now_ns = max(self._now_ns, at)
        call()
        return True

    def run_until(self, monotonic_ns: int) -> None:
        """Runs all that is due up to a time and leaves the clock there."""
        while self._due and self._due[0][0] <= monotonic_ns:
            self.step()
        self._now_ns = max(self._now_ns, monotonic_ns)
