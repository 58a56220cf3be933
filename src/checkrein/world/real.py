"""The machine's own clock and chance."""

import asyncio
import os
import random
import time

from checkrein.world.ids import uuid7_from


class RealWorld:
    """Answers from the operating system. Stateless, hence safe from any thread and after a fork."""

    now_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)
    random = staticmethod(random.random)
    random_bytes = staticmethod(os.urandom)

    def uuid7(self) -> str:
        return uuid7_from(time.time_ns() // 1_000_000, os.urandom(10))

    def trace_id(self) -> str:
        while True:
            value = os.urandom(16).hex()
            if value != "0" * 32:
                return value

    def nonce(self) -> str:
        return os.urandom(16).hex()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
