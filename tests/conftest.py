"""What tests everywhere may use."""

import asyncio
import random
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from checkrein.bus import nats
from checkrein.bus.credentials import Keys
from checkrein.bus.embedded import EmbeddedServer
from checkrein.bus.types import BusError

CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora"

# How long an example takes says nothing on a busy machine.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def free_port() -> int:
    """One below those that the kernel gives to connections, so that none takes it meanwhile."""
    for port in random.sample(range(15_000, 32_000), 200):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free on 127.0.0.1")


class RunningServer(EmbeddedServer):
    """A NATS server as `up` starts it, with its process."""

    process: subprocess.Popen[bytes]


def start(server: EmbeddedServer) -> subprocess.Popen[bytes]:
    """Starts a server and waits until it accepts."""
    process = subprocess.Popen(server.command(), stderr=subprocess.DEVNULL)
    _wait_for_port(server.port)
    return process


@contextmanager
def nats_server(folder: Path, name: str = "events", port: int = 0) -> Iterator[RunningServer]:
    """A real NATS server on a free port."""
    keys = Keys.load_or_create(folder / "keys")
    server = RunningServer(name, folder / name, port or free_port(), keys)
    process = start(server)
    object.__setattr__(server, "process", process)
    try:
        yield server
    finally:
        process.terminate()
        process.wait(10)


def _wait_for_port(port: int) -> None:
    for _ in range(500):
        with socket.socket() as probe:
            probe.settimeout(0.1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise BusError(f"nothing listens on port {port}")


@asynccontextmanager
async def role_bus(server: EmbeddedServer, name: str = "test") -> AsyncIterator[nats.NatsBus]:
    bus = await nats.connect([server.url], server.keys.role(name), name=name)
    try:
        yield bus
    finally:
        await bus.close()


@pytest.fixture
def nats_events(tmp_path: Path) -> Iterator[EmbeddedServer]:
    with nats_server(tmp_path) as server:
        yield server


async def within(seconds: float, condition: object) -> None:
    """Waits until `condition()` is true, or fails after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():  # type: ignore[operator]
        assert asyncio.get_running_loop().time() < deadline, "not within the time"
        await asyncio.sleep(0.005)
