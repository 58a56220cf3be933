"""Looks until what was asked of the kernel has happened: frozen, or nobody left.

One watcher serves all units of a supervisor, so that a thousand of them share each read of the
process table. It acts on nothing by itself but chasing: who appears in a tree that is being frozen
or killed is frozen or killed as well.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from checkrein.supervise import happenings as h
from checkrein.supervise import proc
from checkrein.supervise.unit import Unit
from checkrein.world import World

_log = logging.getLogger(__name__)

T = TypeVar("T")
Answer = Callable[[Unit, h.Happened], None]
LOOK_MS_MIN = 0.5
LOOK_MS_MAX = 20.0
KILL_AGAIN_MS = 50
CAPTURES_AT_ONCE = 16


@dataclass
class _Looked:
    unit: Unit
    until_ns: int
    again_ns: int = 0


class Looking:
    """`answer(unit, happened)` is called from `run`, one at a time."""

    def __init__(self, world: World, answer: Answer, reap: Callable[[], None]) -> None:
        self._world = world
        self._answer = answer
        self._reap = reap
        self._freezing: dict[Unit, _Looked] = {}
        self._killing: dict[Unit, _Looked] = {}
        self._capturing: dict[Unit, None] = {}
        self._wake = asyncio.Event()
        self._kill_look_at_ns = 0

    def freezing(self, unit: Unit, ms_max: int) -> None:
        self._add(self._freezing, unit, ms_max)

    def killing(self, unit: Unit, ms_max: int) -> None:
        self._freezing.pop(unit, None)
        self._add(self._killing, unit, ms_max)

    def capturing(self, unit: Unit) -> None:
        self._capturing[unit] = None
        self._wake.set()

    def drop(self, unit: Unit) -> None:
        """Nobody waits for this unit any more."""
        self._freezing.pop(unit, None)
        self._capturing.pop(unit, None)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            pause_ms = LOOK_MS_MIN
            while self._freezing or self._killing or self._capturing:
                self._wake.clear()
                await asyncio.sleep(0)  # orders and sockets first
                if self._look():
                    pause_ms = LOOK_MS_MIN
                    await asyncio.sleep(0.001)  # what was seen is told before anything else
                    continue
                await self._rest(pause_ms)
                pause_ms = LOOK_MS_MIN if self._wake.is_set() else min(pause_ms * 1.5, LOOK_MS_MAX)
            self._wake.clear()

    async def _rest(self, pause_ms: float) -> None:
        try:
            async with asyncio.timeout(pause_ms / 1000):
                await self._wake.wait()
        except TimeoutError:
            return

    def _add(self, looked: dict[Unit, _Looked], unit: Unit, ms_max: int) -> None:
        now_ns = self._world.monotonic_ns()
        again_ns = now_ns  # the first look sweeps
        looked[unit] = _Looked(unit, now_ns + ms_max * 1_000_000, again_ns)
        self._wake.set()

    def _look(self) -> bool:
        """One look at all; True if it brought anything."""
        came = self._look_frozen()
        if came or self._freezing:
            return came  # freezing first: the rest can wait a moment
        came = self._look_captured()
        now_ns = self._world.monotonic_ns()
        if self._killing and now_ns >= self._kill_look_at_ns:
            came = self._look_killed() or came
            # A look reads the whole process table: never more than half of the time.
            took_ns = self._world.monotonic_ns() - now_ns
            self._kill_look_at_ns = now_ns + 2 * took_ns
        return came

    def _look_frozen(self) -> bool:
        came = False
        table = _shared_table(self._freezing)
        now_ns = self._world.monotonic_ns()
        for unit, looked in list(self._freezing.items()):
            ok = _safely(unit, lambda unit=unit: unit.tree.frozen(table), False)  # type: ignore[misc] # bound at once
            if ok or looked.until_ns <= now_ns:
                self._freezing.pop(unit, None)
                self._answer(unit, h.Froze(ok))
                came = True
        return came

    def _look_captured(self) -> bool:
        units = list(self._capturing)[:CAPTURES_AT_ONCE]
        for unit in units:
            del self._capturing[unit]
            self._answer(unit, h.Captured(_safely(unit, unit.tree.capture, {})))
        return bool(units)

    def _look_killed(self) -> bool:
        if not self._killing:
            return False
        came = False
        table = _table()
        now_ns = self._world.monotonic_ns()
        for unit, looked in list(self._killing.items()):
            unknown = [unit.tree.main]  # a look that fails has not seen that nobody is left
            left = _safely(unit, lambda unit=unit: unit.tree.survivors(table), unknown)  # type: ignore[misc] # bound at once
            if left and looked.until_ns > now_ns:
                if looked.again_ns <= now_ns:
                    looked.again_ns = now_ns + KILL_AGAIN_MS * 1_000_000
                    _safely(unit, lambda unit=unit: unit.tree.kill(table), None)  # type: ignore[misc] # bound at once
                continue
            self._killing.pop(unit, None)
            self._answer(unit, h.Killed(tuple(left)))
            came = True
        self._reap()
        return came


def _shared_table(units: Iterable[Unit]) -> proc.Table | None:
    """One table for several trees that need it; a single one reads it when it comes to that."""
    need = [unit for unit in units if unit.tree.leaf is None]
    return _table() if len(need) > 1 else None


def _table() -> proc.Table | None:
    """None where it cannot be read now: then every tree finds that out for itself."""
    try:
        return proc.Table()
    except proc.CannotLook as error:
        _log.warning("the process table cannot be read: %s", error)
        return None


def _safely(unit: Unit, look: Callable[[], T], otherwise: T) -> T:
    """One unit's trouble is not the others'. A tree whose cgroup was taken away is held by the
    subreaper from then on."""
    try:
        return look()
    except proc.CannotLook as error:
        _log.warning("unit %s cannot be looked at: %s", unit.name, error)
    except OSError as error:
        if unit.tree.leaf is not None:
            _log.warning("unit %s: its cgroup fails (%s); going on with sweeps", unit.name, error)
            unit.tree.leaf = None
        else:
            _log.warning("unit %s: %s", unit.name, error)
    except Exception:
        _log.exception("looking at unit %s", unit.name)
    return otherwise
