"""Does a budget that 64 workers share hold, and what does a share of it cost?

`checkrein up`, and processes that spend from one hour's budget until they are refused: 64 threads
of one process, then 16 processes of four. The limit beside what they spent is the budget itself.
Then the reservation alone, leased already, beside a plain counter under a lock in a dict.
"""

import json
import subprocess
import sys
import threading
import time
from typing import Any

from benches.harness import Row
from benches.whole import whole
from tests.system import System

from checkrein.policy.accounts import NANO, Account, Amounts, Bound, Grant
from checkrein.policy.ledger import Purse

QUESTION = "Does a budget that 64 workers share hold, and what does a share of it cost?"
WORKERS = 64
USD = 0.3
PACT = f"pact: bench\nbudgets: {{hour: {{usd: {USD}}}, exhausted: stop}}\n"
ROUNDS = 100_000
CALL = Amounts(0, 200, 90_000)


def spend(running: System, name: str, processes: int) -> dict[str, Any]:
    """Processes of one agent spend its hour until nothing is left; the sums of what they say."""
    pact = running.folder / "bench.yaml"
    pact.write_text(PACT)
    environment = {**running.environment, "CHECKREIN_PACT": str(pact)}
    command = [sys.executable, "-m", "benches.spender", str(WORKERS // processes), name]
    started = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         text=True)
        for _ in range(processes)
    ]  # fmt: skip
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        began = time.perf_counter()
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [json.loads(process.communicate(timeout=300)[0]) for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()
    sums = {key: sum(one[key] for one in said) for key in said[0]}
    return sums | {"seconds": time.perf_counter() - began}


def held(running: System, name: str, processes: int) -> list[Row]:
    found = spend(running, name, processes)
    budget = round(USD * NANO)
    over = max(0, found["nano_usd"] - budget) / NANO
    kind = f"{processes} process{'es' if processes > 1 else ''}, {WORKERS} workers"
    note = f"{found['calls']} calls in {found['seconds']:.1f} s"
    return [
        Row(name=f"overshoot, {kind}", measured=over, target=0.0, unit="USD", note=note),
        Row(name=f"spent, {kind}", measured=found["nano_usd"] / NANO, limit=USD, unit="USD"),
        Row(name=f"asked of control for 1,000 calls, {kind}",
            measured=1000 * found["asked"] / max(1, found["calls"]), unit="requests"),
    ]  # fmt: skip


def reserving() -> list[Row]:
    """One thread; the purse's line is never empty."""
    purse = Purse("bench")
    bounds = tuple(
        Bound(Account(scope, "bench", "bot", "w"), (None, 10**15, 10**15))
        for scope in ("hour", "agent", "room", "task")
    )
    purse.reserve("first", bounds, CALL, 0)
    purse.hear([Grant(f"bench.{n}", Amounts(10**12, 10**12, 10**14)) for n in range(1, 5)])
    rows = []
    for count in (1, 4):
        some, times = bounds[:count], []
        for _ in range(ROUNDS):
            begun = time.perf_counter_ns()
            purse.reserve("call", some, CALL, begun)
            purse.settle("call", CALL)
            times.append(time.perf_counter_ns() - begun)
        times.sort()
        rows.append(
            Row(name=f"reserve and settle, {count} shared budgets, p50",
                measured=times[ROUNDS // 2] / 1e3, limit=counting() / 1e3, unit="us",
                note=f"p99 {times[ROUNDS * 99 // 100] / 1e3:.1f} us")
        )  # fmt: skip
    return rows


def counting() -> float:
    """The least that a shared counter must do, p50 in ns: add, compare and take away, locked."""
    lock, counter, times = threading.Lock(), {"usd": 0}, []
    for _ in range(ROUNDS):
        begun = time.perf_counter_ns()
        with lock:
            if counter["usd"] + 90_000 <= 10**14:
                counter["usd"] += 90_000
        with lock:
            counter["usd"] -= 90_000
        times.append(time.perf_counter_ns() - begun)
    times.sort()
    return float(times[ROUNDS // 2])


def run() -> list[Row]:
    rows = reserving()
    with whole() as running:
        rows += held(running, "bench-threads", 1)
        rows += held(running, "bench-processes", 16)
    return rows
