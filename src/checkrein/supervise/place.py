"""The folder of one supervised run: its agents' recorders, and what a later supervisor must know.

    $XDG_STATE_HOME/checkrein/runs/RUN_ID/      (0700)
        manifest        JSON, replaced whole: who runs here, since when, under which session
        lock            held (flock) by the living supervisor, and by who starts it
        recorders/      one folder for each recorder
        tmp/            what a confined program has for temporary files
        agent.sock      where the agent's processes speak

Whoever can take the lock knows that no supervisor lives, and may finish what it left.
"""

import fcntl
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from checkrein.bus.messages import RunRecord
from checkrein.supervise.confine.plan import Plan

SOCKET_PATH_BYTES_MAX = 100
MANIFEST_BYTES_MAX = 1024 * 1024


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`main` and `main_started` name the agent's first process (0: not started yet). `agents` are
    all for which anything is recorded here."""

    run: RunRecord
    argv: list[str] = []
    main: int = 0
    main_started: int = 0
    cgroup: str = ""
    session: str = ""
    agents: list[str] = []
    lost_contact: str = "continue"
    ended: bool = False
    run_key: str = ""
    """The run's key at the gateway, for whoever must renew it."""
    environment: dict[str, str] = {}
    """What a later supervisor must know of the program's, no secrets."""
    confined: Plan | None = None
    """How the program was confined, for whoever opens its door again."""


class Place:
    """One run's folder. Made by `make`; an abandoned one is opened by `abandoned`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = -1

    @classmethod
    def make(cls, manifest: Manifest, environ: Mapping[str, str]) -> "Place":
        """The folder, locked: another supervisor that starts at this moment must not take it for
        an abandoned one. Raises OSError when the state folder cannot be written."""
        folder = runs_folder(environ) / manifest.run.run_id
        folder.mkdir(mode=0o700, parents=True)
        place = cls(folder)
        place.recorders.mkdir(mode=0o700)
        place.take(wait=True)  # whoever finds it without a manifest lets it go at once
        place.write(manifest)
        return place

    @property
    def recorders(self) -> Path:
        return self.folder / "recorders"

    @property
    def tmp(self) -> Path:
        """Beside the socket, whose path is short: there are sockets in it, too."""
        return self.socket.with_name("tmp")

    @property
    def socket(self) -> Path:
        """In the folder, unless that makes too long a path for a socket."""
        path = self.folder / "agent.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
            return path
        base = Path(f"/tmp/checkrein-{os.getuid()}")  # noqa: S108 # made 0700 and checked below
        base.mkdir(mode=0o700, exist_ok=True)
        if base.stat().st_uid != os.getuid():
            raise OSError(f"{base} belongs to another user")
        base.chmod(0o700)
        return base / self.folder.name / "agent.sock"

    def read(self) -> Manifest | None:
        """None when there is none, or none that can be read."""
        try:
            data = (self.folder / "manifest").read_bytes()[:MANIFEST_BYTES_MAX]
            return msgspec.json.decode(data, type=Manifest)
        except (OSError, msgspec.MsgspecError):
            return None

    def write(self, manifest: Manifest) -> None:
        beside = self.folder / "manifest.new"
        beside.write_bytes(msgspec.json.encode(manifest))
        beside.replace(self.folder / "manifest")

    def take(self, wait: bool = False) -> bool:
        """Takes the lock, until `release` or until this process and those forked from it are gone.
        False: another holds it (with `wait`, it is waited for)."""
        if self._lock >= 0:
            return True
        fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            os.close(fd)
            return False
        self._lock = fd
        return True

    def release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """All of it, once the store has confirmed every event."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            if self.socket.parent != self.folder:
                shutil.rmtree(self.socket.parent, ignore_errors=True)


def runs_folder(environ: Mapping[str, str]) -> Path:
    state = environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state else Path(environ.get("HOME", "") or "/tmp") / ".local/state"  # noqa: S108 # no home: the last resort
    return base / "checkrein" / "runs"


def abandoned(environ: Mapping[str, str]) -> list[tuple[Place, Manifest]]:
    """Folders whose supervisor is gone, oldest first; each is locked for us."""
    folder = runs_folder(environ)
    found: list[tuple[Place, Manifest]] = []
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for name in names:
        place = Place(folder / name)
        with suppress(OSError):
            if not place.take():
                continue
            manifest = place.read()
            if manifest is None:
                place.release()
                continue
            found.append((place, manifest))
    return found
