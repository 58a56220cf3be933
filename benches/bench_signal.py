"""How soon does an operator's screen show a signal, at 2,000 events a second?

Real agents under `checkrein run`: four make 83 tool calls a second each, one asks for a tool
outside its pact in a new run ten times a second. The clock starts when its refusal is recorded, and
stops when `checkrein watch --json` in a process of its own has printed the signal.
"""

import json
import subprocess
import threading
from typing import Any

from benches.harness import Row
from benches.whole import Screen, ended, go, operator, percentile, start_agent, wait_for, whole
from tests.system import System, eventually

from checkrein.world import REAL

QUESTION = "How soon is a signal on the operator's screen, at 2,000 events/s?"

SECONDS = 20.0
AGENTS = 4
CALLS_A_SECOND = 2_000 / 6 / AGENTS
ATTEMPTS_A_SECOND = 10.0
FIRST = 2


def run() -> list[Row]:
    with whole() as running:
        streamed = _Pairs()
        Screen(running, streamed.take, agent="wanderer", types="signal,scope.decision")
        printed = _Pairs()
        terminal = _terminal(running, printed)
        steady = [
            start_agent(running, f"steady-{n}", "steady", SECONDS, CALLS_A_SECOND, 200)
            for n in range(AGENTS)
        ]
        wanderer = start_agent(running, "wanderer", "wander", SECONDS - 4, ATTEMPTS_A_SECOND)
        client = operator(running)
        for agent in steady:
            go(agent)
        wait_for(
            lambda: len(client.get("/api/v1/runs", status="", room="bench")) >= AGENTS,
            "the steady agents", pause_s=0.05,
        )  # fmt: skip
        client.close()
        go(wanderer)
        attempts = int(ended(wanderer)["runs"])
        calls = sum(ended(agent)["calls"] for agent in steady)
        for pairs in (streamed, printed):
            eventually(lambda pairs=pairs: len(pairs.taken()) >= attempts, 20, "all signals")
        terminal.terminate()
        terminal.wait(10)
    rate = calls * 6 / SECONDS
    note = f"{attempts} refusals, each in a run of its own; {rate:,.0f} events/s meanwhile"
    return _rows("the live stream", streamed, note) + _rows(
        "`checkrein watch --json`", printed, note
    )


def _rows(screen: str, pairs: "_Pairs", note: str) -> list[Row]:
    signals, events = pairs.taken(), pairs.events()
    later, limits = signals[FIRST:], events[FIRST:]
    return [
        Row(name=f"refusal recorded to its signal on {screen}, p50", unit="ms",
            measured=percentile(later, 0.5), limit=percentile(limits, 0.5), note=note),
        Row(name=f"refusal recorded to its signal on {screen}, p99", unit="ms", target=50.0,
            measured=percentile(later, 0.99), limit=percentile(limits, 0.99),
            note="limit: the refusal itself on the same screen"),
        Row(name=f"the same for the first {FIRST} of a new process, on {screen}", unit="ms",
            measured=max(signals[:FIRST]), limit=max(events[:FIRST]),
            note="the shipper looks for new recorders every 100 ms"),
    ]  # fmt: skip


class _Pairs:
    """By run: when its refusal was recorded, when that was shown, when its signal was."""

    def __init__(self) -> None:
        self._recorded: dict[str, int] = {}
        self._shown: dict[str, int] = {}
        self._signalled: dict[str, int] = {}

    def take(self, event: dict[str, Any], at: int) -> None:
        run_id = event["run_id"]
        if event["type"] == "signal":
            self._signalled.setdefault(run_id, at)
        elif event["verdict"] == "deny":
            self._recorded[run_id] = event["ts"]
            self._shown[run_id] = at

    def taken(self) -> list[float]:
        """Milliseconds from refusals to their signals, in the order of the signals."""
        found = list(self._signalled.items())
        return [(at - self._recorded[r]) / 1e6 for r, at in found if r in self._recorded]

    def events(self) -> list[float]:
        """Milliseconds from refusals to themselves, in order."""
        return [(at - self._recorded[run]) / 1e6 for run, at in self._shown.items()]


def _terminal(running: System, pairs: _Pairs) -> "subprocess.Popen[str]":
    """An operator's `watch`, whose lines are read as they are printed."""
    command = ["watch", "--json", "--agent", "wanderer"]
    terminal = running.start(
        *command, "--type", "signal", "--type", "scope.decision", stdout=subprocess.PIPE
    )

    def read() -> None:
        for line in terminal.stdout or ():
            pairs.take(json.loads(line), REAL.now_ns())

    threading.Thread(target=read, daemon=True).start()
    eventually(lambda: running.get("/api/v1/status")["watchers"] >= 2, 20, "`watch` listens")
    return terminal
