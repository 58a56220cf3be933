"""Landlock: what a process and all it starts may do with files and TCP, and whom it may signal.
Needs no privilege and cannot be taken back."""

import os
import struct
from collections.abc import Iterable

import msgspec

from checkrein.supervise.confine import kernel

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 1 << 1, 1 << 2, 1 << 3
MAKE_CHAR, MAKE_BLOCK, REFER, TRUNCATE, IOCTL_DEV = 1 << 6, 1 << 11, 1 << 13, 1 << 14, 1 << 15
_FS_BITS_BY_ABI = ((1, 13), (2, 14), (3, 15), (5, 16), (9, 17))
"""From this ABI on, so many rights to files are known: the last is to look up Unix sockets."""
_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_READ = EXECUTE | READ_FILE | READ_DIR
_NO_DEVICES = ~(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV | 1 << 16)
BIND_TCP, CONNECT_TCP = 1, 2
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2
_VERSION = 1
_PATH_BENEATH = 1
ABI_TCP, ABI_SCOPES = 4, 6


class Grant(msgspec.Struct, frozen=True):
    """A path and all below it. `use`: what stands there is read, written and told what to do (a
    terminal), but nothing is made."""

    path: str
    how: str = "read"
    """read, write or use"""


def abi() -> int:
    """The newest version that this kernel speaks; 0 for none."""
    try:
        return kernel.call("landlock_create_ruleset", None, 0, _VERSION)
    except OSError:
        return 0


def handled(version: int) -> int:
    """All rights to files that a ruleset of this version knows."""
    return (1 << max((bits for since, bits in _FS_BITS_BY_ABI if since <= version), default=0)) - 1


def rights(how: str, is_folder: bool, version: int) -> int:
    """The rights that a grant gives, as bits."""
    known = handled(version)
    found = {"read": _READ, "write": known & _NO_DEVICES}.get(
        how, READ_FILE | WRITE_FILE | READ_DIR | IOCTL_DEV
    )
    return found & known & (-1 if is_folder else _FILE_RIGHTS)


def restrict(grants: Iterable[Grant], version: int, *, tcp: bool) -> None:
    """From now on this thread and all it starts may touch the grants' paths only; with `tcp`,
    neither connect nor bind by TCP; and signal, or speak by an abstract socket, to nobody outside.
    Paths that do not exist are passed over. Needs no_new_privs. Raises OSError."""
    net = BIND_TCP | CONNECT_TCP if tcp and version >= ABI_TCP else 0
    scoped = SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS if version >= ABI_SCOPES else 0
    attributes = struct.pack("QQQ", handled(version), net, scoped)
    size = 24 if version >= ABI_SCOPES else 16 if version >= ABI_TCP else 8
    ruleset = kernel.call("landlock_create_ruleset", attributes, size, 0)
    try:
        for grant in grants:
            _add(ruleset, grant, version)
        kernel.call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _add(ruleset: int, grant: Grant, version: int) -> None:
    try:
        fd = os.open(grant.path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
        is_folder = os.path.isdir(f"/proc/self/fd/{fd}")
        allowed = rights(grant.how, is_folder, version)
        rule = struct.pack("=Qi", allowed, fd)
        kernel.call("landlock_add_rule", ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(fd)
