"""The sockets and the work of a process tree, looked up in `/proc`: what leads past the gateway
although nobody told of it."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from checkrein.supervise import proc
from checkrein.supervise.confine.addresses import Address
from checkrein.supervise.confine.door import Seen
from checkrein.supervise.tree import Tree
from checkrein.supervise.unit import Unit
from checkrein.world import World

LOOK_S = 0.5
DESCRIPTORS_MAX = 4096
PROCESSES_MAX = 512
INODES_MAX = 8192
CPU_S_MAX = 30.0
"""So much work of its processors without a word from its code is told."""
_TABLES = ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet")
_TICKS_S = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Row:
    """A socket as the kernel lists it. `host` is empty for one that is connected to nobody."""

    table: str
    inode: int
    host: str = ""
    port: int = 0


@dataclass
class Sight:
    """Looks at one tree. `interested(host, port)`: whether such a connection would be told."""

    tell: Callable[[Seen], None]
    interested: Callable[[str, int], bool]
    without: set[int]
    _foreign: dict[int, int] = field(default_factory=dict)
    _quiet_since_s: float = 0.0
    _heard_ns: int = -1
    _told_cpu: bool = False

    async def keep(self, unit: Unit, world: World) -> None:
        """Until cancelled."""
        while True:
            await world.sleep(LOOK_S)
            with suppress(proc.CannotLook):  # the next time, then
                if unit.exit is None:
                    self.look(unit)

    def look(self, unit: Unit) -> None:
        """Once, twice a second. Raises proc.CannotLook."""
        pids = list(_pids(unit.tree, self.without))[:PROCESSES_MAX]
        self._look_at_work(unit, pids)
        if not self.interested("", 0):
            return
        rows = {row.inode: row for row in rows_of(unit.tree.main) if self._matters(row)}
        fresh = {inode for inode in rows if self._foreign.get(inode, 0) < 3}
        for pid in pids if fresh else ():
            for inode in inodes_of(pid) & fresh:
                self._tell(rows[inode], pid)
                fresh.discard(inode)
        # A socket that is nobody's of this tree now may be passed to it, or its owner just came.
        kept = {inode: count for inode, count in self._foreign.items() if inode in rows}
        self._foreign = {**kept, **{inode: kept.get(inode, 0) + 1 for inode in fresh}}
        if len(self._foreign) > INODES_MAX:
            self._foreign.clear()

    def _matters(self, row: Row) -> bool:
        if row.table in ("raw", "raw6", "packet"):
            return True
        return self.interested(row.host, row.port) if row.host else row.table.startswith("udp")

    def _tell(self, row: Row, pid: int) -> None:
        if row.table in ("raw", "raw6", "packet"):
            self.tell(Seen("raw", "", pid, False))
        elif not row.host:
            self.tell(Seen("datagram", "anywhere (UDP)", pid, False))
        else:
            address = Address("inet", row.host, row.port)
            kind = "datagram" if row.table.startswith("udp") else "connection"
            self.tell(Seen(kind, str(address), pid, False, address))

    def _look_at_work(self, unit: Unit, pids: list[int]) -> None:
        """What was burnt since its code last said anything."""
        heard_ns = max((run.heard_ns for run in unit.runs.values()), default=0)
        burnt_s = sum(worked_s(pid) for pid in pids)
        if heard_ns != self._heard_ns:
            self._heard_ns, self._quiet_since_s, self._told_cpu = heard_ns, burnt_s, False
        spent_s = burnt_s - self._quiet_since_s
        if spent_s < CPU_S_MAX or self._told_cpu:
            return
        self._told_cpu = True
        words = f"{CPU_S_MAX:.0f} s of processor time went by without a word from its code"
        self.tell(Seen("cpu", words, unit.tree.main, False))


def rows_of(pid: int) -> Iterator[Row]:
    """The sockets of a process's network that are connected, or need not be."""
    for table in _TABLES:
        with suppress(OSError), open(f"/proc/{pid}/net/{table}") as file:
            next(file, None)
            for line in file:
                row = _row(table, line.split())
                if row is not None:
                    yield row


def inodes_of(pid: int) -> set[int]:
    """The sockets that a process holds. Raises proc.CannotLook."""
    found: set[int] = set()
    try:
        names = os.listdir(f"/proc/{pid}/fd")[:DESCRIPTORS_MAX]
    except OSError as error:
        proc.raise_unless_gone(error)
        return found
    for name in names:
        with suppress(OSError):
            link = os.readlink(f"/proc/{pid}/fd/{name}")
            if link.startswith("socket:["):
                found.add(int(link[8:-1]))
    return found


def worked_s(pid: int) -> float:
    """Processor seconds of a process and of those of its children that it has buried."""
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read(1024).rpartition(b")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) * _TICKS_S
    return 0.0


def _row(table: str, fields: list[str]) -> Row | None:
    try:
        if table == "packet":
            return Row(table, int(fields[8]))
        host, port = _address(fields[2])
        inode, state = int(fields[9]), int(fields[3], 16)
    except (ValueError, IndexError):
        return None
    listening = 0x0A
    if not inode or (table.startswith("tcp") and (state == listening or not port)):
        return None
    return Row(table, inode, host if port else "", port)


def _address(text: str) -> tuple[str, int]:
    """As `/proc/net` writes it: words of the machine's byte order in hex."""
    words, _, port = text.partition(":")
    data = b"".join(
        int(words[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(words), 8)
    )
    family = socket.AF_INET6 if len(data) == 16 else socket.AF_INET
    host = socket.inet_ntop(family, data)
    return host.removeprefix("::ffff:") if "." in host else host, int(port, 16)


def _pids(tree: Tree, without: set[int]) -> Iterator[int]:
    """The tree's processes: those below its main one, and the orphans that came to us."""
    if tree.leaf is not None:
        with suppress(OSError):
            yield from tree.leaf.pids()
            return
    seen: set[int] = set()
    todo = [tree.main, *(proc.children_of(os.getpid()) or [])]
    while todo:
        pid = todo.pop()
        if pid not in seen and pid not in without:
            seen.add(pid)
            yield pid
            todo += proc.children_of(pid) or []
