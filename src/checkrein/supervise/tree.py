"""A process and all it started, held by the strongest means there is.

    cgroup      a leaf of the unified hierarchy: nothing gets out, forks included
    subreaper   a process group, and every orphan comes back to us: chased (`chase`) until walks
                agree (`walk`) where all that comes back is of this tree, else by sweeping `/proc`

Every operation here only *acts* or only *looks*, and returns at once: `freeze` then `frozen` until
it says yes. Looking also chases: newcomers found by a look get what the others got. A tree never
signals a process that took over a pid.
"""

import os
import signal
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from checkrein.supervise import proc
from checkrein.supervise.cgroup import Leaf, NoCgroup
from checkrein.supervise.chase import Chase
from checkrein.supervise.proc import Process, Table
from checkrein.supervise.walk import unsettled

MARKER = "CHECKREIN_UNIT"
CAPTURED_PROCESSES_MAX = 16


@dataclass(eq=False)
class Tree:
    """`main` is our child, not yet waited for by anyone else, leader of its own process group.
    `roots`: below whom orphans of this tree may come up; `alone`: whatever comes up there is ours.
    `mains`: the main processes of other trees below the same roots.
    """

    unit: str
    main: int
    pidfd: int
    leaf: Leaf | None = None
    roots: tuple[int, ...] = ()
    without: AbstractSet[int] = frozenset()
    alone: bool = False
    mains: AbstractSet[int] = frozenset()
    started: int = 0
    known: dict[int, Process] = field(default_factory=dict)
    exited: bool = False

    @property
    def method(self) -> str:
        return "cgroup" if self.leaf is not None else "subreaper"

    # -- acts ----------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Begins to stop everyone."""
        if self.leaf is not None:
            self.leaf.freeze()
        else:
            self._signal_group(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets everyone go on. Those who were stopped one by one are continued one by one."""
        if self.leaf is not None:
            self.leaf.thaw()
            for process in self.strays():
                if process.state in proc.STOPPED:
                    proc.send(process, signal.SIGCONT)
            return
        self._signal_group(signal.SIGCONT)
        for process in self.others():
            proc.send(process, signal.SIGCONT)

    def strike(self) -> None:
        """Begins to kill those that can be reached at once; `kill` gets the rest."""
        if self.leaf is not None:
            with suppress(FileNotFoundError):
                self.leaf.kill()
            if not self.exited:
                self._signal_main(signal.SIGKILL)
        else:
            self._signal_group(signal.SIGKILL)

    def kill(self, table: Table | None = None) -> None:
        """Begins to kill everyone; those out of reach of `strike` are stopped first, so that none
        forks."""
        if self.alone:
            if self.leaf is None:
                self._chase(signal.SIGSTOP)
            self.strike()
            self._chase(signal.SIGKILL, dead=True)
            return
        # One unit of many is swept by `survivors`: a look for each here would hold all others up.
        others: list[Process] = []
        if self.leaf is None:
            with suppress(proc.CannotLook):
                others = self.others(table)
        for process in others:
            proc.send(process, signal.SIGSTOP)
        self.strike()
        for process in others:
            proc.send(process, signal.SIGKILL)

    def forward(self, number: int) -> None:
        """One signal to the process group, as a terminal would send it."""
        self._signal_group(number)

    # -- looks ---------------------------------------------------------------------------------

    def frozen(self, table: Table | None = None) -> bool:
        """Whether nobody runs any more. `table`: one read *after* `freeze`, shared by many."""
        try:
            return self._frozen(table)
        except proc.CannotLook:
            return False

    def _frozen(self, table: Table | None) -> bool:
        if self.leaf is not None:
            return _frozen(self.leaf) and (not self.alone or self._still_outside(self.leaf))
        if self.alone:
            return not self._unsettled(signal.SIGSTOP)
        if not self._main_stopped():
            return False
        running = [process for process in self.others(table) if not proc.stands_still(process)]
        for process in running:
            proc.send(process, signal.SIGSTOP)
        return not running

    def _still_outside(self, leaf: Leaf) -> bool:
        """Whether nobody who left the leaf runs; they are stopped. Until all of them are, they may
        have let out or thawed who was inside."""
        inside = set(leaf.pids())
        if self._unsettled(signal.SIGSTOP, inside):
            return False
        return inside == set(leaf.pids()) and _frozen(leaf)

    def survivors(self, table: Table | None = None) -> list[int]:
        """Who is still alive, in the leaf and outside; or cannot be told to have left nobody."""
        try:
            return self._survivors(table)
        except proc.CannotLook:
            return [self.main]

    def _survivors(self, table: Table | None) -> list[int]:
        if self.alone:
            alive = set(self._unsettled(dead=True))
        else:
            alive = {process.pid for process in self.others(table)}
        if self.leaf is not None:
            with suppress(FileNotFoundError):
                if self.leaf.populated():
                    # Nobody of those listed may be left, and yet somebody they forked since.
                    inside = {pid for pid in self.leaf.pids() if proc.alive(proc.look(pid))}
                    alive |= inside or {self.main}
        if not self.exited and proc.alive(proc.look(self.main)):
            alive.add(self.main)
        return sorted(alive)

    def members(self) -> list[Process]:
        """Everyone alive, the main process first."""
        pids: dict[int, Process] = {}
        if self.leaf is not None:
            with suppress(OSError):
                rows = (proc.look(pid) for pid in self.leaf.pids())
                pids = {row.pid: row for row in rows if row is not None}
        else:
            pids = {process.pid: process for process in self.others()}
        main = None if self.exited else proc.look(self.main)
        pids.pop(self.main, None)
        found = [*([main] if main is not None else []), *pids.values()]
        return [process for process in found if proc.alive(process)]

    def holds(self, pid: int) -> bool:
        """Whether a process belongs to this tree."""
        if pid == self.main and not self.exited:
            return True
        if self.leaf is not None:
            with suppress(OSError):
                if pid in self.leaf.pids():
                    return True
        return any(process.pid == pid for process in self.others())

    def others(self, table: Table | None = None) -> list[Process]:
        """The living besides the main process: its descendants, and orphans that were of it."""
        if table is None:
            table = Table()
        mine = {p.pid: p for p in self._found(table) if p.pid != self.main and proc.alive(p)}
        self.known = mine
        return list(mine.values())

    def strays(self, table: Table | None = None) -> list[Process]:
        """Who is of this tree and not in its leaf: a process that may write the hierarchy (root's
        may) can move out. Without a table only where the whole of it need not be read."""
        if self.leaf is None or (table is None and not self.alone):
            return []
        inside = set(self.leaf.pids())
        if not self.alone:
            return [process for process in self.others(table) if process.pid not in inside]
        found: dict[int, Process] = {}
        todo = [*self._roots, *inside]
        for pid in todo:  # grows
            below = proc.children_of(pid)
            if below is None:
                return [process for process in self.others() if process.pid not in inside]
            for child in below:
                now = None if child in inside or child in found else proc.look(child)
                if now is not None and proc.alive(now) and child not in self.without:
                    found[child] = now
                    todo.append(child)
        return list(found.values())

    def capture(self) -> dict[str, Any]:
        """What the processes are and hold, while they stand still: for the record of a halt."""
        members = self.members()
        return {
            "method": self.method,
            "processes": len(members),
            "first": [_portrait(process) for process in members[:CAPTURED_PROCESSES_MAX]],
        }

    def close(self) -> None:
        """Gives back the pidfd and, when it is empty, the leaf."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        if self.leaf is not None:
            self.leaf.remove()

    # -- inside --------------------------------------------------------------------------------

    @property
    def _roots(self) -> tuple[int, ...]:
        return self.roots or (os.getpid(),)

    @property
    def _kept(self) -> set[int]:
        """Whose burial is others' business."""
        return {self.main, *self.mains, *self.without}

    def _chase(self, number: int, *, dead: bool = False) -> None:
        with suppress(proc.CannotLook):
            Chase(self._roots, self.without, number, dead=dead, kept=self._kept).run()

    def _unsettled(
        self, number: int = 0, inside: AbstractSet[int] = frozenset(), *, dead: bool = False
    ) -> list[int]:
        """Who of those below the roots, and below those `inside`, is not known to stand still or be
        dead. Orphans that died are buried first: a relay leaves hundreds in a second, and every
        look would have to pass them."""
        kept = self._kept
        proc.reap_others(kept)
        roots = (*self._roots, *inside)
        return unsettled(roots, self.without, number, dead=dead, kept=kept)

    def _found(self, table: Table) -> list[Process]:
        roots = self._roots
        if self.alone:
            return table.below(roots, self.without)
        starts = [self.main]
        for pid, process in self.known.items():
            now = table.rows.get(pid)
            if now is not None and now.started == process.started:
                starts.append(pid)
        starts += [process.pid for process in table.groups.get(self.main, ())]
        marker = f"{MARKER}={self.unit}".encode()
        for orphan in table.orphans(roots, self.mains):
            if orphan.pid not in self.without and proc.environment_has(orphan.pid, marker):
                starts.append(orphan.pid)
        rows = [table.rows[pid] for pid in starts if pid in table.rows]
        return [*rows, *table.below(starts, self.without)]

    def _main_stopped(self) -> bool:
        if self.exited:
            return True
        with suppress(ChildProcessError):
            options = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PIDFD, self.pidfd, options) is not None:
                return True
        now = proc.look(self.main)  # told already, or not our child
        return now is None or proc.stands_still(now)

    def _signal_main(self, number: int) -> None:
        if self.pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def _signal_group(self, number: int) -> None:
        """Once to everyone in the group. Its number is ours for as long as the leader is not
        buried."""
        if self.exited:
            return
        try:
            if os.getpgid(self.main) == self.main:
                os.killpg(self.main, number)
                return
        except (ProcessLookupError, PermissionError):
            pass
        self._signal_main(number)


