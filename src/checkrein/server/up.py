"""`checkrein up`: everything on one machine, in the foreground.

Straight down: lock the data folder, make keys, start the two NATS servers and check them, start the
roles, say where things are, keep them running, and on SIGTERM or Ctrl-C stop in reverse.
"""

import asyncio
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from checkrein.bus.credentials import Keys, KeysError, write_once
from checkrein.bus.embedded import EmbeddedServer, ServerError, find_binary
from checkrein.bus.oidc_settings import IdentityError
from checkrein.bus.oidc_settings import settings_of as identity_settings
from checkrein.gateway.settings import SettingsError, settings_of
from checkrein.server.children import Child, ChildSpec
from checkrein.server.healing import Healing
from checkrein.server.options import ROLES, Options, OptionsError, read_settings
from checkrein.world import REAL

_EVENT_NICE = 10
_NATS_START_S = 10.0


class AlreadyRunning(Exception):
    """Another `up` works on this data folder."""


def main(options: Options, announce: Callable[[str], None] | None = None) -> int:
    """Runs until SIGTERM or Ctrl-C; the process's exit code. `announce` gets each line of news."""
    announce = announce or (lambda line: print(line, flush=True))  # noqa: T201 # the terminal
    try:
        find_binary()
        config = read_settings(options.config, options.data)
        settings_of(config, os.environ)
        identity_settings(config)
        _check_free(options)
        with _Lock(options.data):
            return asyncio.run(_up(options, announce))
    except (
        AlreadyRunning, OptionsError, SettingsError, IdentityError, ServerError, KeysError, OSError,
    ) as error:  # fmt: skip
        sys.stderr.write(f"checkrein: {error}\n")
        return 2


async def _up(options: Options, announce: Callable[[str], None]) -> int:
    started_ns = REAL.monotonic_ns()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    keys = Keys.load_or_create(options.data / "keys")
    token = _operator_token(options.data)

    def say(child: str, what: str) -> None:
        announce(f"{child}: {what}")

    servers = _servers(options, keys)
    options = _with_urls(options, servers)
    children = [_nats_child(server, options.data, say) for server in servers]
    roles = [_role_child(role, options, say) for role in ROLES]
    async with asyncio.TaskGroup() as tasks:
        for child in children:
            tasks.create_task(child.keep())
        try:
            await _wait_for_servers(servers)
            healing = tasks.create_task(Healing(children, options.data, say).run())
            for child in roles:
                tasks.create_task(child.keep())
            with _Announcement(options, token):
                if await _all_ready(roles, stop):
                    seconds = (REAL.monotonic_ns() - started_ns) / 1e9
                    announce(f"ready after {seconds:.1f} s at http://{options.http}")
                    host, port = options.gateway_address
                    announce(f"the gateway for models and tools is at http://{host}:{port}")
                    announce(f"data in {options.data}; Ctrl-C stops it all")
                await stop.wait()
                announce("stopping")
                healing.cancel()
        finally:
            for child in reversed(roles):
                await child.stop()
            for child in reversed(children):
                await child.stop()
    announce("stopped")
    return 0


def _servers(options: Options, keys: Keys) -> list[EmbeddedServer]:
    """The embedded servers that are needed, each on the port it had last time if that is free."""
    wanted = [("events", options.bus), ("control", options.control_bus)]
    return [
        EmbeddedServer(name, options.data / "bus" / name, _port(options.data / "bus" / name), keys)
        for name, given in wanted
        if not given
    ]


def _with_urls(options: Options, servers: list[EmbeddedServer]) -> Options:
    at = {server.name: server.url for server in servers}
    return replace(
        options,
        bus=options.bus or at["events"],
        control_bus=options.control_bus or at["control"],
        data=options.data.absolute(),
    )


def _nats_child(server: EmbeddedServer, data: Path, say: Callable[[str, str], None]) -> Child:
    nice = _EVENT_NICE if server.name == "events" else 0
    name = f"nats-{server.name}"
    return Child(ChildSpec(name, server.command, data / "log" / f"{name}.log", nice), say)


