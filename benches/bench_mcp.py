"""What the gateway adds to a call of an MCP tool, with the policy on."""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from benches.harness import Row
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from tests.conftest import free_port
from tests.system import System

QUESTION = "How much does the gateway add to one MCP tool call, by HTTP and by stdio?"
ROUNDS, CALLS, WARM = 8, 50, 40
TARGET_MS = 2.0
MODES = ("legacy", "2026-07-28")
ROOT = Path(__file__).resolve().parents[1]
NOTE = ("The parcel came late and the box was wet. " * 12)[:470]
SERVER = (sys.executable, "-m", "benches.mcp_server")
PACT = """\
pact: bench-bot
job: measure
owner: benches
tools:
  look_up: {kind: read, allow: args.number >= 0 && size(args.note) < 2000}
"""


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as name, _system(Path(name)) as (system, key, url):
        return asyncio.run(_measured(system, key, url))


@contextlib.contextmanager
def _system(folder: Path) -> Iterator[tuple[System, str, str]]:
    """A system with one tool server by HTTP behind it: itself, an agent's key, and that server's
    own address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    system = System(folder)
    system.environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    config = folder / "checkrein.toml"
    config.write_text(f'[gateway.mcp.bench]\nurl = "{url}"\n')
    server = subprocess.Popen([*SERVER, str(port)], env=system.environment, cwd=ROOT)
    try:
        system.up("--config", str(config))
        (folder / "pact.yaml").write_text(PACT)
        pushed = system.run("pact", "push", str(folder / "pact.yaml"))
        if pushed.returncode:
            raise RuntimeError(pushed.stderr)
        yield system, _key(system), url
        system.down()
    finally:
        server.terminate()
        server.wait()


def _key(system: System) -> str:
    request = urllib.request.Request(
        system.url + "/api/v1/agents", json.dumps({"agent": "bench-bot"}).encode(),
        {"Authorization": f"Bearer {system.token}", "Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(json.load(answer)["key"])


async def _measured(system: System, key: str, url: str) -> list[Row]:
    rows = []
    environment = {**system.environment, "CHECKREIN_KEY": key}
    through = (sys.executable, "-m", "checkrein", "mcp", "--name", "bench", "--", *SERVER)
    for mode in MODES:
        async with (
            _http(url, "", mode) as direct,
            _http(f"{system.gateway}/mcp/bench", key, mode) as ours,
        ):
            rows += await _compared(f"HTTP, {mode}", direct, ours, system)
        async with (
            _stdio(SERVER, environment, mode) as direct,
            _stdio(through, environment, mode) as ours,
        ):
            rows += await _compared(f"stdio, {mode}", direct, ours, system)
    return rows


@asynccontextmanager
async def _http(url: str, key: str, mode: str) -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


@asynccontextmanager
async def _stdio(
    command: tuple[str, ...], environment: dict[str, str], mode: str
) -> AsyncIterator[Client]:
    parameters = StdioServerParameters(
        command=command[0], args=list(command[1:]), env=environment, cwd=ROOT
    )
    async with Client(parameters, mode=mode) as client:
        yield client


async def _compared(name: str, direct: Client, ours: Client, system: System) -> list[Row]:
    """Round by round, now the one and now the other: what else the machine does meets both."""
    numbers = iter(range(10_000_000))
    for client in (direct, ours):
        await _round(client, WARM, numbers)
    added, plain, spent = [], [], 0.0
    for _ in range(ROUNDS):
        first = statistics.median(await _round(direct, CALLS, numbers))
        before = _spent_ms(system)
        second = statistics.median(await _round(ours, CALLS, numbers))
        spent += _spent_ms(system) - before
        plain.append(first)
        added.append(second - first)
    return [
        Row(
            name=f"added to one call, p50: {name}", measured=statistics.median(added),
            limit=statistics.median(plain), target=TARGET_MS, unit="ms",
            note=f"over {min(added):.2f} to {max(added):.2f}; direct is the limit",
        ),
        Row(
            name=f"the gateway's processor time for one call: {name}",
            measured=spent / ROUNDS / CALLS, unit="ms",
        ),
    ]  # fmt: skip


def _spent_ms(system: System) -> float:
    """Processor time that the gateway has taken by now."""
    stat = Path(f"/proc/{system.children()['gateway']}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(stat[11]) + int(stat[12])) * 1000 / os.sysconf("SC_CLK_TCK")


async def _round(client: Client, calls: int, numbers: Iterator[int]) -> list[float]:
    """Milliseconds of each call."""
    took = []
    for _ in range(calls):
        arguments = {"note": NOTE, "number": next(numbers)}
        began = time.perf_counter_ns()
        result = await client.call_tool("look_up", arguments)
        took.append((time.perf_counter_ns() - began) / 1e6)
        if result.is_error:
            raise RuntimeError(str(result.content))
    return took
