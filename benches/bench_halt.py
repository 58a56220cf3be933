"""How fast does one supervisor stop many agents, seen by the one who ordered it?

A supervisor process forks the agents and is linked to a real control bus; this process signs one
halt for all of them and takes the time until each receipt "frozen, confirmed" has come back, while
another process keeps the events bus busy. Beside it, in the same run: bare SIGSTOP of the same
number of processes, one by one, until `waitid` has seen each of them stopped.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from benches.harness import Row
from nacl.signing import SigningKey

from checkrein.bus import nats, orders, subjects
from checkrein.bus.credentials import Keys
from checkrein.bus.embedded import EmbeddedServer
from checkrein.bus.messages import (
    Beat,
    BeatAnswer,
    Order,
    OrderRun,
    Registered,
    Registration,
    RunRecord,
    SessionGrant,
    decode,
    encode,
    progress_of,
)
from checkrein.bus.types import Message
from checkrein.supervise import launch, proc
from checkrein.supervise.journal import Journal, ListRecording
from checkrein.supervise.link import Link
from checkrein.supervise.supervisor import Supervisor
from checkrein.supervise.tree import hold, make_leaf
from checkrein.world import REAL

QUESTION = "How fast are all agents confirmed frozen after one halt, beside bare SIGSTOP?"
EVENTS_RATE = 20_000
EVENTS_SLACK = 400_000
SESSION = "bench"
ROUNDS = {200: 6, 1000: 3}


def run() -> list[Row]:
    rows: list[Row] = []
    for agents, busy, target in ((200, 0, 50.0), (1000, 0, 150.0), (200, 5, 250.0)):
        load = "CPU 2.5 times oversubscribed" if busy else f"{EVENTS_RATE:,} events/s meanwhile"
        measured, bare, note = asyncio.run(measure(agents, busy))
        rows.append(
            Row(
                name=f"halt to confirmed frozen, p99 of {agents} agents", measured=measured,
                limit=bare, target=target, unit="ms", note=f"{load}; {note}",
            )
        )  # fmt: skip
    return rows


async def measure(agents: int, busy: int) -> tuple[float, float, str]:
    """p99 of halts in ms, the same for bare SIGSTOP, and what else is worth saying."""
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        keys = Keys.load_or_create(data / "keys")
        servers = [
            EmbeddedServer(bus, data / "bus" / bus, _free_port(), keys)
            for bus in ("events", "control")
        ]
        started = [_start(server.command()) for server in servers]
        (data / "bus/events/port").write_text(str(servers[0].port))
        children: list[subprocess.Popen[bytes]] = []
        try:
            for server in servers:
                await _accepts(server)
            children.append(_load(data))
            issuer = Issuer(servers[1], keys)
            await issuer.open()
            command = [sys.executable, "-m", "benches.bench_halt", str(data), str(servers[1].port),
                       str(agents), str(ROUNDS[agents]), str(busy)]  # fmt: skip
            supervisor = _start(command, output=subprocess.PIPE)
            children.append(supervisor)
            waits: list[float] = []
            for _ in range(ROUNDS[agents]):
                waits += await issuer.halt_all(agents)
            answer, _ = await asyncio.to_thread(supervisor.communicate)
            told = json.loads(answer)
            await issuer.close()
            return (
                _p99(waits),
                told["bare_p99_ms"],
                (
                    f"max {max(waits):.0f} ms, {len(waits)} halts, all confirmed, held by "
                    f"{told['method']}, {told['survivors']} survivors"
                ),
            )
        finally:
            for child in [*children, *started]:
                child.terminate()
                with suppress(subprocess.TimeoutExpired):
                    child.wait(10)


class Issuer:
    """Control, as far as this question needs it."""

    def __init__(self, server: EmbeddedServer, keys: Keys) -> None:
        self._server, self._keys = server, keys
        seed = bytes.fromhex((keys.folder / "control.seed").read_text().strip())
        self._key = SigningKey(seed)
        self._runs: set[str] = set()
        self._seen: set[str] = set()
        self._frozen: dict[str, float] = {}
        self._done: set[str] = set()
        self._news = asyncio.Event()
        self._epoch = 0

    async def open(self) -> None:
        self._bus = await nats.connect(
            [self._server.url], self._keys.role("control"), name="control"
        )
        await self._bus.bucket(subjects.BUCKET_DESIRED)
        await self._bus.subscribe(subjects.registration(SESSION), self._registered)
        await self._bus.subscribe(subjects.beat(SESSION), self._beaten)
        await self._bus.subscribe(subjects.receipts(SESSION), self._receipt)

    async def close(self) -> None:
        await self._bus.close()

    async def halt_all(self, count: int) -> list[float]:
        """One order for all registered runs; ms until each is confirmed frozen. Waits for their
        death as well, before it returns."""
        await self._until(lambda: len(self._runs) >= count)
        self._epoch += 1
        runs = sorted(self._runs)
        self._runs.clear()
        order = Order(
            command_id=f"c{self._epoch}", session=SESSION, verb="halt", reason="bench",
            runs=[OrderRun(run, self._epoch) for run in runs], issued_by="bench",
            issued_at=REAL.now_ns(), expires_at=0, nonce=REAL.nonce(),
        )  # fmt: skip
        self._frozen.clear()
        self._done.clear()
        began = time.perf_counter()
        await self._bus.publish(subjects.command(SESSION), orders.sign(order, self._key))
        await self._until(lambda: len(self._done) >= count)
        missing = [run for run in runs if run not in self._frozen]
        assert not missing, f"{len(missing)} halts were never confirmed frozen"
        return [(self._frozen[run] - began) * 1e3 for run in runs]

    async def _until(self, true: Any) -> None:
        async with asyncio.timeout(120):
            while not true():
                self._news.clear()
                await self._news.wait()

    async def _registered(self, message: Message) -> None:
        registration = decode(message.data, Registration)
        self._runs.update({run.run_id for run in registration.runs} - self._seen)
        self._seen |= self._runs
        await self._bus.respond(message, encode(Registered()))
        self._news.set()

    async def _beaten(self, message: Message) -> None:
        beat = decode(message.data, Beat)
        ended = [one.run_id for one in beat.ended]
        await self._bus.respond(message, encode(BeatAnswer(at=REAL.now_ns(), ended=ended)))

    async def _receipt(self, message: Message) -> None:
        now = time.perf_counter()
        for progress in progress_of(message.data):
            if progress.stage == "freeze" and progress.confirmed:
                self._frozen.setdefault(progress.run_id, now)
            elif progress.stage == "obeyed":
                self._done.add(progress.run_id)
        self._news.set()


async def supervise(data: Path, port: int, agents: int, rounds: int, busy: int) -> dict[str, Any]:
    """The supervisor's process: forks the agents of each round, and is done when they are."""
    keys = Keys.load_or_create(data / "keys")
    credential = keys.session(SESSION, ["bench"], REAL.now_ns() + 3_600_000_000_000)
    supervisor = Supervisor(REAL, Journal(REAL, ListRecording(REAL)))
    grant = SessionGrant(
        session=SESSION, bus_urls=[], control_urls=[f"nats://127.0.0.1:{port}"],
        jwt=credential.jwt, seed=credential.seed, control_key=keys.control_key, expires_at=0,
    )  # fmt: skip

    async def ask(_agents: list[str], _session: str) -> SessionGrant:
        return grant

    async def connect(grant: SessionGrant) -> nats.NatsBus:
        return await nats.connect(
            grant.control_urls, credential, name="bench", inbox_prefix=subjects.inbox(SESSION)
        )

    link = Link(supervisor, ask, connect)
    bare = _bare(agents, busy)
    method = ""
    async with supervisor.serving(), asyncio.TaskGroup() as tasks:
        tasks.create_task(link.run())
        for _ in range(rounds):
            pids = [_fork_agent(number < busy) for number in range(agents)]
            units = []
            for pid in pids:
                leaf, _ = make_leaf(f"bench{pid}")
                if leaf is not None:
                    leaf.add(pid)
                tree = hold(f"bench{pid}", pid, leaf=leaf)
                method = tree.method
                record = RunRecord(
                    run_id=REAL.uuid7(), task_id=REAL.trace_id(), agent="bench", room="bench",
                    environment="bench", session="", holder="supervisor", started_at=REAL.now_ns(),
                )  # fmt: skip
                units.append(supervisor.take(tree, record))
            for unit in units:
                await supervisor.finished(unit)
            survivors = sum(len(unit.tree.survivors()) for unit in units)
            for unit in units:
                supervisor.forget(unit)
        link.stop()
    await link.close()
    return {"bare_p99_ms": bare, "method": method, "survivors": survivors}