def _role_child(role: str, options: Options, say: Callable[[str, str], None]) -> Child:
    command = [
        sys.executable, "-m", "checkrein", "serve", role,
        "--data", str(options.data), "--http", options.http,
        "--gateway", "{}:{}".format(*options.gateway_address),
        "--bus", options.bus, "--control-bus", options.control_bus,
    ]  # fmt: skip
    if options.store:
        command += ["--store", options.store]
    if options.config:
        command += ["--config", str(options.config)]
    log = options.data / "log" / f"{role}.log"
    return Child(ChildSpec(role, lambda: command, log, stop_s=15, says_ready=True), say)


async def _wait_for_servers(servers: list[EmbeddedServer]) -> None:
    """Until each accepts and has told that it runs as configured. Raises ServerError."""
    deadline = asyncio.get_running_loop().time() + _NATS_START_S
    for server in servers:
        while True:
            try:
                await server.check()
                break
            except ServerError:
                raise
            except Exception as error:
                if asyncio.get_running_loop().time() > deadline:
                    log = server.folder.parent.parent / "log" / f"nats-{server.name}.log"
                    raise ServerError(
                        f"the {server.name} server does not answer on port {server.port} "
                        f"({error!r}); see {log}"
                    ) from error
                await asyncio.sleep(0.02)


async def _all_ready(roles: list[Child], stop: asyncio.Event) -> bool:
    """True when every role is ready, False when told to stop before."""
    while not stop.is_set():
        if all(child.ready.is_set() for child in roles):
            return True
        await asyncio.sleep(0.02)
    return False


class _Lock:
    """One `up` a data folder. The lock goes with the process, however it ends."""

    def __init__(self, data: Path) -> None:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = data / "lock"
        self._file = open(self._path, "a+")  # noqa: SIM115 # held until __exit__

    def __enter__(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise AlreadyRunning(
                f"another `checkrein up` (pid {owner}) works on {self._path.parent}: "
                "stop it, or give this one another --data folder"
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _Announcement:
    """`~/.config/checkrein/local.json`, by which clients of the same user find this `up`."""

    def __init__(self, options: Options, token: Path) -> None:
        host, port = options.http_address
        self._content = {
            "url": f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}",  # noqa: S104
            "token_file": str(token.absolute()),
            "data": str(options.data),
            "pid": os.getpid(),
        }
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        self._path = base / "checkrein" / "local.json"

    def __enter__(self) -> None:
        if self._belongs_to_another():
            return  # who started first is found by default; this one is asked with --url
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = self._path.with_suffix(f".{os.getpid()}")
            new.write_text(json.dumps(self._content) + "\n")
            new.chmod(0o600)
            new.replace(self._path)

    def _belongs_to_another(self) -> bool:
        with suppress(OSError, ValueError, KeyError):
            other = int(json.loads(self._path.read_text())["pid"])
            os.kill(other, 0)
            return other != os.getpid()
        return False

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, ValueError):
            if json.loads(self._path.read_text()).get("pid") == os.getpid():
                self._path.unlink()


def _operator_token(data: Path) -> Path:
    """`DATA/operator.token`, made with mode 0600 if it is not there."""
    path = data / "operator.token"
    write_once(path, lambda: f"cro_{REAL.random_bytes(32).hex()}")
    return path


def _port(folder: Path) -> int:
    """A free port, the one of last time by preference."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    remembered = folder / "port"
    last = 0
    with suppress(OSError, ValueError):
        last = int(remembered.read_text())
    for wanted in (last, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", wanted))
            port = int(probe.getsockname()[1])
            remembered.write_text(str(port))
            return port
    raise ServerError("no free port on 127.0.0.1")


def _check_free(options: Options) -> None:
    """Raises OptionsError when an address is taken: clearer now than from a role's log."""
    _check_address(options.http_address, "--http")
    _check_address(options.gateway_address, "--gateway")


def _check_address(address: tuple[str, int], option: str) -> None:
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OptionsError(
                f"cannot listen on {host}:{port}: {error.strerror}. "
                f"Is another `checkrein up` running? Choose another address with {option} HOST:PORT"
            ) from error
