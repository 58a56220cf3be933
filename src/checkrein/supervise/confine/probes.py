"""Tried from inside, when the walls stand and before the program begins: nothing here may work."""

import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from checkrein.supervise.confine import kernel
from checkrein.supervise.confine.plan import Plan

_PTRACE_SEIZE = 0x4206
_FAST_OPEN = 0x20000000
_OUTSIDE = Path("/var/tmp")  # noqa: S108 # where nothing may be made
Probe = tuple[str, Callable[[], object]]


class Canaries:
    """Sockets made outside the walls, for trying to reach them from inside. Raises OSError."""

    def __init__(self, path: str) -> None:
        self._open = ExitStack()
        self.tcp = self._listening(socket.AF_INET, ("127.0.0.1", 0))
        self.path = path
        with suppress(FileNotFoundError):
            os.unlink(path)
        self._listening(socket.AF_UNIX, path)
        self.abstract = self._listening(socket.AF_UNIX, b"\0checkrein-canary-%d" % os.getpid())
        self.tcp6: Any = None
        with suppress(OSError):
            self.tcp6 = self._listening(socket.AF_INET6, ("::1", 0))

    def close(self) -> None:
        self._open.close()

    def _listening(self, family: int, address: Any) -> Any:
        made = self._open.enter_context(socket.socket(family, socket.SOCK_STREAM))
        made.bind(address)
        made.listen(8)
        return made.getsockname()


def escapes(plan: Plan, canaries: Canaries) -> list[str]:
    """What leads out although it must not, in words."""
    return [what for what, attempt in _all(plan, canaries) if _works(attempt)]


def _all(plan: Plan, canaries: Canaries) -> Iterator[Probe]:
    inet, unix = socket.AF_INET, socket.AF_UNIX
    yield "TCP to another port", lambda: _connect(inet, canaries.tcp)
    if canaries.tcp6:
        yield "TCP over IPv6", lambda: _connect(socket.AF_INET6, canaries.tcp6)
    yield "TCP fast open", lambda: _fast_open(canaries.tcp)
    yield "UDP", lambda: socket.socket(inet, socket.SOCK_DGRAM).sendto(b"?", ("127.0.0.1", 9))
    yield "raw sockets", lambda: socket.socket(inet, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    yield "packet sockets", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    yield "netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    yield "Unix sockets by path", lambda: _connect(unix, canaries.path)
    yield "abstract Unix sockets", lambda: _connect(unix, canaries.abstract)
    yield "Unix datagrams", lambda: socket.socket(unix, socket.SOCK_DGRAM)
    yield "io_uring", lambda: kernel.call("io_uring_setup", 1, ctypes.create_string_buffer(120))
    yield "new namespaces", lambda: kernel.unshare(kernel.CLONE_NEWUSER)
    yield "signals to the supervisor", lambda: os.kill(plan.supervisor, 0)
    yield "ptrace", lambda: kernel.call("ptrace", _PTRACE_SEIZE, plan.supervisor, 0, 0)
    yield "the supervisor's memory", lambda: os.open(f"/proc/{plan.supervisor}/mem", os.O_RDONLY)
    for secret in plan.secrets:
        yield secret, lambda secret=secret: os.open(secret, os.O_RDONLY)  # type: ignore[misc] # bound at once
    yield "files outside", lambda: _make(Path("/"))
    if not any(grant.how == "write" and _OUTSIDE.is_relative_to(grant.path)
               for grant in plan.grants):  # fmt: skip
        yield f"files in {_OUTSIDE}", lambda: _make(_OUTSIDE)


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, ValueError):
        return False
    return True


def _connect(family: int, address: Any) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as trying:
        trying.settimeout(2)
        trying.connect(address)


def _fast_open(address: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trying:
        trying.settimeout(2)
        trying.sendto(b"?", _FAST_OPEN, address)


def _make(folder: Path) -> None:
    path = folder / f".checkrein-{os.getpid()}"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    path.unlink()
