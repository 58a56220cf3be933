"""The process table as `/proc` shows it: who is whose child, and in which state.

A pid alone names nothing for long: it is used again. A process is named here by its pid *and* the
time it started, and is signalled through a pidfd that was checked against both.
"""

import ctypes
import errno
import os
import signal
from collections.abc import Iterable, Set
from contextlib import suppress
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

STOPPED = frozenset("Tt")
GONE = frozenset("ZX")
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))


class CannotLook(OSError):
    """This process has no descriptor or no memory left to look with. Raised by every look here:
    what could not be looked at is not gone."""


@dataclass(frozen=True, slots=True)
class Process:
    """One row of the table. `started`, in clock ticks since boot, makes `pid` an identity."""

    pid: int
    parent: int
    group: int
    session: int
    state: str
    started: int
    name: str = ""


def look(pid: int) -> Process | None:
    """The process as it is now; None when there is none of this pid."""
    return look_at(f"/proc/{pid}/stat")


def look_at(path: str) -> Process | None:
    """A process or a thread, by the path of its `stat`."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise_unless_gone(error)
        return None
    try:
        text = os.read(fd, 1024)
    except OSError as error:
        raise_unless_gone(error)
        return None
    finally:
        os.close(fd)
    name_end = text.rfind(b")")
    fields = text[name_end + 2 :].split()
    if len(fields) < 20:
        return None
    return Process(
        int(text[: text.index(b" ")]),
        int(fields[1]),
        int(fields[2]),
        int(fields[3]),
        chr(fields[0][0]),
        int(fields[19]),
        text[text.find(b"(") + 1 : name_end].decode("utf-8", "replace"),
    )


def alive(process: Process | None) -> bool:
    """There, and not only waiting to be buried."""
    return process is not None and process.state not in GONE


def listed() -> list[int]:
    """The pids of all processes there are, the dead and unburied included."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError as error:
        raise_unless_gone(error)
        raise


class Table:
    """All processes there are, indexed. Not a snapshot: rows are read one after another. `missed`:
    pids that were listed and gone when they were looked at."""

    def __init__(self) -> None:
        found = {pid: look(pid) for pid in listed()}
        self.rows = {pid: row for pid, row in found.items() if row is not None}
        self.missed = found.keys() - self.rows.keys()
        self.children: dict[int, list[Process]] = {}
        self.groups: dict[int, list[Process]] = {}
        for row in self.rows.values():
            self.children.setdefault(row.parent, []).append(row)
            self.groups.setdefault(row.group, []).append(row)

        self._orphans: list[Process] | None = None

    def orphans(self, roots: Iterable[int], others: Set[int]) -> list[Process]:
        """Children of the roots that are none of `others`: asked for with the same values by all
        who share a table."""
        if self._orphans is None:
            found = (row for root in roots for row in self.children.get(root, ()))
            self._orphans = [row for row in found if row.pid not in others]
        return self._orphans

    def below(self, roots: Iterable[int], without: Set[int] = frozenset()) -> list[Process]:
        """Everyone below the roots; not the roots themselves, nor what is below `without`."""
        found: list[Process] = []
        todo = list(roots)
        while todo:
            for row in self.children.get(todo.pop(), ()):
                if row.pid not in without:
                    found.append(row)
                    todo.append(row.pid)
        return found


def send(process: Process, number: int) -> bool:
    """Signals this very process, never another that got its pid since. False: it is gone."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        now = look(process.pid)
        if now is None or now.started != process.started:
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def children_of(pid: int) -> list[int] | None:
    """Its children now, the dead included, without a look at the whole table; None where this
    kernel does not tell. Empty when it is gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError as error:
        raise_unless_gone(error)
        return found
    for thread in threads:
        below = _children_of_thread(pid, thread)
        if below is None:
            return None
        found += below
    return found


def adopted_by(pid: int) -> list[int] | None:
    """The children of its first thread, in the order in which they came: there the kernel hangs
    every orphan that comes to a process, however many threads it has. None as in `children_of`."""
    return _children_of_thread(pid, pid)


def _children_of_thread(pid: int, thread: int | str) -> list[int] | None:
    text = b""
    try:
        fd = os.open(f"/proc/{pid}/task/{thread}/children", os.O_RDONLY)
        try:
            while more := os.read(fd, 65536):  # a page at a time
                text += more
        finally:
            os.close(fd)
    except OSError as error:
        raise_unless_gone(error)
        if os.path.exists(f"/proc/{pid}/task/{thread}"):
            return None
    return [int(word) for word in text.split()]


def environment_has(pid: int, marker: bytes) -> bool:
    """Whether the process was started with this `NAME=value` in its environment."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return marker in file.read(1024 * 1024).split(b"\0")
    except OSError as error:
        raise_unless_gone(error)
        return False


def become_subreaper() -> bool:
    """Orphans of our descendants become our children from now on. False where Linux refuses."""
    return bool(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def die_with_parent(number: int) -> None:
    """This process gets signal `number` when the thread that forked it ends; survives exec."""
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def reap_others(mine: Set[int]) -> None:
    """Buries dead children that nobody waits for (adopted orphans); leaves those in `mine`. Where
    they stay, every look takes longer, and in the end no process can be started any more."""
    with suppress(ChildProcessError):
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return
    me = os.getpid()
    found = children_of(me)
    if found is None:
        found = [row.pid for row in Table().children.get(me, ()) if row.state == "Z"]
    for pid in found:
        if pid not in mine:
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def stands_still(process: Process) -> bool:
    """Whether every thread of it is stopped (or it is dead), not only the first one."""
    if process.state in GONE:
        return True
    if process.state not in STOPPED:
        return False
    try:
        threads = os.listdir(f"/proc/{process.pid}/task")
    except OSError as error:
        raise_unless_gone(error)
        return True
    rows = (look_at(f"/proc/{process.pid}/task/{thread}/stat") for thread in threads)
    return all(row is None or row.state in STOPPED or row.state in GONE for row in rows)


def raise_unless_gone(error: OSError) -> None:
    """Of an error while looking: either there is nothing to look at, or it raises CannotLook."""
    if error.errno in _EXHAUSTED:
        raise CannotLook(error.errno, error.strerror) from error