def hold(
    unit: str,
    main: int,
    *,
    leaf: Leaf | None = None,
    alone: bool = False,
    roots: Iterable[int] = (),
) -> Tree:
    """A tree around a child of ours, already in `leaf` if there is one."""
    row = proc.look(main)
    return Tree(
        unit, main, os.pidfd_open(main), leaf, tuple(roots), alone=alone,
        started=row.started if row is not None else 0,
    )  # fmt: skip


def make_leaf(unit: str, method: str = "strongest") -> tuple[Leaf | None, str]:
    """A leaf for a new tree, or None and why it has to be the subreaper. `method` may force one:
    strongest, cgroup (raises NoCgroup), subreaper."""
    if method == "subreaper":
        return None, "subreaper asked for"
    try:
        return Leaf.make(f"checkrein-{unit}"), ""
    except NoCgroup as error:
        if method == "cgroup":
            raise
        return None, str(error)


def _frozen(leaf: Leaf) -> bool:
    return leaf.frozen() or not leaf.populated()


def _portrait(process: Process) -> dict[str, Any]:
    shown: dict[str, Any] = {"pid": process.pid, "name": process.name, "state": process.state}
    with suppress(OSError, ValueError, LookupError):  # it may be dying: then it has no memory
        with open(f"/proc/{process.pid}/status") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
        shown["rss_kib"] = int(lines["VmRSS"].split()[0])
        shown["threads"] = int(lines["Threads"])
    with suppress(OSError):
        shown["files"] = len(os.listdir(f"/proc/{process.pid}/fd"))
    return shown
