"""What an evader is given: addresses that it must not reach."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Canary:
    """`tcp`, `tcp6` and `udp` are ports of this machine, `unix` a socket's path, `abstract` its
    name; `secret` a file of the operator's, `outside` one that nobody wrote yet; `gateway` the port
    of what may be reached."""

    tcp: int
    tcp6: int
    udp: int
    unix: str
    abstract: str
    secret: str
    outside: str
    gateway: int


def call(family: int, address: object, kind: int = socket.SOCK_STREAM) -> bool:
    """Connects and says something. Raises OSError."""
    with socket.socket(family, kind) as link:
        link.settimeout(3)
        link.connect(address)  # type: ignore[arg-type] # of this family
        link.sendall(b"the secret\n")
        return bool(link.recv(1))


def tcp(port: int) -> bool:
    return call(socket.AF_INET, ("127.0.0.1", port))


CONNECTS = (
    "import socket,sys\n"
    "link=socket.create_connection(('127.0.0.1',int(sys.argv[1])),3)\n"
    "link.sendall(b'the secret\\n')\n"
    "link.recv(1)\n"
)
"""A program that connects to the port it is given."""


def supervisor() -> int:
    """The pid of the supervisor, found as anybody finds it."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            name = (entry / "comm").read_text().strip()
            children = (entry / "task" / entry.name / "children").read_text().split()
        except OSError:
            continue
        if name == "checkrein-super" and str(leader()) in children:
            return int(entry.name)
    raise ProcessLookupError("no supervisor is to be seen")


def leader() -> int:
    """The program's first process: the leader of its group."""
    return os.getpgrp()
