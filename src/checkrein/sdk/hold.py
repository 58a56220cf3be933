"""A run's rein shared between threads and event loops: who waits, who is woken, who is cancelled.

`taut` is the one word a call reads on its way: False means go on. An order makes it True before
anything else, and a call puts itself among those in flight before it reads it, so that one of the
two always sees the other.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable

from checkrein.sdk.errors import Halted
from checkrein.sdk.rein import Answer, Ordered, Rein
from checkrein.world import World

WAIT_S = 3600.0
"""How long one wait on the condition lasts before it looks again; woken at once by every order."""

Waiter = tuple[asyncio.AbstractEventLoop, asyncio.Event]


class Held(Exception):
    """The run is held, and the caller will wait in its own way. Never reaches the agent."""


class Hold:
    """Safe from any thread."""

    def __init__(self, run_id: str, world: World, resumed: Callable[[int], None]) -> None:
        self.taut = False
        self.rein = Rein()
        self.raised = False
        """True once `Halted` was raised into the agent's code."""
        self._run_id = run_id
        self._world = world
        self._resumed = resumed
        self._changed = threading.Condition()
        self._waiters: list[Waiter] = []
        self._outer: tuple[asyncio.AbstractEventLoop, asyncio.Task[object]] | None = None
        self._cancelled = False
        self._paused_since_ns: int | None = None
        self._asking = 0

    @property
    def waits_for_human(self) -> bool:
        """True while a call waits for somebody's answer."""
        return self._asking > 0

    @property
    def halted(self) -> bool:
        return self.rein.state == "halted"

    def forked(self) -> None:
        """In a forked child: fresh locks, and nobody waits."""
        self._changed = threading.Condition()
        self._waiters = []
        self._outer = None
        self._asking = 0

    def obey(self, order: Ordered, step: int) -> Answer:
        with self._changed:
            answer = self.rein.obey(order, step)
            self._pull()
        return answer

    def halt(self, reason: str, issued_by: str) -> bool:
        """Halts by a rule of this process. False: it was halted already."""
        with self._changed:
            taken = self.rein.halt(reason, issued_by)
            self._pull()
        return taken

    def contact(self, lost: bool) -> None:
        """Holds the run for as long as contact is lost."""
        with self._changed:
            self.rein.lost_contact = lost
            self._pull()

    def wait(self) -> None:
        """Returns when the run may go on. Raises Halted when it may not any more."""
        with self._changed:
            while not self._may_go():
                self._changed.wait(WAIT_S)
        self.check()

    async def wait_async(self) -> None:
        """As `wait`, and the loop goes on meanwhile."""
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        while not self._may_go():
            with self._changed:
                self._waiters.append(waiter)
                event.clear()
                going = self._may_go()
            try:
                if not going:
                    await event.wait()
            finally:
                with self._changed, contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)
        self.check()

    def asking(self, change: int) -> None:
        """A call begins (1) or ceases (-1) to wait for a person: the run's clock stands still."""
        with self._changed:
            self._asking = max(0, self._asking + change)
            self._pull()

    def nudge(self) -> None:
        """Who waits looks again."""
        with self._changed:
            self._wake()

    def wait_until(self, over: Callable[[], bool], left_s: Callable[[], float]) -> None:
        """Returns when `over`, looked at whenever nudged and after `left_s`. Raises Halted as soon
        as the run is."""
        with self._changed:
            while not (over() or self.halted):
                self._changed.wait(min(WAIT_S, left_s() + 0.001))
        self.check()

    async def wait_until_async(self, over: Callable[[], bool], left_s: Callable[[], float]) -> None:
        """As `wait_until`, and the loop goes on meanwhile."""
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        with self._changed:
            self._waiters.append(waiter)
        try:
            while True:
                event.clear()
                if over() or self.halted:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(WAIT_S, left_s() + 0.001)):
                        await event.wait()
        finally:
            with self._changed, contextlib.suppress(ValueError):
                self._waiters.remove(waiter)
        self.check()

    def check(self) -> None:
        """Raises Halted if the run is halted, however often."""
        if self.halted:
            self.raised = True
            raise Halted(self.rein.reason, self._run_id, self.rein.issued_by)

    def _may_go(self) -> bool:
        return not self.rein.taut or self.halted

    def bind(self, loop: asyncio.AbstractEventLoop, task: "asyncio.Task[object]") -> None:
        """The task that a halt cancels from outside."""
        self._outer = (loop, task)

    def bind_root(self) -> None:
        """For the ambient run, which no `with` surrounds: a halt cancels the first task of the loop
        that calls come from, which is the program's own main task."""
        if self._outer is not None and not self._outer[1].done():
            return
        tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("Task-")]
        numbered = [
            (int(name[5:]), task) for task in tasks if (name := task.get_name())[5:].isdigit()
        ]
        if numbered:
            self.bind(asyncio.get_running_loop(), min(numbered, key=lambda one: one[0])[1])

    def unbind(self) -> bool:
        """The run has left its task. True if the task was cancelled by us: the caller takes the
        cancellation back."""
        self._outer = None
        return self._cancelled

    def _pull(self) -> None:
        """Under the lock, after every change: the clock of a pause, the waiters, the outer task."""
        self.taut = self.rein.taut
        held = self.taut and not self.halted
        still = held or (self._asking > 0 and not self.halted)
        if still and self._paused_since_ns is None:
            self._paused_since_ns = self._world.monotonic_ns()
        elif not still and self._paused_since_ns is not None:
            paused_ns = self._world.monotonic_ns() - self._paused_since_ns
            self._paused_since_ns = None
            self._resumed(paused_ns)
        if not held:
            self._wake()
        if self.halted and self._outer is not None:
            loop, _ = self._outer
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing to cancel
                loop.call_soon_threadsafe(self._cancel)

    def _wake(self) -> None:
        self._changed.notify_all()
        for loop, event in self._waiters:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there
                loop.call_soon_threadsafe(event.set)

    def _cancel(self) -> None:
        """In the loop of the outer task."""
        if self._outer is not None and not self._cancelled:
            self._cancelled = True
            self.raised = True
            self._outer[1].cancel(f"halted: {self.rein.reason}")
