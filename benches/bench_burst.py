"""Do bursts and many agents at once lose anything, or hold up a command?

One supervised run is paused and resumed again and again: with nothing else at work, then while
eight real agents make 50 times as many tool calls for 200 ms of every two seconds, and then with
events of 200 agents on top. At the end the store is asked what it has.
"""

import subprocess
import threading
from typing import Any

from benches.bench_path import _finish
from benches.harness import Row
from benches.whole import ended, go, operator, percentile, start_agent, start_load, wait_for, whole
from tests.system import System, eventually

from checkrein.world import REAL

QUESTION = "Do bursts and 200 agents at once lose events, or hold up commands?"

SECONDS = 22.0
AGENTS = 8
CALLS_A_SECOND = 10.0
TIMES = 50
MANY_AGENTS = 200
MANY_RATE = 5_000
MANY_EVENTS = 40_000
TRIES = 90
PAUSE_S = 0.05


def run() -> list[Row]:
    with whole() as running:
        held = start_agent(running, "held", "steady", 600, 5, 100_000, room="held")
        run_id = _begin(held)
        idle = _commands(running, run_id, TRIES)
        bursting = [
            start_agent(running, f"burst-{n}", "burst", SECONDS, CALLS_A_SECOND, TIMES)
            for n in range(AGENTS)
        ]
        for agent in bursting:
            _begin(agent)
        during = _commands(running, run_id, TRIES)
        load = start_load(running, MANY_EVENTS, MANY_RATE, MANY_AGENTS)
        together = _commands(running, run_id, TRIES)
        calls = sum(int(ended(agent)["calls"]) for agent in bursting)
        told = _finish(load)
        counted = _counted(running, "bench", calls)
        counted_many = _counted(running, "load", int(told["calls"]))
        lost = running.get("/api/v1/status")["store"]["archive"]["lost"]
        held.terminate()
        held.communicate(timeout=20)
    alone = f"limit: nothing else at work; {len(idle)} and {len(during)} commands"
    return [
        Row(
            name="calls of 8 bursting agents that are not in the store", unit="calls",
            measured=float(calls - counted), target=0.0,
            note=f"{calls:,} calls of six events, {CALLS_A_SECOND:.0f} a second and agent, "
            f"{TIMES} times that in bursts; {lost} events reported lost",
        ),
        Row(
            name=f"calls of {MANY_AGENTS} agents that are not in the store", unit="calls",
            measured=told["calls"] - counted_many, target=0.0,
            note=f"{MANY_EVENTS:,} events at {told['sent'] / told['seconds']:,.0f} a second",
        ),
        _row("pause or resume obeyed, bursts, p50", during, idle, 0.5, ""),
        _row("pause or resume obeyed, bursts, p99", during, idle, 0.99, alone),
        _row(f"the same with {MANY_AGENTS} agents on top, p50", together, idle, 0.5, ""),
        _row(f"the same with {MANY_AGENTS} agents on top, p99", together, idle, 0.99, alone),
    ]  # fmt: skip


def _row(name: str, values: list[float], idle: list[float], share: float, note: str) -> Row:
    return Row(
        name=name, measured=percentile(values, share), limit=percentile(idle, share), unit="ms",
        note=note,
    )  # fmt: skip


def _begin(agent: "subprocess.Popen[str]") -> str:
    """Lets it begin; the id of its first run."""
    go(agent)
    assert agent.stdout is not None
    return agent.stdout.readline().strip()


def _commands(running: System, run_id: str, tries: int) -> list[float]:
    """Milliseconds from asking over HTTP until the answer says that the run has obeyed."""
    client = operator(running)
    wait_for(lambda: client.get(f"/api/v1/runs/{run_id}")["can_halt"], "a held run", pause_s=0.1)
    took = []
    for number in range(tries):
        body = {"verb": ("pause", "resume")[number % 2], "target": f"run:{run_id}",
                "reason": "the benchmark asks", "wait_ms": 10_000}  # fmt: skip
        began = REAL.monotonic_ns()
        told = client.post("/api/v1/commands", body)
        took.append((REAL.monotonic_ns() - began) / 1e6)
        if [line["outcome"] for line in told["runs"]] != ["obeyed"]:
            raise RuntimeError(f"{body['verb']} was not obeyed: {told}")
        threading.Event().wait(PAUSE_S)
    client.close()
    return took


def _counted(running: System, room: str, expected: int) -> int:
    """Tool calls of a room that the store has, waiting a while for the last."""

    def count() -> int:
        lines: list[dict[str, Any]] = running.get(f"/api/v1/runs?room={room}&limit=1000")
        return sum(int(line["tool_calls"]) for line in lines)

    eventually(lambda: count() >= expected or running.get("/api/v1/status")["tail_events"] == 0, 30)
    return count()
