"""Events for tests of the history."""

import itertools
import random
from typing import Any

from checkrein.store import Row

START_NS = 1_760_000_000 * 10**9
TASK = "a1" * 16


def event(seq: int, type_: str, /, **fields: Any) -> dict[str, Any]:
    """One event as a plain map; its time is its number in milliseconds after START_NS."""
    return {
        "recorder": "rec-1", "seq": seq, "ts": START_NS + seq * 1_000_000, "environment": "dev",
        "room": "refunds", "agent": "bot", "run_id": "run-1", "task_id": TASK, "step": 1,
        "type": type_,
    } | fields  # fmt: skip


def rows(events: list[dict[str, Any]], partition: int = 10) -> list[Row]:
    return [Row(partition, fields) for fields in events]


def tool_call(first: int, tool: str = "search", **fields: Any) -> list[dict[str, Any]]:
    """Six events, the life of one call."""
    seq = itertools.count(first)
    call = {"call_id": f"call-{first}", "tool": tool}
    outcome = {"status": "ok", "result": {"hits": first}, "duration_ns": 5_000_000} | fields
    return [
        event(next(seq), "tool.selected", **call),
        event(next(seq), "tool.arguments", **call, arguments={"q": f"question {first}"}),
        event(next(seq), "tool.invoked", **call, kind="read"),
        event(next(seq), "tool.returned", **call, **outcome),
        event(next(seq), "tool.parsed", **call),
        event(next(seq), "tool.reentered", **call, chars=120),
    ]


def whole_run(run_id: str, agent: str = "bot", calls: int = 3, **more: Any) -> list[dict[str, Any]]:
    """A run from start to end, with a recorder of its own."""
    events = [event(1, "run.start", goal=f"goal of {run_id}", task_type="ticket")]
    for number in range(calls):
        events += tool_call(len(events) + 1, tool=("search", "refund")[number % 2])
        events.append(event(
            len(events) + 1, "model.response", call_id=f"m{number}", model="gpt-5-mini",
            input_tokens=100, output_tokens=20, usd=0.25, content="thinking", step=number + 1,
        ))  # fmt: skip
    events.append(event(len(events) + 1, "run.end", status="completed", reason="done"))
    place = {"run_id": run_id, "agent": agent, "recorder": f"rec-{run_id}"} | more
    return [fields | place for fields in events]


def shuffled_batches(items: list[Any], seed: int) -> list[list[Any]]:
    """The items, some twice, in a random order, cut at random places."""
    chance = random.Random(seed)
    mixed = items + chance.choices(items, k=len(items) // 3)
    chance.shuffle(mixed)
    batches = []
    while mixed:
        size = chance.randint(1, 12)
        batches.append(mixed[:size])
        mixed = mixed[size:]
    return batches
