"""What a program was seen to do past the gateway, or tried and was refused, as events of its run.

Each thing is recorded once a run, so that a program which tries for ever fills no record.
"""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from checkrein.supervise import proc
from checkrein.supervise.confine.addresses import Address
from checkrein.supervise.confine.door import Seen
from checkrein.supervise.confine.plan import SOCKETS
from checkrein.supervise.journal import Journal
from checkrein.supervise.unit import Unit

_log = logging.getLogger(__name__)
DIFFERENT_MAX = 64
"""So many different things are recorded of one run; then one line says that there was more."""
_NAME_SERVICE_PORT = 53
_BASES = ("OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_BASE_URL")
_CALLS = {
    "ptrace": "looked into another process",
    "process_vm_readv": "read another process's memory",
    "process_vm_writev": "wrote another process's memory",
    "pidfd_getfd": "took another process's descriptor",
    "io_uring_setup": "set up io_uring, whose connections are not seen",
    "unshare": "made namespaces of its own",
    "setns": "went into other namespaces",
    "bpf": "loaded a program into the kernel",
    "socket": "opened a raw socket",
    "raw": "holds a raw socket",
}


class Witness:
    """For one program. `meant`: its calls are meant to go through a gateway, so that all other
    connections are ways around it; else only what was refused is recorded."""

    def __init__(
        self, journal: Journal, unit: Callable[[], Unit | None], environ: Mapping[str, str],
        meant: bool,
    ) -> None:  # fmt: skip
        self._journal, self._unit, self.meant = journal, unit, meant
        self._usual = usual(environ)
        self._resolvers = resolvers()
        agent = environ.get("SSH_AUTH_SOCK", "")
        self._sockets = (*SOCKETS, *([agent] if agent else []))
        self._told: set[tuple[str, str, bool]] = set()

    def tell(self, seen: Seen) -> None:
        """Records it, if it is of interest and new."""
        kind = self._kind(seen)
        if not kind:
            return
        key = (kind, seen.to, seen.refused)
        unit = self._unit()
        if unit is None or key in self._told or len(self._told) > DIFFERENT_MAX:
            return
        self._told.add(key)
        run = unit.runs.get(unit.main_run)
        if run is None:
            return
        if len(self._told) > DIFFERENT_MAX:
            kind, words = "more", f"more than {DIFFERENT_MAX} different ones: no more is recorded"
        else:
            words = _words(kind, seen)
        self._journal.bypass(
            run.record, run.step, kind=kind, to=seen.to, pid=seen.pid, words=words,
            refused=seen.refused,
        )  # fmt: skip

    def interested(self, host: str, port: int) -> bool:
        """Whether a connection to this address would be told."""
        return self.meant and (host, port) not in self._usual

    def _kind(self, seen: Seen) -> str:
        """What it is recorded as; empty when it is of no interest."""
        if seen.refused:
            return seen.kind
        if not self.meant:
            return "cpu" if seen.kind == "cpu" else ""
        address = seen.address
        if address is None:
            return seen.kind
        if address.kind == "inet":
            if (address.host, address.port) in self._usual or not address.port:
                return ""
            named = address.port == _NAME_SERVICE_PORT and address.host in self._resolvers
            return "name service" if named else seen.kind
        return seen.kind if self._leads_out(address) else ""

    def _leads_out(self, address: Address) -> bool:
        path = os.path.realpath(address.path)
        return address.kind == "unix" and any(
            path == known or path.startswith(known + "/") for known in map(os.path.realpath,
                                                                            self._sockets)
        )  # fmt: skip


def is_meant(environ: Mapping[str, str]) -> bool:
    """Whether a program's calls are meant to go through the gateway, and nowhere else."""
    gateway = environ.get("CHECKREIN_GATEWAY", "").rstrip("/")
    bases = (environ.get(name, "") for name in _BASES)
    return bool(gateway) and all(base.startswith(gateway) for base in bases if base)


def usual_names(environ: Mapping[str, str]) -> dict[str, str]:
    """What of an environment a witness needs to know, and a later one."""
    names = ("CHECKREIN_GATEWAY", "CHECKREIN_URL", "SSH_AUTH_SOCK", *_BASES)
    return {name: environ[name] for name in names if name in environ}


def usual(environ: Mapping[str, str]) -> frozenset[tuple[str, int]]:
    """Where a program that keeps to the gateway connects: it, and the server itself."""
    found: set[tuple[str, int]] = set()
    for name in ("CHECKREIN_GATEWAY", "CHECKREIN_URL"):
        parts = urlsplit(environ.get(name, ""))
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            continue
        if parts.hostname == "localhost":
            found |= {("127.0.0.1", port), ("::1", port)}
        elif parts.hostname:
            found.add((parts.hostname, port))
    return frozenset(found)


def resolvers(path: Path = Path("/etc/resolv.conf")) -> frozenset[str]:
    """The machine's own name servers."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return frozenset()
    words = (line.split() for line in lines)
    return frozenset(each[1] for each in words if len(each) > 1 and each[0] == "nameserver")


def _words(kind: str, seen: Seen) -> str:
    row = None
    try:
        row = proc.look(seen.pid)
    except proc.CannotLook as error:
        _log.warning("%s", error)
    who = f"{row.name} (pid {seen.pid})" if row is not None else f"pid {seen.pid}"
    if kind == "cpu":
        return seen.to
    if kind in _CALLS:
        return f"{who} {_CALLS[kind]}"
    if kind == "listen":
        return f"{who} was not let listen on {seen.to}"
    if seen.refused:
        return f"{who} was not let connect to {seen.to}"
    how = {"name service": "asked the name server", "datagram": "sent datagrams to"}
    return f"{who} {how.get(kind, 'connected to')} {seen.to}, past the gateway"
