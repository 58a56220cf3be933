"""A bus server that could not write, made to write again.

After a failed write (the disk was full) NATS refuses the stream until it is started anew, even when
there is room again. So `up` follows its servers' logs: it says at once that events wait with the
agents, and when there is room it starts the server again. Nothing is lost meanwhile: a recorder
keeps an event until the store has it.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from checkrein.server.children import Child

ROOM_BYTES_MIN = 32 * 1024 * 1024
_LOOK_S = 1.0
_READ_BYTES_MAX = 256 * 1024
_MARKS = (b"Critical write error", b"failed to store a msg", b"no space left on device")


class Healing:
    """Watches the servers that keep their streams below `data`."""

    def __init__(
        self, children: Sequence[Child], data: Path, say: Callable[[str, str], None]
    ) -> None:
        self._children, self._data, self._say = children, data, say
        self._read: dict[str, int] = {}
        self._broken: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK_S)

    def look(self) -> None:
        """One look at each server's news and at the disk."""
        for child in self._children:
            name = child.spec.name
            if self._complains(child) and name not in self._broken:
                self._broken.add(name)
                self._say(
                    name,
                    f"cannot write below {self._data}: make room there. Agents go on; what they "
                    "record waits on their own disks",
                )
            if name in self._broken and _free_bytes(self._data) >= ROOM_BYTES_MIN:
                self._broken.discard(name)
                self._say(name, "there is room again")
                child.restart()

    def _complains(self, child: Child) -> bool:
        """Whether the log has grown by a complaint since the last look."""
        name, path = child.spec.name, child.spec.log
        with suppress(OSError), open(path, "rb") as log:
            end = os.fstat(log.fileno()).st_size
            begin = self._read.setdefault(name, end)
            log.seek(max(min(begin, end), end - _READ_BYTES_MAX))
            self._read[name] = end
            news = log.read(_READ_BYTES_MAX)
            return any(mark in news for mark in _MARKS)
        return False


def _free_bytes(folder: Path) -> int:
    with suppress(OSError):
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize
    return 0
