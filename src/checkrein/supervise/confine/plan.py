"""What a program may touch: made by the supervisor from the command, its environment and the
machine, and told to the child as data. Pure but for looking at what stands where."""

import os
import shutil
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from checkrein.supervise.confine.landlock import Grant

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/proc",
          "/sys/devices/system", "/sys/kernel/mm/transparent_hugepage")  # fmt: skip
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty",
           "/dev/ptmx", "/dev/pts")  # fmt: skip
SHARED_MEMORY = "/dev/shm"  # noqa: S108 # only where it is the program's own
SOCKETS = ("/run/docker.sock", "/run/containerd", "/run/podman", "/run/dbus", "/run/systemd",
           "/run/crio", "/run/libvirt", "/tmp/.X11-unix")  # noqa: S108 # fmt: skip
NOT_ITS_BUSINESS = ("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "DOCKER_HOST", "GPG_AGENT_INFO",
                    "XAUTHORITY", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY",
                    "HTTPS_PROXY", "ALL_PROXY")  # fmt: skip
"""Names taken out of its environment: sockets of the user's session, and proxies, by which calls
to the gateway would go astray."""
_CARVE_DEPTH_MAX = 12


class CannotPlan(ValueError):
    """It cannot be confined as asked; the message says what to do."""


class Gateway(msgspec.Struct, frozen=True):
    """Where it listens, on this machine."""

    host: str
    port: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`level`: L2 or L3. `landlock`: the version to speak. `hide`: paths that are not there any
    more (L3). `canary`: path of a socket that must turn out to be out of reach; `secrets`: files
    that must. `supervisor`: its pid, that must not be signalled."""

    level: str
    landlock: int
    gateway: Gateway
    grants: list[Grant]
    hide: list[str] = []
    canary: str = ""
    secrets: list[str] = []
    supervisor: int = 0


def gateway_of(url: str) -> Gateway:
    """Raises CannotPlan when it is not on this machine."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = parts.hostname or ""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (ValueError, OSError) as error:
        raise CannotPlan(f"{url} names no gateway: {error}") from error
    for *_, address in found:
        host = str(address[0])
        if host == "::1" or host.startswith("127."):
            return Gateway(host, port)
    raise CannotPlan(
        f"the gateway {url} is not on this machine; a confined program reaches only one that is: "
        "run `checkrein serve gateway` here"
    )


def grants_of(
    argv: Sequence[str], environ: Mapping[str, str], cwd: Path, *,
    read: Iterable[str] = (), write: Iterable[str] = (), own: Iterable[Path] = (),
    protected: Sequence[Path] = (), hides: bool = False,
) -> list[Grant]:  # fmt: skip
    """What the program needs. `own`: folders of this run, granted whole; `protected`: what must not
    be reached, even if it lies below something granted; `hides`: all but the first will be hidden
    there, so that only the first need be left out. Raises CannotPlan for a working folder that
    holds too much."""
    home = Path(environ.get("HOME", "") or "/root").resolve()
    cwd = cwd.resolve()
    if home.is_relative_to(cwd):
        raise CannotPlan(
            f"the working folder {cwd} would be open to the program, and the home folder with it; "
            "start it in a folder of its own"
        )
    inside = [path for path in protected if cwd.is_relative_to(path)]
    if inside:
        raise CannotPlan(f"the working folder lies in {inside[0]}, which a program must not reach")
    reads = [Path(path) for path in (*SYSTEM, *read)]
    reads += [*_etc(), *_program(argv, environ), *_python(environ)]
    writes = [cwd, *(Path(path) for path in write)]
    found = [Grant(str(path), "write") for path in own]
    devices = [*DEVICES, *([SHARED_MEMORY] if hides else [])]
    for how, paths in (("read", reads), ("write", writes)):
        for path in _distinct(paths):
            if how == "read" and (path == Path("/") or home.is_relative_to(path)):
                continue  # a program in the home folder opens it no more than `ls` would
            pieces = _carve(path, protected[:1] if hides else protected)
            found += [Grant(str(piece), how) for piece in pieces]
    found += [Grant(SHARED_MEMORY, "write") if path == SHARED_MEMORY else Grant(path, "use")
              for path in devices]  # fmt: skip
    return found


