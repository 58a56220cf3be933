"""What `doctor` looks at on this machine."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from checkrein.cli import words

DISK_BYTES_MIN = 1024**3

Verdict = Literal["ok", "note", "bad"]


class Finding(NamedTuple):
    """`note` is worth knowing and nothing is wrong; `bad` is wrong."""

    verdict: Verdict
    what: str
    said: str


def machine() -> Iterator[Finding]:
    """What a supervisor on this machine can do."""
    yield _cgroup()
    yield _subreaper()
    yield _nats_binary()


def _cgroup() -> Finding:
    from checkrein.supervise.cgroup import Leaf, NoCgroup

    try:
        leaf = Leaf.make(f"checkrein-doctor-{os.getpid()}")
    except NoCgroup as error:
        return Finding(
            "note", "cgroup",
            f"not writable ({error}): children are found and killed by the subreaper sweep instead",
        )  # fmt: skip
    where = leaf.path.parent
    leaf.remove()
    return Finding("ok", "cgroup", f"v2, writable at {where}: a whole process tree dies at once")


def _subreaper() -> Finding:
    if Path("/proc/self/status").exists():
        return Finding("ok", "subreaper", "available: orphaned grandchildren are caught")
    return Finding("bad", "subreaper", "this is not Linux: supervised halts are not guaranteed")


def _nats_binary() -> Finding:
    from checkrein.bus.embedded import ServerError, find_binary

    try:
        return Finding("ok", "nats-server", find_binary())
    except ServerError as error:
        return Finding("bad", "nats-server", str(error))


def local_data(data: Path) -> Iterator[Finding]:
    """What can be seen of a data folder on this machine."""
    yield _token(data)
    yield _disk(data)
    for name in ("events", "control"):
        folder = data / "bus" / name
        if folder.is_dir():
            yield _sync(name, data)
            yield Finding("ok", f"{name} log", "followed: what this bus refuses is reported")
        else:
            yield Finding(
                "note", f"{name} log",
                "the server is not ours, so its log is not followed: a forged subject is refused "
                "there all the same, but no incident tells of it",
            )  # fmt: skip


def _token(data: Path) -> Finding:
    path = data / "operator.token"
    try:
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        return Finding("bad", "token", f"{path}: {error.strerror}")
    if mode & 0o077:
        return Finding("bad", "token", f"{path} can be read by others: chmod 600 {path}")
    return Finding("ok", "token", f"{path}, readable by its owner only")


def _disk(data: Path) -> Finding:
    try:
        usage = shutil.disk_usage(data)
    except OSError as error:
        return Finding("bad", "disk", f"{data}: {error.strerror}")
    said = f"{words.size(usage.free)} free of {words.size(usage.total)} at {data}"
    if usage.free < DISK_BYTES_MIN:
        return Finding("bad", "disk", f"{said}: recording stops when it is full")
    return Finding("ok", "disk", said)


def _sync(name: str, data: Path) -> Finding:
    """Asks the running server itself, not its configuration."""
    from checkrein.bus.credentials import Keys, KeysError
    from checkrein.bus.embedded import EmbeddedServer, ServerError

    folder = data / "bus" / name
    what = f"{name} sync"
    try:
        port = int((folder / "port").read_text())
        server = EmbeddedServer(name, folder, port, Keys(data / "keys"))
        asyncio.run(server.check())
    except ServerError as error:
        return Finding("bad", what, str(error))
    except (OSError, ValueError, KeysError) as error:
        return Finding("bad", what, f"cannot be asked: {error}")
    except Exception as error:
        return Finding("bad", what, f"the {name} server does not answer: {error!r}")
    return Finding("ok", what, "every write is on the disk before it is acknowledged")
