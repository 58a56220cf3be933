"""Questions that are not decided yet: each in a task of its own, for whoever asks again."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from checkrein.gateway.decide.open_calls import UNFETCHED_S
from checkrein.gateway.decide.words import Ask, Told
from checkrein.gateway.types import Refusal
from checkrein.gateway.visit import Visit
from checkrein.world import World

PENDING_MAX = 1_000
LOOK_S = 0.02
"""How long a look is: what is held up by nobody is decided meanwhile."""
LOOKS_MAX = 250

Key = tuple[str, str, str]
"""The agent, its run as it names it, and the call."""


class Pending:
    """One question. `visit` stands there once whoever asks was let in; `waited` counts who waits
    for the answer right now."""

    __slots__ = ("asked", "call_id", "fetched", "task", "until_ns", "visit", "waited")

    def __init__(self, asked: Ask, call_id: str) -> None:
        self.asked = asked
        self.call_id = call_id
        self.visit: Visit | None = None
        self.task: asyncio.Task[Told]
        self.waited = 0
        self.until_ns = 0
        self.fetched = False

    @property
    def held_up(self) -> bool:
        """Whether a person must answer, or let the run go on."""
        if self.visit is None:
            return False
        hold = self.visit.run.hold
        return hold.taut or hold.waits_for_human

    def same(self, asked: Ask) -> bool:
        return (asked.tool, asked.arguments) == (self.asked.tool, self.asked.arguments)

    async def within(self, wait_s: float, gone: Callable[[], Awaitable[None]]) -> Told | None:
        """What was decided, or None: not in time. Raises what deciding raised; when whoever waits
        hangs up, the question is taken back."""
        self.waited += 1
        try:
            await asyncio.sleep(0)  # what waits for nobody is decided in one turn of the loop
            if self.task.done():
                return self.task.result()
            return await self._waited_for(wait_s, gone)
        except asyncio.CancelledError:
            if self.waited == 1:
                self.task.cancel("whoever asked is gone")
            raise
        finally:
            self.waited -= 1

    async def _waited_for(self, wait_s: float, gone: Callable[[], Awaitable[None]]) -> Told | None:
        hung_up = asyncio.ensure_future(gone())
        both = (self.task, hung_up)
        try:
            for _ in range(LOOKS_MAX):
                await asyncio.wait(both, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                if self.held_up or self.task.done() or hung_up.done():
                    break
            if not (self.task.done() or hung_up.done()) and wait_s:
                await asyncio.wait(both, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if self.task.done():
                return self.task.result()
            if hung_up.done():
                if self.waited == 1:
                    self.task.cancel("whoever asked hung up")
                raise Refusal(400, "bad_request", "whoever asked hung up")
            return None
        finally:
            hung_up.cancel()


class PendingCalls:
    """On the gateway's loop. What is decided while nobody waits is kept for UNFETCHED_S."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._found: dict[Key, Pending] = {}

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: Key) -> Pending | None:
        return self._found.get(key)

    def keep(self, key: Key, pending: Pending) -> None:
        """Raises Refusal when too many wait already."""
        if len(self._found) >= PENDING_MAX:
            pending.task.cancel("too many wait")
            raise Refusal(503, "busy", f"{PENDING_MAX} calls wait for an answer already")
        self._found[key] = pending
        pending.until_ns = 0
        pending.task.add_done_callback(lambda task: self._decided(key, pending))

    def drop(self, key: Key) -> None:
        self._found.pop(key, None)

    async def take_back(self, key: Key) -> None:
        """The call was made without waiting for the answer."""
        pending = self._found.pop(key, None)
        if pending is not None and not pending.task.done():
            pending.task.cancel("the call was made without waiting for the answer")
            with suppress(asyncio.CancelledError, Refusal):
                await asyncio.wait((pending.task,))

    def sweep(self, now_ns: int) -> None:
        for key, pending in list(self._found.items()):
            if pending.until_ns and pending.until_ns <= now_ns:
                del self._found[key]

    def cancel_all(self) -> None:
        for pending in self._found.values():
            pending.task.cancel("the gateway was stopped")
        self._found.clear()

    def _decided(self, key: Key, pending: Pending) -> None:
        if not pending.task.cancelled():
            pending.task.exception()  # looked at, so that nobody complains of it
        if pending.waited or pending.task.cancelled():
            if self._found.get(key) is pending:
                del self._found[key]
        else:
            pending.until_ns = self._world.monotonic_ns() + round(UNFETCHED_S * 1e9)
