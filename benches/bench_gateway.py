"""What a model call pays for passing the gateway, with a pact of 20 rules in force.

A real `up`; the provider and the client are made to cost next to nothing, on the same processors.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop
from benches.bench_decide import TWENTY
from benches.gateway_house import add_agent, push
from benches.gateway_wire import CHUNKS, asking, http_request, load
from benches.harness import Row
from benches.whole import percentile
from tests.system import System, eventually

QUESTION = "What does a model call pay for passing the gateway?"
AGENT = "support-bot"
CALLS = 400
RATE_CALLS = 2_400
STREAMS = 40
CPU_STREAMS = 160
CHAT = "/chat/completions"
PACT = TWENTY.replace("models: [gpt-5-mini,", "models: [gpt-5, gpt-5-mini,")


def run() -> list[Row]:
    with provider() as upstream, real(upstream, PACT) as (running, key):
        port = running.gateway_port
        through = http_request(port, f"/openai/v1{CHAT}", key, asking())
        eventually(lambda: _answers(port, through), 30, "the gateway answers")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_measured(running, upstream, key))


async def _measured(running: System, upstream: int, key: str) -> list[Row]:
    port = running.gateway_port

    def ask(stream: bool, chunks: int = CHUNKS) -> tuple[bytes, bytes]:
        body = asking(stream, chunks)
        return (
            http_request(upstream, f"/v1{CHAT}", "x", body),
            http_request(port, f"/openai/v1{CHAT}", key, body),
        )

    direct, through = ask(False)
    await load(port, through, 8, 400)  # warm
    bare = _ms((await load(upstream, direct, 1, CALLS))[0], "whole_ns")
    passed = _ms((await load(port, through, 1, CALLS))[0], "whole_ns")
    rows = [
        Row(name="added to a call, 1 connection, p50", measured=passed - bare, target=1.5,
            unit="ms", note=f"direct {bare:.3f} ms, through the gateway {passed:.3f} ms"),
    ]  # fmt: skip
    for connections in (16, 64):
        _, bare_s = await load(upstream, direct, connections, RATE_CALLS)
        before_s = _cpu_s(running)
        _, seconds = await load(port, through, connections, RATE_CALLS)
        cpu_us = (_cpu_s(running) - before_s) / RATE_CALLS * 1e6
        rows.append(Row(
            name=f"calls, {connections} connections", measured=RATE_CALLS / seconds, target=800,
            limit=RATE_CALLS / bare_s, unit="calls/s",
            note=f"{cpu_us:.0f} µs of the gateway's CPU a call; the limit is the bare provider",
        ))  # fmt: skip
    direct, through = ask(True)
    bare = _ms((await load(upstream, direct, 1, STREAMS))[0], "first_ns")
    passed = _ms((await load(port, through, 1, STREAMS))[0], "first_ns")
    rows.append(Row(name="added to a stream's first byte, p50", measured=passed - bare, target=2.0,
                    unit="ms", note=f"direct {bare:.3f} ms"))  # fmt: skip

    async def cpu_s(chunks: int) -> float:
        before_s = _cpu_s(running)
        await load(port, ask(True, chunks)[1], 8, CPU_STREAMS)
        return _cpu_s(running) - before_s

    each_us = (await cpu_s(CHUNKS) - await cpu_s(1)) / CPU_STREAMS / (CHUNKS - 1) * 1e6
    rows.append(Row(
        name="the gateway's CPU for each piece of a stream", measured=each_us, target=60.0,
        unit="µs", note=f"{CHUNKS} pieces 2 ms apart, less what a stream of one costs",
    ))  # fmt: skip
    return rows


def _ms(callers: list[Any], which: str) -> float:
    return percentile([ns for one in callers for ns in getattr(one, which)], 0.5) / 1e6


def _cpu_s(running: System) -> float:
    """CPU that the gateway's process has used, all threads."""
    pid = running.children()["gateway"]
    found = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(found[11]) + int(found[12])) / os.sysconf("SC_CLK_TCK")


def _answers(port: int, request: bytes) -> bool:
    """Whether the agent is known at the gateway by now, and its pact is in force."""
    with contextlib.suppress(ConnectionError, OSError):
        asyncio.run(load(port, request, 1, 1))
        return True
    return False


@contextlib.contextmanager
def provider() -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benches.gateway_wire"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


@contextlib.contextmanager
def real(upstream: int, pact: str) -> Iterator[tuple[System, str]]:
    """A system before the provider at this port, with an agent under `pact`; the agent's key."""
    more = {"CHECKREIN_OPENAI_UPSTREAM": f"http://127.0.0.1:{upstream}/v1", "OPENAI_API_KEY": "x"}
    with tempfile.TemporaryDirectory() as folder:
        running = System(Path(folder))
        running.environment |= more
        running.up()
        try:
            key = add_agent(running, AGENT)
            push(running, AGENT, pact)
            yield running, key
        finally:
            running.down()
