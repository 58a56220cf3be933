"""Socket addresses as the kernel is given them, and which of them a program may use. Pure."""

import ipaddress
import os
import socket
import struct
from typing import Literal

import msgspec

ADDRESS_BYTES_MAX = 128
_V4, _V6, _UNIX, _UNSPECIFIED = (
    int(socket.AF_INET), int(socket.AF_INET6), int(socket.AF_UNIX), int(socket.AF_UNSPEC),
)  # fmt: skip


class Address(msgspec.Struct, frozen=True):
    """`kind`: inet, unix, abstract, or none (to disconnect; or of another family)."""

    kind: Literal["inet", "unix", "abstract", "none"]
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.kind == "inet":
            return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return f"{'@' if self.kind == 'abstract' else ''}{self.path}"


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """`inet`: host and port of what may be connected to; `loopback`: all of the machine's own
    addresses (in a network of its own). `socket`: the supervisor's; `tmp`: the folder where the
    program's processes may have sockets of their own."""

    inet: frozenset[tuple[str, int]] = frozenset()
    loopback: bool = False
    socket: str = ""
    tmp: str = ""


Way = Literal["inet", "supervisor", "own", "disconnect", "no"]


def address_of(data: bytes) -> Address:
    """From the bytes of a `struct sockaddr`."""
    family = struct.unpack_from("H", data)[0] if len(data) >= 2 else _UNSPECIFIED
    if family == _V4 and len(data) >= 8:
        return Address("inet", str(ipaddress.IPv4Address(data[4:8])), int.from_bytes(data[2:4]))
    if family == _V6 and len(data) >= 24:
        host = ipaddress.IPv6Address(data[8:24])
        shown = str(host.ipv4_mapped or host)
        return Address("inet", shown, int.from_bytes(data[2:4]))
    if family == _UNIX and len(data) > 2:
        name = data[2:]
        if name[:1] == b"\0":
            return Address("abstract", path=name[1:].decode("utf-8", "replace"))
        return Address("unix", path=os.fsdecode(name.split(b"\0", 1)[0]))
    return Address("none", path=f"address family {family}")


def way(allowed: Allowed, address: Address, folder: str) -> Way:
    """How this address is to be connected to, if at all. `folder`: of the process, for a path that
    does not begin at the root. A symbolic link in a path is not looked at here: whoever connects
    must not follow one."""
    if address.kind == "inet":
        known = (address.host, address.port) in allowed.inet
        own = allowed.loopback and ipaddress.ip_address(address.host).is_loopback
        return "inet" if known or own else "no"
    if address.kind == "none":
        return "disconnect" if address.path.endswith(f" {_UNSPECIFIED}") else "no"
    if address.kind == "abstract":
        return "no"
    path = os.path.normpath(os.path.join(folder, address.path))
    if path == allowed.socket:
        return "supervisor"
    if allowed.tmp and path.startswith(allowed.tmp + "/"):
        return "own"
    return "no"
