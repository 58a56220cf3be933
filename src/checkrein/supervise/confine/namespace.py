"""A network of its own with nothing in it, and a view of the files in which some are not there."""

import fcntl
import os
import socket
import stat
import struct
from collections.abc import Sequence
from contextlib import suppress

from checkrein.supervise.confine import kernel

_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 # replaced by one of its own


def leave() -> str:
    """Leaves the host's network and mounts for new ones; returns how: `root`, or `user` (by a user
    namespace). Raises OSError when the machine allows neither."""
    flags = kernel.CLONE_NEWNET | kernel.CLONE_NEWNS
    try:
        kernel.unshare(flags)
        how = "root"
    except PermissionError:
        user, group = os.getuid(), os.getgid()
        kernel.unshare(flags | kernel.CLONE_NEWUSER)
        with suppress(FileNotFoundError):
            _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
        how = "user"
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    return how


def raise_loopback() -> None:
    """Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        answer = fcntl.ioctl(asking, _SIOCGIFFLAGS, struct.pack("16sh22x", b"lo", 0))
        flags = struct.unpack("16sh22x", answer)[1] | _IFF_UP
        fcntl.ioctl(asking, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags))


def listen(host: str, port: int) -> socket.socket:
    """The gateway's address, inside. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind((host, port))
    found.listen(512)
    return found


def hide(paths: Sequence[str]) -> None:
    """In place of each stands an empty folder or an empty file; and shared memory is the program's
    own. Raises OSError."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    for path in paths:
        with suppress(FileNotFoundError):
            mode = os.stat(path).st_mode
            if stat.S_ISDIR(mode):
                kernel.mount("tmpfs", path, "tmpfs", flags | kernel.MS_RDONLY, "size=4k,mode=755")
            else:
                kernel.mount("/dev/null", path, "", kernel.MS_BIND)
    if os.path.isdir(_SHARED_MEMORY):
        kernel.mount("tmpfs", _SHARED_MEMORY, "tmpfs", flags, "mode=1777")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
