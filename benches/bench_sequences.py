"""What sequence rules cost: judging, and taking in what happens, whatever has happened before."""

import time
from collections.abc import Callable, Iterator

from benches.harness import Row
from tests.policy.sequences.acting import compiled
from tests.policy.sequences.naive import Naive

from checkrein.policy.types import Deed

QUESTION = "What does a call cost under sequence rules, and does its past make it dearer?"
CALLS = 20_000
PEER_CALLS = 300
TWENTY = [
    "deny refund unless formerly verify within 30m",
    "deny deploy unless formerly test since edit",
    "ask send if count send within 1h >= 1000000",
    "deny transfer if sum args.n of transfer within 24h > 1000000000",
    "deny delete_* if never before backup",
    "deny notify if once notify",
    'steer search if count search >= 1000000 say "conclude"',
    "deny refund(args.n > 100) unless formerly approve(args.k == call.args.k) within 1h",
    "ask refund if count refund within 10m > 1000000",
    "deny refund if sum args.n of refund within 24h > 1000000000",
    "deny pay unless formerly check within 5m",
    "deny pay if once stop",
    "ask pay if count pay within 1h > 1000000",
    "deny ship if edit since test",
    "deny ship unless formerly pack and not once recall",
    "ask publish if count publish|send within 1d > 1000000",
    "deny book if once book(args.k == call.args.k)",
    "deny cancel unless formerly book(args.k == call.args.k)",
    "deny export if once read_private",
    "ask drop_* unless formerly backup within 1h",
]
TOOLS = ("verify", "refund", "approve", "refund", "check", "pay", "test", "edit", "send", "refund")


def many() -> list[str]:
    """1,000 rules over 50 tools."""
    return [
        (
            f"deny t{number % 50} if sum args.n of t{number % 50} within {1 + number}m > 100000000",
            f"deny t{number % 50} unless not once stop{number}",
            f"ask t{number % 50} if count t{(number + 1) % 50} within {1 + number}m > 1000000",
            f"deny t{number % 50} if formerly t{(number + 7) % 50} since t{(number + 9) % 50} "
            f"within {1 + number}ms",
        )[number // 50 % 4]
        for number in range(1000)
    ]


def deeds(tools: tuple[str, ...], count: int) -> Iterator[Deed]:
    for number in range(count):
        args = {"k": number % 100, "n": 7}
        facts = {"args": args, "tool": tools[number % len(tools)], "step": number}
        yield Deed(
            tool=tools[number % len(tools)], args=args, call_id=str(number),
            at_ns=(number + 1) * 10_000_000, facts=facts,
        )  # fmt: skip


def ours(
    rules: list[str], tools: tuple[str, ...], count: int, judge_only: bool, only: str = ""
) -> list[int]:
    """Nanoseconds of each call (of the tool `only`), sorted."""
    sequences, times = compiled(*rules), []
    state = sequences.new_state()
    for deed in deeds(tools, count):
        begun = time.perf_counter_ns()
        sequences.judge(state, deed)
        judged = time.perf_counter_ns()
        sequences.began(state, deed)
        sequences.ended(state, deed, True)
        ended = time.perf_counter_ns()
        if not only or deed.tool == only:
            times.append((judged if judge_only else ended) - begun)
    return sorted(times[min(200, count // 2) :])


def peer(rules: list[str], tools: tuple[str, ...], past: int, only: str = "") -> list[int]:
    """The scan of the whole history, with `past` calls in it."""
    naive, times = Naive(rules), []
    for number, deed in enumerate(deeds(tools, past + PEER_CALLS)):
        if number < past:
            naive.ended(naive.began(deed, "r"), True)
            continue
        if only and deed.tool != only:
            continue
        begun = time.perf_counter_ns()
        naive.judge(deed, "r")
        times.append(time.perf_counter_ns() - begun)
    return sorted(times)


def reading() -> float:
    begun = time.perf_counter_ns()
    compiled(*many())
    return (time.perf_counter_ns() - begun) / 1e6


def run() -> list[Row]:
    wide = tuple(f"t{number}" for number in range(50))
    p50: Callable[[list[int]], float] = lambda times: times[len(times) // 2] / 1e3  # noqa: E731
    p99: Callable[[list[int]], float] = lambda times: times[len(times) * 99 // 100] / 1e3  # noqa: E731
    twenty = ours(TWENTY, TOOLS, CALLS, False, "refund")
    twenty_peer = peer(TWENTY, TOOLS, 200, "refund")
    short, long = ours(many(), wide, 400, True), ours(many(), wide, CALLS, True)
    short_peer = peer(many(), wide, 200)
    scan = "the peer, in `limit`, looks through the whole history"
    return [
        Row(name="20 rules, 4 of them concerned: judge, began, ended, p50", measured=p50(twenty),
            limit=p50(twenty_peer), target=5, unit="µs", note=f"{scan}, and only judges"),
        Row(name="20 rules, 4 of them concerned: judge, began, ended, p99", measured=p99(twenty),
            limit=p99(twenty_peer), unit="µs"),
        Row(name="1,000 rules, 200 events: judge, p50", measured=p50(short),
            limit=p50(short_peer), target=50, unit="µs", note=scan),
        Row(name="1,000 rules, 20,000 events: judge, p50", measured=p50(long),
            limit=p50(short), target=p50(short) * 1.5, unit="µs",
            note="`limit` is the same with 200 events"),
        Row(name="1,000 rules: reading them", measured=reading(), unit="ms"),
    ]  # fmt: skip


def main() -> None:
    for row in run():
        print(f"{row.name:56} {row.measured:10.2f} {row.unit}   {row.limit or 0:10.2f}")


if __name__ == "__main__":
    main()
