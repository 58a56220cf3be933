"""A cgroup of our own in the unified hierarchy, where one can be made: the strongest hold.

What is in it cannot leave by `setsid` or by forking twice; one write freezes it, forks included,
and one write kills it. Needs no controller, only a folder of the hierarchy that this user may
write: the system's for root, a delegated one for others.
"""

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from checkrein.supervise.proc import raise_unless_gone


class NoCgroup(Exception):
    """No leaf could be made; the message says where it was tried and what was in the way."""


def own_folders() -> list[Path]:
    """Where a leaf may be tried, best first: our own place in each unified mount, then its top."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        places = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line[3:] for line in places if line.startswith("0::")), "/")
    found: list[Path] = []
    for line in lines:
        before, _, after = line.partition(" - ")
        if after.split(" ")[0] != "cgroup2":
            continue
        root, mount = before.split(" ")[3:5]
        inside = os.path.relpath(own, root) if own.startswith(root) else "."
        for folder in (Path(mount) / inside, Path(mount)):
            if folder.is_dir() and folder not in found:
                found.append(folder)
    return found


@dataclass(frozen=True, eq=False)
class Leaf:
    """One cgroup. Its operations raise OSError when the hierarchy is taken away under it. The files
    that a halt needs are kept open, where there are enough descriptors."""

    path: Path
    _open: dict[str, int] = field(default_factory=dict, repr=False)

    @classmethod
    def make(cls, name: str, folders: list[Path] | None = None) -> "Leaf":
        """A new leaf that can freeze and kill. Raises NoCgroup."""
        tried: list[str] = []
        for folder in own_folders() if folders is None else folders:
            path = folder / name
            try:
                path.mkdir()
            except OSError as error:
                tried.append(f"{path}: {error.strerror}")
                continue
            if (path / "cgroup.freeze").exists() and (path / "cgroup.kill").exists():
                if os.access(path / "cgroup.procs", os.W_OK) and _may_move_into(folder):
                    return cls(path).prepared()
                tried.append(f"{path}: may not move processes into it")
            else:
                tried.append(f"{path}: this kernel cannot freeze or kill a cgroup (5.14 can)")
            with suppress(OSError):
                path.rmdir()
        raise NoCgroup("; ".join(tried) or "no unified cgroup hierarchy is mounted")

    def add(self, pid: int) -> None:
        """Moves a process (0: the caller) in; what it forks from now on is in, too."""
        self._write("cgroup.procs", str(pid))

    def freeze(self) -> None:
        self._write("cgroup.freeze", "1")

    def thaw(self) -> None:
        self._write("cgroup.freeze", "0")

    def kill(self) -> None:
        """SIGKILL to everyone in it and below, those forking right now included."""
        self._write("cgroup.kill", "1")

    def frozen(self) -> bool:
        return b"frozen 1" in self._read("cgroup.events")

    def populated(self) -> bool:
        return b"populated 1" in self._read("cgroup.events")

    def pids(self) -> list[int]:
        """Everyone in it and below. Raises CannotLook."""
        found: list[int] = []
        for folder in [self.path, *(path for path in self.path.rglob("*") if path.is_dir())]:
            try:
                found += [int(word) for word in (folder / "cgroup.procs").read_bytes().split()]
            except OSError as error:
                raise_unless_gone(error)
        return found

    def remove(self) -> bool:
        """True when it is gone; an occupied one stays."""
        self.close()
        below = [path for path in self.path.rglob("*") if path.is_dir()]
        for folder in [*sorted(below, reverse=True), self.path]:
            with suppress(OSError):
                folder.rmdir()
        return not self.path.exists()

    def prepared(self) -> "Leaf":
        """With the files open that a halt needs."""
        with suppress(OSError):
            self._open["cgroup.freeze"] = os.open(f"{self.path}/cgroup.freeze", os.O_WRONLY)
            self._open["cgroup.kill"] = os.open(f"{self.path}/cgroup.kill", os.O_WRONLY)
            self._open["cgroup.events"] = os.open(f"{self.path}/cgroup.events", os.O_RDONLY)
        return self

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def _write(self, name: str, text: str) -> None:
        fd = self._open.get(name)
        if fd is not None:
            os.pwrite(fd, text.encode(), 0)
            return
        fd = os.open(f"{self.path}/{name}", os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def _read(self, name: str) -> bytes:
        fd = self._open.get(name)
        if fd is not None:
            return os.pread(fd, 4096, 0)
        fd = os.open(f"{self.path}/{name}", os.O_RDONLY)
        try:
            return os.read(fd, 4096)
        finally:
            os.close(fd)


def _may_move_into(folder: Path) -> bool:
    """Moving needs the right to write the common ancestor's `cgroup.procs`."""
    return os.access(folder / "cgroup.procs", os.W_OK)
