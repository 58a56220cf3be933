"""Named queries among millions of events (CHECKREIN_BENCH_EVENTS, ten million for the full one)."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benches.harness import Row

from checkrein.store.clickhouse import ClickHouseStore
from checkrein.world import REAL

QUESTION = "How long do the common questions take among millions of events?"

EVENTS = int(os.environ.get("CHECKREIN_BENCH_EVENTS", "2000000"))
CHUNK = 500_000
TASK_EVENTS = 1000
RUN_EVENTS = 200
ROUNDS = 15
START_MS = 1_760_000_000_000
START_NS = START_MS * 1_000_000

# Tool calls of six events in runs of 200, five runs a task, 40 agents and 25 tools, 12 days.
_FILL = f"""
INSERT INTO checkrein.events (task_id, run_id, recorder, seq, at, ts, stored_at, environment, room,
    agent, step, type, partition, keep_days, failed, tool, status, call_id, duration_ns, model,
    input_tokens, output_tokens, usd, body)
SELECT lower(hex(sipHash128(task))),
    concat(substring(lower(hex(toUInt64({START_MS} + run * {RUN_EVENTS} * 100))), 5), '-7',
        lower(hex(sipHash64(run)))),
    concat('rec-', lower(hex(sipHash64(run)))), n % {RUN_EVENTS} + 1,
    {START_NS} + n * 100000000 AS at, at, {{stored_at}}, 'production',
    concat('room-', toString(task % 8)),
    concat('agent-', toString(task % 40)), intDiv(n % {RUN_EVENTS}, 12) + 1,
    multiIf(n % {RUN_EVENTS} = 0, 'run.start', n % {RUN_EVENTS} = {RUN_EVENTS - 1}, 'run.end',
        ['tool.selected', 'tool.arguments', 'tool.invoked', 'tool.returned', 'model.request',
         'model.response'][n % 6 + 1]) AS kind,
    task % 16, 30, kind = 'tool.returned' AND sipHash64(n) % 20 = 0,
    if(startsWith(kind, 'tool.'), concat('tool_', toString(sipHash64(intDiv(n, 6)) % 25)), ''),
    multiIf(kind = 'run.end', 'completed', kind = 'tool.returned', 'ok', ''),
    lower(hex(sipHash128(intDiv(n, 6)))),
    if(kind IN ('tool.returned', 'model.response'), 1000000 + sipHash64(n) % 900000000, 0),
    if(startsWith(kind, 'model.'), 'gpt-5-mini', ''),
    if(kind = 'model.response', 500 + n % 4000, 0), if(kind = 'model.response', 40 + n % 300, 0),
    if(kind = 'model.response', (n % 100) / 10000, 0),
    concat('{{{{"result":"', hex(sipHash128(n)), ' ', repeat('some words of the answer ', 8),
        hex(sipHash64(n + 1)), '"}}}}')
FROM (SELECT number + {{first}} AS n, intDiv(n, {TASK_EVENTS}) AS task,
    intDiv(n, {RUN_EVENTS}) AS run FROM numbers({{count}}))"""


def fill(store: ClickHouseStore, events: int) -> None:
    """Writes rows as fast as the engine can, past the row builder."""
    for first in range(0, events, CHUNK):
        count = min(CHUNK, events - first)
        sql = _FILL.format(first=first, count=count, stored_at=REAL.now_ns())
        store._writer.command(sql)


def timed(call: Callable[[], Any]) -> list[float]:
    call()
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        call()
        times.append((time.perf_counter() - begun) * 1e3)
    return times


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        store = ClickHouseStore(f"chdb://{folder}/store", REAL)
        fill(store, EVENTS)
        store.close()
        store = ClickHouseStore(f"chdb://{folder}/store", REAL)  # feeds the aggregates
        try:
            return list(measure(store))
        finally:
            store.close()


def measure(store: ClickHouseStore) -> list[Row]:
    ask = store.query
    task = ask("runs", {"limit": 500})[-1]["task_id"]
    run_id = ask("runs", {"limit": 400})[-1]["run_id"]
    rows = ask("events_of_task", {"task_id": task, "limit": 2000})
    assert len(rows) == TASK_EVENTS, len(rows)
    bare = timed(lambda: store._writer.query("SELECT count() FROM checkrein.events WHERE seq = 7"))
    cases = [
        ("one task of 1,000 events", 100, "events_of_task", {"task_id": task, "limit": 2000}),
        ("one run of 200 events", 100, "events_of_run", {"run_id": run_id, "limit": 2000}),
        ("last 50 runs", 20, "runs", {"limit": 50}),
        ("last 50 runs of an agent, failed", 20, "runs",
         {"limit": 50, "agent": "agent-7", "status": "failed"}),
        ("errors per tool per hour", 100, "tool_errors_hourly", {}),
        ("agents", 100, "agents", {}),
        ("100 signals of all", 100, "events", {"types": ["run.end"], "limit": 100}),
        ("counts", 100, "counts", {}),
    ]  # fmt: skip
    found = []
    for name, target, query, parameters in cases:
        times = timed(lambda query=query, parameters=parameters: ask(query, parameters))
        worst = max(times)
        found.append(Row(
            name=f"{name}, p50", measured=statistics.median(times),
            limit=statistics.median(bare), target=target, unit="ms",
            note=f"worst of {ROUNDS}: {worst:.0f} ms; {EVENTS:,} events; "
            "limit: scanning one column of all events",
        ))  # fmt: skip
    return found
