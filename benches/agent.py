"""Real agents for the benchmarks, to be run under `checkrein run`.

    python -m benches.agent steady SECONDS CALLS_A_SECOND CALLS_A_RUN
    python -m benches.agent wander SECONDS ATTEMPTS_A_SECOND
    python -m benches.agent burst SECONDS CALLS_A_SECOND TIMES

`steady` makes tool calls of six events; `wander` asks for a tool outside its pact, once a run;
`burst` is steady, and makes TIMES as many calls for 200 ms of every two seconds, as all others do
at the same moment. Each prints the id of a run as it begins, and as its last line {"calls",
"runs"}. They begin when a line comes on standard input.
"""

import json
import sys
import threading

import checkrein
from checkrein.world import REAL

BURST_S, BURST_EVERY_S = 0.2, 2.0
TEXT = "lorem ipsum dolor sit amet " * 30


@checkrein.tool(kind="read")
def look(number: int) -> str:
    return f"page {number}: {TEXT}"


@checkrein.tool(kind="irreversible")
def flee(number: int) -> str:
    return f"gone {number}"


class Pace:
    """Waits until the next call is due; who is late does not wait."""

    def __init__(self) -> None:
        self._due = REAL.monotonic_ns()
        self._never = threading.Event()

    def wait(self, rate: float) -> None:
        self._due += int(1e9 / rate)
        left_s = (self._due - REAL.monotonic_ns()) / 1e9
        if left_s > 0:
            self._never.wait(left_s)
        elif left_s < -1.0:
            self._due = REAL.monotonic_ns()


def steady(seconds: float, rate: float, calls_a_run: int, times: float = 1.0) -> tuple[int, int]:
    began, pace = REAL.monotonic_ns(), Pace()
    calls = runs = 0
    while (elapsed := (REAL.monotonic_ns() - began) / 1e9) < seconds:
        with checkrein.run(goal="look around", task_type="bench") as run:
            runs += 1
            say(run.run_id)
            for _ in run.steps():
                elapsed = (REAL.monotonic_ns() - began) / 1e9
                bursting = times > 1.0 and REAL.now_ns() / 1e9 % BURST_EVERY_S < BURST_S
                pace.wait(rate * times if bursting else rate)
                calls += 1
                look(calls)
                if calls % calls_a_run == 0 or elapsed > seconds:
                    break
    return calls, runs


def wander(seconds: float, rate: float) -> tuple[int, int]:
    began, pace = REAL.monotonic_ns(), Pace()
    runs = 0
    while (REAL.monotonic_ns() - began) / 1e9 < seconds:
        pace.wait(rate)
        with checkrein.run(goal="get away", task_type="bench") as run:
            runs += 1
            say(run.run_id)
            try:
                flee(runs)
            except checkrein.Denied:
                continue
            raise RuntimeError("a call outside the pact was not refused")
    return runs, runs


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    kind, *given = sys.argv[1:]
    numbers = [float(text) for text in given]
    checkrein.init()
    sys.stdin.readline()
    match kind:
        case "steady":
            calls, runs = steady(numbers[0], numbers[1], int(numbers[2]))
        case "burst":
            calls, runs = steady(numbers[0], numbers[1], 1_000, numbers[2])
        case "wander":
            calls, runs = wander(*numbers)
        case _:
            sys.exit(__doc__)
    say(json.dumps({"calls": calls, "runs": runs}))


if __name__ == "__main__":
    main()
