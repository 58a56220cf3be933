"""How soon is an event visible to an operator, at 1,000 events a second?

A real agent under `checkrein run` makes 167 tool calls a second; another begins a small run eight
times a second, and each of these runs is asked for, as `show` does it, until its last tool event is
there. The clock starts when the agent's thread records the event and is the same for both.
"""

import asyncio
import threading
from typing import Any

from benches.harness import Row
from benches.whole import (
    Screen,
    ended,
    go,
    operator,
    percentile,
    round_trips,
    start_agent,
    wait_for,
    whole,
)
from tests.system import System, eventually

from checkrein.cli.client import Client, Refused
from checkrein.cli.show import events_of
from checkrein.server.api.recent import MARGIN_NS
from checkrein.world import REAL

QUESTION = "How soon is an event visible by `show`, the API and the live stream, at 1,000 events/s?"

SECONDS = 20.0
CALLS_A_SECOND = 1_000 / 6
PROBES_A_SECOND = 8.0
POLL_S = 0.005


def run() -> list[Row]:
    with whole() as running:
        threading.Event().wait(MARGIN_NS / 1e9)  # before, the api leaves new runs to the store
        streamed: list[float] = []

        def arrived(event: dict[str, Any], at: int) -> None:
            if event["agent"] == "steady" and event["type"].startswith("tool."):
                streamed.append((at - event["ts"]) / 1e6)

        screen = Screen(running, arrived, agent="steady")
        steady = start_agent(running, "steady", "steady", SECONDS, CALLS_A_SECOND, 200)
        probe = start_agent(running, "probe", "steady", SECONDS - 2, PROBES_A_SECOND, 1)
        _begin(running, steady, "steady")
        bare: list[float] = []
        trips = threading.Thread(
            target=lambda: bare.extend(asyncio.run(round_trips(running, 400, 0.02)))
        )
        trips.start()
        polled, rounds = _polled(running, probe)
        trips.join()
        told = ended(steady)
        eventually(lambda: len(streamed) + screen.skipped >= told["calls"] * 6, 10)
    rate = told["calls"] * 6 / SECONDS
    how = f"{len(polled)} runs asked for each {POLL_S * 1e3:.0f} ms; {rate:,.0f} events/s recorded"
    live = f"{len(streamed):,} events, {screen.skipped} skipped"
    limit = "limit: bare NATS publish to subscription"
    return [
        _row("recorded to visible by `show` (GET), p50", polled, 0.5, bare, 25.0, how),
        _row("recorded to visible by `show` (GET), p99", polled, 0.99, bare, 80.0,
             f"one request takes {percentile(rounds, 0.5):.1f} ms p50; {limit}"),
        _row("recorded to shown by the live stream, p50", streamed, 0.5, bare, 25.0, live),
        _row("recorded to shown by the live stream, p99", streamed, 0.99, bare, 80.0, limit),
    ]  # fmt: skip


def _row(
    name: str, values: list[float], share: float, bare: list[float], target: float, note: str
) -> Row:
    return Row(
        name=name, measured=percentile(values, share), limit=percentile(bare, share),
        target=target, unit="ms", note=note,
    )  # fmt: skip


def _begin(running: System, agent: Any, name: str) -> None:
    """Lets the agent begin; returns when its first run is known."""
    go(agent)
    client = operator(running)
    wait_for(lambda: client.get("/api/v1/runs", agent=name), f"a run of {name}", pause_s=0.05)
    client.close()


def _polled(running: System, probe: Any) -> tuple[list[float], list[float]]:
    """Milliseconds from each probe run's last tool event to its being shown, and of each GET."""
    go(probe)
    client = operator(running)
    found: list[float] = []
    rounds: list[float] = []
    pause = threading.Event()
    for line in probe.stdout:
        if line.startswith("{"):
            break
        while not (last := _last(client, line.strip(), rounds)):
            pause.wait(POLL_S)
        found.append((REAL.now_ns() - last) / 1e6)
    probe.wait(20)
    client.close()
    return found[2:], rounds  # the first ones open connections


def _last(client: Client, run_id: str, rounds: list[float]) -> int:
    """When the run's last tool event was recorded; 0: it is not visible yet."""
    began = REAL.monotonic_ns()
    try:
        events = events_of(client, run_id)
    except Refused:
        return 0
    finally:
        rounds.append((REAL.monotonic_ns() - began) / 1e6)
    return next((int(e["ts"]) for e in events if e["type"] == "tool.reentered"), 0)
