"""What a hundred thousand calls leave behind in the gateway's memory, a thousand of them cut off.

The gateway of a real `up`; the provider and the client cost next to nothing. Every hundredth call
is a stream whose client hangs up in its middle. `CALLS` bounds it (the figure is of 100,000).
"""

import asyncio
import os
import socket
from collections.abc import Iterator

import uvloop
from benches.bench_gateway import AGENT, CHAT, provider, real
from benches.gateway_wire import asking, http_request, load
from benches.harness import Row
from tests.system import eventually

QUESTION = "What do 100,000 calls, 1,000 of them cut off, leave in the gateway's memory?"
CALLS = int(os.environ.get("CALLS", "100000"))
ROUNDS = 10
CONNECTIONS = 16
WARM = 5_000
PACT = f"pact: {AGENT}\njob: x\nowner: x\nmodels: [gpt-5]\nredact: [secrets, pii]\n"


def run() -> list[Row]:
    with provider() as upstream, real(upstream, PACT) as (running, key):
        port, pid = running.gateway_port, running.children()["gateway"]
        whole = http_request(port, f"/openai/v1{CHAT}", key, asking())
        stream = http_request(port, f"/openai/v1{CHAT}", key, asking(True))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(load(port, whole, CONNECTIONS, WARM))
            hold_up(port, stream, WARM // 100)
            sizes = [_rss_mb(pid)]
            for _ in range(ROUNDS):
                runner.run(load(port, whole, CONNECTIONS, CALLS // ROUNDS))
                hold_up(port, stream, CALLS // ROUNDS // 100)
                sizes.append(_rss_mb(pid))
        eventually(lambda: _descriptors(pid) < 200, 30, "what was cut off is closed")
        later = sum(sizes[-3:]) / 3 - sum(sizes[1:4]) / 3
        said = ", ".join(f"{size:.0f}" for size in sizes)
        return [
            Row(name="memory after all calls", measured=sizes[-1], unit="MB", note=f"MB: {said}"),
            Row(name="grown from the first third to the last", measured=later, target=10,
                unit="MB", note=f"{CALLS} calls, {CALLS // 100} cut off"),
            Row(name="open descriptors afterwards", measured=_descriptors(pid), unit=""),
        ]  # fmt: skip


def hold_up(port: int, request: bytes, count: int) -> None:
    """Asks for streams and hangs up as soon as each flows."""
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
            line.sendall(request)
            for piece in _pieces(line):
                if b"data:" in piece:
                    break


def _pieces(line: socket.socket) -> Iterator[bytes]:
    while piece := line.recv(4096):
        yield piece


def _rss_mb(pid: int) -> float:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
