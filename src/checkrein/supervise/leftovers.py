"""What earlier supervisors left when they were killed: events not shipped, runs without an end.

The next supervisor of the same user takes their folders over: it ships what is there, and reports
each run that never ended as `lost`.
"""

import logging
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from checkrein.supervise import proc
from checkrein.supervise.cgroup import Leaf
from checkrein.supervise.journal import Journal
from checkrein.supervise.outcome import Ending, Exit
from checkrein.supervise.place import Manifest, Place, abandoned

_log = logging.getLogger(__name__)
TAKEN_MAX = 32
"""How many folders one supervisor takes over; the next ones are for the next supervisor."""


class Leftovers:
    """Found at the start, locked until `remove`. What still runs is dealt with as its pact says:
    `halt` kills it; else it goes on unsupervised, is not touched, and this is said."""

    def __init__(self, environ: Mapping[str, str], own: Place) -> None:
        self.agents: set[str] = set()
        self.folders: list[Path] = []
        self._places: list[tuple[Place, Manifest]] = []
        for place, manifest in abandoned(environ):
            if place.folder == own.folder or len(self._places) >= TAKEN_MAX:
                place.release()
                continue
            if _lives(manifest) and not _end(manifest):
                _log.warning(
                    "run %s goes on without a supervisor (pid %d)",
                    manifest.run.run_id,
                    manifest.main,
                )
                place.release()
                continue
            self._take(place, manifest)

    def _take(self, place: Place, manifest: Manifest) -> None:
        if manifest.cgroup:
            Leaf(Path(manifest.cgroup)).remove()
        self.agents.update(manifest.agents)
        self.folders.append(place.recorders)
        self._places.append((place, manifest))

    def report(self, journal: Journal) -> None:
        """Runs without an end get one."""
        reason = "its supervisor was killed; found gone by the next one"
        for place, manifest in self._places:
            if not manifest.ended and manifest.main:
                journal.ended(manifest.run, 0, Ending("lost", reason), Exit())
                place.write(msgspec.structs.replace(manifest, ended=True))

    def remove(self) -> None:
        """Gives up the folders; those of which the store has confirmed everything are deleted (a
        shipper deletes each recorder when that is so)."""
        for place, _ in self._places:
            if is_empty(place.recorders):
                place.remove()
            place.release()
        self._places.clear()


def is_empty(folder: Path) -> bool:
    try:
        return not any(folder.iterdir())
    except FileNotFoundError:
        return True


def _lives(manifest: Manifest) -> bool:
    now = proc.look(manifest.main) if manifest.main else None
    if now is not None and now.started == manifest.main_started and proc.alive(now):
        return True
    if manifest.cgroup:
        with suppress(OSError):
            return Leaf(Path(manifest.cgroup)).populated()
    return False


def _end(manifest: Manifest) -> bool:
    """Kills what may not go on without a supervisor. False: it may."""
    if manifest.lost_contact != "halt":
        return False
    if manifest.cgroup:
        with suppress(OSError):
            Leaf(Path(manifest.cgroup)).kill()
    now = proc.look(manifest.main)
    if now is not None and now.started == manifest.main_started:
        with suppress(ProcessLookupError):
            if os.getpgid(now.pid) == now.pid:
                os.killpg(now.pid, signal.SIGKILL)
        proc.send(now, signal.SIGKILL)
    return True
