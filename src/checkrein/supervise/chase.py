"""Catching a tree whose processes come and go faster than a walk through it takes.

In a relay every process forks one successor and ends: what has been listed is dead when it is
looked at. But until a process has forked it can be stopped for good, for the kernel gives up a fork
when a signal waits, and who is stopped forks no more. So a newcomer gets its signal the moment it
is listed, before anything is read of it, and the lists follow each other closely:

- an orphan comes up below the first thread of the subreaper: of a root only that is listed again,
  whatever the number of its threads;
- whoever stands still gets no new children: it is listed once more and then left alone;
- whoever is dead is buried, if it is ours to bury: its children have come to the subreaper.

One list takes about 10 microseconds, a fork several times that; where there is no second processor,
nobody forks while we list. So the race is won within a few turns, but it stays a race: the proof
that it is won is the walks' (`walk`).
"""

import os
import signal
from collections.abc import Set
from contextlib import suppress

from checkrein.supervise import proc
from checkrein.supervise.proc import Process

POLLS_MAX = 500
IDLE_MAX = 25
"""Polls without a newcomer, while somebody who got the signal does not rest yet."""
LISTS_MAX = 2_000
"""Lists read in one chase: its bound where the tree is large. A long one counts for several."""
LISTED_MAX = 32


class Chase:
    """Sends signal `number` to everyone below `roots` but `without`, and to whoever comes, until
    they rest: stand still, or, where `dead` is asked for, are dead. Buries dead children of this
    process but `kept`; nobody else may do so meanwhile."""

    def __init__(
        self, roots: tuple[int, ...], without: Set[int], number: int, *,
        dead: bool = False, kept: Set[int] = frozenset(),
    ) -> None:  # fmt: skip
        self._roots = roots
        self._number = number
        self._dead = dead
        self._kept = kept
        self._me = os.getpid()
        self._seen = {*roots, *without}
        self._kin = set(roots)
        self._moving: dict[int, bool] = {}
        """Who got the signal, and whether it rested at the last look."""
        self._lists = 0
        self._register: _Register | None = None
        if proc.adopted_by(self._me) is None:
            self._register = _Register(roots, without)

    def run(self) -> None:
        """Until all rest and nobody comes any more, or a bound is reached. Raises CannotLook."""
        idle = 0
        for poll in range(POLLS_MAX):
            waiting = bool(self._moving)
            if self._register is not None:
                came = self._ask(self._register)
            else:
                came = self._list(whole=poll == 0)
            self._look()
            idle = 0 if came else idle + 1
            if (idle and not waiting) or idle > IDLE_MAX or self._lists > LISTS_MAX:
                return

    def _list(self, whole: bool) -> bool:
        """Signals whoever is listed and new. True if anybody was."""
        came = False
        todo = [*self._roots, *self._moving]
        for parent in todo:  # grows
            self._lists += 1
            every_thread = whole or parent in self._moving
            below = proc.children_of(parent) if every_thread else proc.adopted_by(parent)
            self._lists += len(below or ()) // LISTED_MAX
            for pid in reversed(below or ()):  # the latest has most of its time before it
                if pid not in self._seen:
                    self._seen.add(pid)
                    came = True
                    if self._signal_child(pid, parent):
                        self._met(pid)
                        todo.append(pid)
        return came

    def _ask(self, register: "_Register") -> bool:
        self._lists += 1
        came = register.newcomers()
        for process in came:
            proc.send(process, self._number)
            self._met(process.pid)
        return bool(came)

    def _met(self, pid: int) -> None:
        self._kin.add(pid)
        self._moving[pid] = False

    def _signal_child(self, pid: int, parent: int) -> bool:
        """False if it is gone. A child of ours keeps its pid until we bury it; any other one's may
        be a stranger's since it was listed."""
        if parent == self._me:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, self._number)
            return not self._buried(pid)
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return False
        try:
            # The pidfd was opened before the look: the signal hits whom it shows, or nobody.
            now = proc.look(pid)
            if now is None or now.parent not in self._kin:
                return False
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(fd, self._number)
        finally:
            os.close(fd)
        return True

    def _buried(self, pid: int) -> bool:
        """Whether it is a dead child of ours; if we may, it is buried, and its pid is free."""
        kept = pid in self._kept
        how = os.WEXITED | os.WNOHANG | (os.WNOWAIT if kept else 0)
        with suppress(ChildProcessError):
            if os.waitid(os.P_PID, pid, how) is not None:
                if not kept:
                    self._seen.discard(pid)
                return True
        return False

    def _look(self) -> None:
        """Forgets who is gone, and who rested at the last look and has been listed since."""
        moving: dict[int, bool] = {}
        for pid, rested in self._moving.items():
            if rested or self._buried(pid):
                continue
            now = proc.look(pid)
            if now is not None and proc.alive(now):
                moving[pid] = not self._dead and proc.stands_still(now)
        self._moving = moving


class _Register:
    """Who is new below the roots, where the kernel does not tell whose children are whose: of all
    pids there are, only the unknown ones are looked at."""

    def __init__(self, roots: tuple[int, ...], without: Set[int]) -> None:
        self._kin = set(roots)
        self._without = without
        self._known: set[int] = set()

    def newcomers(self) -> list[Process]:
        """Raises CannotLook."""
        new = [pid for pid in proc.listed() if pid not in self._known]
        rows = [row for pid in new if (row := proc.look(pid)) is not None]
        self._known.update(row.pid for row in rows)
        found: list[Process] = []
        left = [row for row in rows if row.pid not in self._kin and row.pid not in self._without]
        while came := [row for row in left if row.parent in self._kin]:
            self._kin.update(row.pid for row in came)
            left = [row for row in left if row.pid not in self._kin]
            found += came
        return found