def hidden(environ: Mapping[str, str], protected: Sequence[Path]) -> list[str]:
    """What is put out of sight: sockets that lead out, and what is protected."""
    session = environ.get("XDG_RUNTIME_DIR", "") or f"/run/user/{os.getuid()}"
    agent = environ.get("SSH_AUTH_SOCK", "")
    paths = [*SOCKETS, session, *([agent] if agent else []), *map(str, protected)]
    return [path for path in dict.fromkeys(map(os.path.realpath, paths)) if os.path.exists(path)]


def without_others(environ: Mapping[str, str], tmp: Path) -> dict[str, str]:
    """The environment of a confined program: its own folder for what is temporary, and nothing that
    names others' sockets."""
    kept = {name: value for name, value in environ.items() if name not in NOT_ITS_BUSINESS}
    return {**kept, "TMPDIR": str(tmp), "TMP": str(tmp), "TEMP": str(tmp)}


def _etc() -> list[Path]:
    """What everybody may read there."""
    try:
        entries = list(os.scandir("/etc"))
    except OSError:
        return []
    return [Path(each.path) for each in entries if _for_everybody(each)]


def _for_everybody(entry: "os.DirEntry[str]") -> bool:
    try:
        return bool(entry.stat().st_mode & 0o004)
    except OSError:
        return False


def _program(argv: Sequence[str], environ: Mapping[str, str]) -> list[Path]:
    """Where the program is, the installation it belongs to, and the script that it is given."""
    search = environ.get("PATH", os.defpath)
    found = [Path(each) for each in search.split(os.pathsep) if each.startswith("/")]
    which = shutil.which(argv[0], path=search) if argv else None
    if which:
        for path in (Path(which).absolute(), Path(which).resolve()):
            found += [*_installation(path), path]
    for argument in argv[1:]:
        script = Path(argument)
        if script.suffix in (".py", ".js", ".mjs", ".ts", ".sh") and script.is_file():
            found.append(script.resolve().parent)
            break
    return found


def _installation(program: Path) -> list[Path]:
    prefix = program.parent.parent
    config = prefix / "pyvenv.cfg"
    if config.is_file():
        lines = (line.partition("=") for line in config.read_text().splitlines())
        homes = [Path(value.strip()) for name, _, value in lines if name.strip() == "home"]
        return [prefix, *(base.parent for base in homes)]
    return [prefix] if list(prefix.glob("lib/python3*")) else []


def _python(environ: Mapping[str, str]) -> list[Path]:
    """Our own package with what it needs, and what the environment adds."""
    import checkrein

    package = Path(checkrein.__file__ or "").resolve().parent.parent
    added = [Path(each) for each in environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    own = [Path(each) for each in sys.path if each and Path(each).is_dir()]
    pact = environ.get("CHECKREIN_PACT", "")
    return [package, Path(sys.prefix), Path(sys.base_prefix), *own, *added,
            *([Path(pact)] if pact else [])]  # fmt: skip


def _distinct(paths: Iterable[Path]) -> list[Path]:
    """Each once, as it really is, without those below another."""
    real = sorted({path.resolve() for path in paths if path.exists()})
    found: list[Path] = []
    for path in real:
        if not found or not path.is_relative_to(found[-1]):
            found.append(path)
    return found


def _carve(path: Path, protected: Sequence[Path], depth: int = 0) -> list[Path]:
    """`path`, or what of it holds nothing protected: rights to a folder are rights to all below."""
    if any(path.is_relative_to(each) for each in protected):
        return []
    if not any(each.is_relative_to(path) for each in protected):
        return [path]
    if depth >= _CARVE_DEPTH_MAX:
        return []
    try:
        children = [child for child in path.iterdir() if not child.is_symlink()]
    except OSError:
        return []
    return [piece for child in children for piece in _carve(child, protected, depth + 1)]
