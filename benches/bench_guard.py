"""What a guard costs before a tool call, and how well loops are told from what only repeats.

    python -m benches.bench_guard

Limit beside it: canonical JSON and one hash of the same arguments and result, which is the least
that any check of repetition must do.
"""

import time
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from random import Random
from typing import Any

import msgspec
from tests.detect.loops import LOOPS, NOT_LOOPS, Class

from checkrein.policy.guard import RunGuard
from checkrein.policy.pact import default_pact, load
from checkrein.policy.types import Action

CALLS = 20_000
SEEDS = 60
PACT = load(
    "pact: bench\ntools: {search: , pay: {kind: irreversible}}\n"
    "budgets: {steps: 1000, tool_calls: 1000000, tokens: 200000, usd: 2.00, wall: 1h}"
)
SMALL = ({"query": "refund policy", "limit": 10}, {"items": [1, 2, 3], "total": 3})
LARGE = (
    {"text": "lorem ipsum dolor sit amet " * 18, "order": "ORD-1001"},
    {"items": [{"id": n, "title": f"some title {n}", "score": n / 2} for n in range(22)]},
)


def calls(arguments: dict[str, Any], result: dict[str, Any]) -> Iterator[tuple[Action, Any]]:
    for number in range(CALLS):
        action = Action(
            kind="tool", name="search", arguments={**arguments, "n": number},
            call_id=str(number), known_tools=("search", "pay"),
        )  # fmt: skip
        yield action, {**result, "n": number}


def guarded(arguments: dict[str, Any], result: dict[str, Any]) -> list[int]:
    guard, times = RunGuard(PACT), []
    for number, (action, brought) in enumerate(calls(arguments, result), 1):
        begun = time.perf_counter_ns()
        verdict = guard.judge(action, number)
        guard.returned(action, brought, "", number)
        times.append(time.perf_counter_ns() - begun)
        if verdict.kind != "allow":
            raise RuntimeError(f"the bench was refused: {verdict.reason}")
    return sorted(times)


def least(arguments: dict[str, Any], result: dict[str, Any]) -> list[int]:
    encode, times = msgspec.json.Encoder(order="deterministic").encode, []
    for action, brought in calls(arguments, result):
        begun = time.perf_counter_ns()
        blake2b(encode(action.arguments), digest_size=8).digest()
        blake2b(encode(brought), digest_size=8).digest()
        times.append(time.perf_counter_ns() - begun)
    return sorted(times)


def refused_at(made: Class, seed: int) -> int | None:
    guard = RunGuard(default_pact())
    for number, each in enumerate(made(Random(seed)), 1):
        action = Action(kind="tool", name=each.tool, arguments=each.arguments, call_id=str(number))
        if guard.judge(action, number * 10**9).kind == "deny":
            return number
        guard.returned(action, each.result, "failed" if each.failed else "", number * 10**9)
    return None


def loops() -> None:
    print(f"\n{'loops':28} refused   at call   of {SEEDS} runs each")
    for name, made in {**LOOPS, **NOT_LOOPS}.items():
        at = Counter(refused_at(made, seed) for seed in range(SEEDS))
        refused = SEEDS - at.pop(None, 0)
        where = f"{min(at)}-{max(at)}" if at else "-"
        kind = "loop" if name in LOOPS else "not a loop"
        print(f"{name:28} {refused / SEEDS:7.0%}   {where:>7}   {kind}")


def main() -> None:
    print(f"{'judge + returned, one call':28} {'p50 us':>8} {'p99 us':>8}   least p50 us")
    for name, (arguments, result) in (("small call", SMALL), ("0.5 kB asked, 1 kB back", LARGE)):
        ours, floor = guarded(arguments, result), least(arguments, result)
        print(
            f"{name:28} {ours[CALLS // 2] / 1e3:8.2f} {ours[CALLS * 99 // 100] / 1e3:8.2f}"
            f"   {floor[CALLS // 2] / 1e3:.2f}"
        )
    loops()


if __name__ == "__main__":
    main()
