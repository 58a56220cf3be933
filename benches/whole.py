"""A whole system for the benchmarks: `checkrein up` as a user starts it, agents under
`checkrein run`, and an operator who looks on over HTTP."""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.system import System, system

from checkrein.bus import nats, subjects
from checkrein.bus.credentials import Keys
from checkrein.cli.client import Client, ClientError
from checkrein.cli.discover import Place
from checkrein.events.envelope import (
    CHAIN_START,
    Envelope,
    advance,
    as_raw,
    lane_message_id,
    pack,
    partition_of,
)
from checkrein.world import REAL

WAIT_S = 60.0
_STARTED: list["subprocess.Popen[str]"] = []
PACT = "pact: bench\ntools: {look: {kind: read}}\n"


@contextlib.contextmanager
def whole() -> Iterator[System]:
    """A running system in a folder of its own, gone at the end with all that was started on it."""
    with tempfile.TemporaryDirectory() as folder, system(Path(folder)) as running:
        try:
            yield running
        finally:
            _end(_STARTED)
            _STARTED.clear()


def _end(started: "list[subprocess.Popen[str]]") -> None:
    """Stops what a benchmark that failed has left at work."""
    left = [process for process in started if process.poll() is None]
    for process in left:
        process.terminate()
    for process in left:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for process in started:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed; of nothing, infinity: nothing came."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("inf")


def wait_for(
    condition: Callable[[], Any], what: str, seconds: float = WAIT_S, pause_s: float = 0.0
) -> Any:
    """The first true answer. Raises TimeoutError, naming `what`."""
    pause = threading.Event()
    deadline = REAL.monotonic_ns() + int(seconds * 1e9)
    while not (answer := condition()):
        if REAL.monotonic_ns() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        pause.wait(pause_s)
    return answer


def operator(running: System) -> Client:
    """What `ps`, `show` and `watch` ask with. One thread, one client."""
    return Client(Place(running.url, running.token))


class Screen:
    """The live stream as an operator's screen gets it: `call(event, arrived_ns)` for each event, in
    a thread of its own. It is open when the constructor returns."""

    def __init__(
        self, running: System, call: Callable[[dict[str, Any], int], None], **filters: str
    ) -> None:
        self._client = operator(running)
        self._call, self._filters = call, filters
        self._open = threading.Event()
        self.skipped = 0
        threading.Thread(target=self._read, daemon=True).start()
        if not self._open.wait(WAIT_S):
            raise TimeoutError("the live stream did not open")

    def _read(self) -> None:
        with contextlib.suppress(ClientError):  # the server stops before we do
            for name, _, data in self._client.stream(**self._filters):
                arrived = REAL.now_ns()
                if name == "hello":
                    self._open.set()
                elif name == "skipped":
                    self.skipped += int(json.loads(data).get("events") or 0)
                else:
                    self._call(json.loads(data), arrived)


def start_agent(
    running: System, name: str, *arguments: object, room: str = "bench"
) -> "subprocess.Popen[str]":
    """`checkrein run -- python -m benches.agent …`, with a pact that knows the tool `look` only."""
    pact = running.folder / "bench.yaml"
    if not pact.exists():
        pact.write_text(PACT)
    agent = running.start(
        "run", "--agent", name, "--room", room, "--pact", str(pact), "--",
        sys.executable, "-m", "benches.agent", *map(str, arguments), stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    )  # fmt: skip
    _STARTED.append(agent)
    return agent


def go(agent: "subprocess.Popen[str]") -> None:
    """Lets an agent begin."""
    assert agent.stdin is not None
    agent.stdin.write("go\n")
    agent.stdin.flush()


def ended(agent: "subprocess.Popen[str]", seconds: float = WAIT_S) -> dict[str, Any]:
    """What the agent printed last, once it has ended well."""
    said, _ = agent.communicate(timeout=seconds)
    if agent.returncode != 0:
        raise RuntimeError(
            f"an agent of the benchmark ended with {agent.returncode}: {said[-500:]}"
        )
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def start_load(running: System, *arguments: object, nice: int = 0) -> "subprocess.Popen[str]":
    """`python -m benches.load DATA …`"""
    command = [sys.executable, "-m", "benches.load", str(running.data), *map(str, arguments)]
    if nice:
        command = ["nice", "-n", str(nice), *command]
    load = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    _STARTED.append(load)
    return load


@contextlib.asynccontextmanager
async def events_bus(running: System) -> Any:
    """A connection of our own to the events bus."""
    port = (running.data / "bus/events/port").read_text().strip()
    keys = Keys.load_or_create(running.data / "keys")
    bus = await nats.connect([f"nats://127.0.0.1:{port}"], keys.role("bench"), name="bench")
    try:
        yield bus
    finally:
        await bus.close()


async def round_trips(running: System, count: int, pause_s: float) -> list[float]:
    """Bare NATS: milliseconds from a publish to its own subscription, `count` times."""
    took: list[float] = []
    came = asyncio.Event()

    async def heard(_message: Any) -> None:
        came.set()

    async with events_bus(running) as bus:
        listening = await bus.subscribe("bench.trip", heard)
        for _ in range(count):
            came.clear()
            began = REAL.monotonic_ns()
            await bus.publish("bench.trip", b"x" * 600)
            async with asyncio.timeout(WAIT_S):
                await came.wait()
            took.append((REAL.monotonic_ns() - began) / 1e6)
            await asyncio.sleep(pause_s)
        await listening.close()
    return took


def canary() -> tuple[str, str, bytes, str]:
    """A run that begins and is refused a tool: (run id, subject, data, message id). `watch` must
    say `scope` about it."""
    run, task, recorder = REAL.uuid7(), REAL.trace_id(), f"canary-{REAL.nonce()[:8]}"
    common = {
        "recorder": recorder, "environment": "bench", "room": "canary", "agent": "canary",
        "run_id": run, "task_id": task, "step": 0,
    }  # fmt: skip
    events = [
        {**common, "seq": 1, "ts": REAL.now_ns(), "type": "run.start", "goal": "sing"},
        {
            **common, "seq": 2, "ts": REAL.now_ns(), "type": "scope.decision", "call_id": "c1",
            "action": {"kind": "tool", "name": "fly", "arguments": {}}, "verdict": "deny",
            "guard": "pact", "rule": "tools.outside", "reason": "the canary may not fly",
        },
        {**common, "seq": 3, "ts": REAL.now_ns(), "type": "run.end", "status": "completed"},
    ]  # fmt: skip
    raws = [as_raw(event) for event in events]
    chain = CHAIN_START
    for raw in raws:
        chain = advance(chain, raw)
    partition = partition_of(task)
    envelope = Envelope(recorder, "canary", partition, 0, chain, [1, 2, 3], raws)
    return run, subjects.events("canary", partition), pack(envelope), lane_message_id(envelope)
