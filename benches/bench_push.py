"""How soon does every agent decide by a pact that was just pushed?

200 agents, each with a session, a link and a run of its own, in 8 processes on a real `up`, decide
all the time. A pact is pushed over HTTP again and again, once refusing what the one before allowed,
once allowing it. Taken is the time from before the request until each agent's first decision by the
new version. Every decision is checked: its verdict is that of the version it names, and no run goes
back to the one before. Beside it, in the same run: the bare request that reads a pact.
"""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections import deque
from typing import Any

from benches.harness import Row
from benches.whole import percentile, wait_for, whole
from tests.system import System

QUESTION = "How soon does every one of 200 agents decide by a pact that was just pushed?"
PROCESSES, EACH, ROUNDS = 8, 25, 12
OPEN = "pact: open{n}\ntools: {{look: {{kind: read}}}}\nloops: {{no_progress: 15}}\n"
REFUSED = "pact: p{n}-refused\ntools: {{other: {{kind: read}}}}\n"


class Agents:
    """The processes, and what they say."""

    def __init__(self, system: System, names: list[str]) -> None:
        self.lines: deque[dict[str, Any]] = deque()
        self.faults: list[str] = []
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "benches.pact_agents", system.url, system.token,
                 *names[at : at + EACH]],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=system.environment,
            )
            for at in range(0, len(names), EACH)
        ]  # fmt: skip
        for number, process in enumerate(self.processes):
            threading.Thread(target=self._read, args=(number, process), daemon=True).start()

    def _read(self, number: int, process: "subprocess.Popen[str]") -> None:
        for text in process.stdout or ():
            line = json.loads(text)
            if "fault" in line:
                self.faults.append(line["fault"])
            else:
                self.lines.append(line | {"agent": f"{number}:{line['agent']}"})

    def at(self, version: str) -> dict[str, int]:
        """When each agent first decided by a version."""
        return {line["agent"]: line["at_ns"] for line in list(self.lines)
                if line["version"] == version}  # fmt: skip

    def close(self) -> None:
        for process in self.processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def run() -> list[Row]:
    rows = []
    for title, names, pushed in (
        ("200 agents under the default", [f"a{n}" for n in range(PROCESSES * EACH)], "default"),
        ("200 processes of one agent", ["one"] * (PROCESSES * EACH), "one"),
    ):
        times, bare_ms, faults = measure(names, pushed)
        p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
        note = f"{len(times)} decisions taken, slowest {max(times):.0f} ms"
        rows += [
            Row(name=f"{title}, p50", measured=p50, limit=bare_ms, unit="ms", note=note),
            Row(name=f"{title}, p99", measured=p99, limit=bare_ms, target=1000, unit="ms"),
            Row(name=f"{title}, mixtures", measured=float(len(faults)), target=0, unit="",
                note="; ".join(faults[:3])),
        ]  # fmt: skip
    return rows


def measure(names: list[str], pushed: str) -> tuple[list[float], float, list[str]]:
    """Milliseconds from the push to each agent's first decision, over all rounds; the median of a
    bare read; and what was decided wrongly."""
    times: list[float] = []
    bare: list[float] = []
    with whole() as system:
        first = push(system, pushed, OPEN.format(n=0))
        agents = Agents(system, names)
        try:
            wait_for(lambda: len(agents.at(first)) == len(names), "all agents at work", 120, 0.05)
            for number in range(1, ROUNDS + 1):
                text = (OPEN if number % 2 == 0 else REFUSED).format(n=number)
                at_ns = time.monotonic_ns()
                version = push(system, pushed, text)
                wait_for(
                    lambda version=version: len(agents.at(version)) == len(names),  # type: ignore[misc] # bound at once
                    f"all agents by version {version}", 60, 0.01,
                )  # fmt: skip
                times += [(each - at_ns) / 1e6 for each in agents.at(version).values()]
                began = time.perf_counter()
                system.get(f"/api/v1/pacts/{pushed}")
                bare.append((time.perf_counter() - began) * 1e3)
        finally:
            agents.close()
    return times, percentile(bare, 0.5), agents.faults


def push(system: System, agent: str, text: str) -> str:
    request = urllib.request.Request(
        f"{system.url}/api/v1/pacts/{agent}", method="PUT",
        data=json.dumps({"text": text}).encode(),
        headers={"Authorization": f"Bearer {system.token}", "Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["version"])