def _bare(agents: int, busy: int) -> float:
    """SIGSTOP, and `waitid`, of as many processes: what the kernel takes."""
    pids = [_fork_agent(number < busy) for number in range(agents)]
    time.sleep(0.3)
    began = time.perf_counter()
    waits: list[float] = []
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        waits.append((time.perf_counter() - began) * 1e3)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)
    return _p99(waits)


def _fork_agent(busy: bool) -> int:
    """An agent in steps of 20 ms, or one that burns."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        proc.die_with_parent(signal.SIGKILL)
        while True:
            if not busy:
                time.sleep(0.02)
    with suppress(OSError):
        os.setpgid(pid, pid)
    return pid


def _start(command: list[str], output: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
    errors = None if output == subprocess.PIPE else subprocess.DEVNULL
    return subprocess.Popen(command, stdout=output, stderr=errors)


def _load(data: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "benches.load", str(data), str(EVENTS_SLACK * 10), str(EVENTS_RATE)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=lambda: os.nice(10),
    )  # fmt: skip


async def _accepts(server: EmbeddedServer) -> None:
    for _ in range(400):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", server.port)) == 0:
                break
        await asyncio.sleep(0.01)
    bus = await nats.connect([server.url], server.keys.role("setup"), name="setup")
    await bus.stream(subjects.EVENTS)
    await bus.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def main() -> None:
    data, port, agents, rounds, busy = sys.argv[1:]
    launch.allow_many_files()
    launch.calm()
    told = asyncio.run(supervise(Path(data), int(port), int(agents), int(rounds), int(busy)))
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
