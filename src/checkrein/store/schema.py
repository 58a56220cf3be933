"""The tables, as numbered migrations. A migration that has been released is never changed.

`events` holds every event, ordered so that a task is one stretch of the table; `contents` the long
texts; the rest are aggregates that are always fed from `events`, through the table `fresh` (which
keeps nothing) and the materialized views on it, in steps of whole batches. Each aggregate knows the
youngest batch it has taken in (`max(stored_at)`), so that after a crash exactly what is missing is
fed again.

Everything is synced to disk before an insert returns, and after every merge: a power cut takes back
nothing that was acknowledged.
"""

# ruff: noqa: S608  # names in the SQL are our own constants, values are bound or numbers of ours

DATABASE = "checkrein"

_SYNCED = """fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1"""

_EXPIRY = "toDateTime(intDiv(stored_at, 1000000000)) + toIntervalDay(keep_days)"

_EVENTS = f"""
CREATE TABLE IF NOT EXISTS {DATABASE}.events (
    task_id String CODEC(ZSTD(1)),
    run_id String CODEC(ZSTD(1)),
    recorder String CODEC(ZSTD(1)),
    seq Int64 CODEC(Delta, ZSTD(1)),
    at Int64 CODEC(Delta, ZSTD(1)),
    ts Int64 CODEC(Delta, ZSTD(1)),
    stored_at Int64 CODEC(Delta, ZSTD(1)),
    environment LowCardinality(String),
    room LowCardinality(String),
    agent LowCardinality(String),
    step UInt32 CODEC(ZSTD(1)),
    type LowCardinality(String),
    partition UInt8 CODEC(ZSTD(1)),
    keep_days UInt16 CODEC(ZSTD(1)),
    failed UInt8 CODEC(ZSTD(1)),
    unpriced UInt8 CODEC(ZSTD(1)),
    chain String CODEC(ZSTD(1)),
    tool LowCardinality(String),
    status LowCardinality(String),
    model LowCardinality(String),
    provider LowCardinality(String),
    verdict LowCardinality(String),
    detector LowCardinality(String),
    level LowCardinality(String),
    task_type LowCardinality(String),
    kind LowCardinality(String),
    call_id String CODEC(ZSTD(1)),
    goal String CODEC(ZSTD(1)),
    reason String CODEC(ZSTD(1)),
    parent_run_id String CODEC(ZSTD(1)),
    input_tokens Int64 CODEC(T64, ZSTD(1)),
    output_tokens Int64 CODEC(T64, ZSTD(1)),
    tokens Int64 CODEC(T64, ZSTD(1)),
    duration_ns Int64 CODEC(T64, ZSTD(1)),
    usd Float64 CODEC(ZSTD(1)),
    body String CODEC(ZSTD(3)),
    INDEX by_run run_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_recorder recorder TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_type type TYPE set(64) GRANULARITY 4,
    INDEX by_time at TYPE minmax GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toYYYYMM(toDateTime(intDiv(stored_at, 1000000000), 'UTC'))
ORDER BY (task_id, at, recorder, seq)
TTL {_EXPIRY} DELETE WHERE keep_days > 0
SETTINGS index_granularity = 2048, {_SYNCED}"""

_CONTENTS = f"""
CREATE TABLE IF NOT EXISTS {DATABASE}.contents (
    hash FixedString(32) CODEC(NONE),
    text String CODEC(ZSTD(3)),
    keep_until Date
) ENGINE = ReplacingMergeTree(keep_until)
ORDER BY hash
TTL keep_until DELETE WHERE keep_until < toDate('2149-01-01')
SETTINGS index_granularity = 256, {_SYNCED}"""

FRESH_COLUMNS = (
    "task_id", "run_id", "recorder", "seq", "at", "stored_at", "environment", "room", "agent",
    "step", "type", "partition", "failed", "unpriced", "chain", "tool", "status", "model",
    "task_type", "goal", "reason", "parent_run_id", "input_tokens", "output_tokens", "tokens",
    "duration_ns",
    "usd",
)  # fmt: skip

_FRESH = f"CREATE TABLE IF NOT EXISTS {DATABASE}.fresh AS {DATABASE}.events ENGINE = Null"

_RUNS = f"""
CREATE TABLE IF NOT EXISTS {DATABASE}.runs (
    run_id String,
    first SimpleAggregateFunction(min, Tuple(Int64, Int64, String, String, String, String)),
    stated SimpleAggregateFunction(max, Tuple(Int64, Int64, String, String)),
    call_ended SimpleAggregateFunction(max, Tuple(Int64, Int64)),
    ending SimpleAggregateFunction(max, Tuple(UInt8, Int64, Int64, String, String)),
    named SimpleAggregateFunction(max, Tuple(Int64, Int64, String)),
    parent SimpleAggregateFunction(max, String),
    task_type SimpleAggregateFunction(max, String),
    step SimpleAggregateFunction(max, UInt32),
    tokens_counted SimpleAggregateFunction(sum, Int64),
    tokens_told SimpleAggregateFunction(max, Int64),
    usd_counted SimpleAggregateFunction(sum, Float64),
    usd_told SimpleAggregateFunction(max, Float64),
    tool_calls SimpleAggregateFunction(sum, UInt64),
    errors SimpleAggregateFunction(sum, UInt64),
    own_last_at SimpleAggregateFunction(max, Int64),
    unpriced SimpleAggregateFunction(sum, UInt64),
    lows SimpleAggregateFunction(minMap, Map(String, Int64)),
    highs SimpleAggregateFunction(maxMap, Map(String, Int64)),
    started_at SimpleAggregateFunction(min, Int64),
    stored_at SimpleAggregateFunction(max, Int64)
) ENGINE = AggregatingMergeTree ORDER BY run_id
TTL toDateTime(intDiv(stored_at, 1000000000)) + INTERVAL 180 DAY
SETTINGS index_granularity = 1024, {_SYNCED}"""

_STATE = """multiIf(type = 'status', status,
        type IN ('run.start', 'step.start', 'approval.decided', 'escalation.acknowledged'),
        'running',
        type = 'model.request', 'waiting_model',
        type = 'tool.invoked', 'waiting_tool',
        type = 'approval.requested', 'waiting_human',
        type = 'escalation.raised', 'escalated', '')"""

_NOTHING = "toInt64(0), toInt64(0)"

RUNS_OF = f"""
SELECT run_id,
    min((at, seq, toString(agent), toString(room), toString(environment), task_id)) AS first,
    max(if({_STATE} != '',
        (at, seq, {_STATE}, if(type = 'status', reason, '')),
        ({_NOTHING}, '', ''))) AS stated,
    max(if(type IN ('model.response', 'tool.returned'), (at, seq), ({_NOTHING}))) AS call_ended,
    max(if(type = 'run.end', (
        toUInt8(multiIf(status = 'halted', 3,
            status IN ('completed', 'escalated', 'failed'), 2, 1)),
        at, seq, toString(status), reason), (toUInt8(0), {_NOTHING}, '', ''))) AS ending,
    max(if(goal != '', (at, seq, goal), ({_NOTHING}, ''))) AS named,
    max(parent_run_id) AS parent,
    max(toString(task_type)) AS task_type,
    max(step) AS step,
    sumIf(input_tokens + output_tokens, type = 'model.response') AS tokens_counted,
    maxIf(tokens, type = 'run.end') AS tokens_told,
    sumIf(usd, type = 'model.response') AS usd_counted,
    maxIf(usd, type = 'run.end') AS usd_told,
    countIf(type = 'tool.invoked') AS tool_calls,
    sum(toUInt64(failed)) AS errors,
    max(if(startsWith(recorder, 'role:'), 0, at)) AS own_last_at,
    sum(toUInt64(unpriced)) AS unpriced,
    minMap(map(concat(agent, '/', recorder), seq)) AS lows,
    maxMap(map(concat(agent, '/', recorder), seq)) AS highs,
    min(at) AS started_at,
    max(stored_at) AS stored_at
FROM {{source}} AS source WHERE run_id != '' GROUP BY run_id"""


def _tool_hours(name: str, keys: str) -> str:
    return f"""
CREATE TABLE IF NOT EXISTS {DATABASE}.{name} (
    hour Int64,
    tool LowCardinality(String),
    agent LowCardinality(String),
    calls SimpleAggregateFunction(sum, UInt64),
    errors SimpleAggregateFunction(sum, UInt64),
    refused SimpleAggregateFunction(sum, UInt64),
    duration_ns_sum SimpleAggregateFunction(sum, Int64),
    duration_ns_max SimpleAggregateFunction(max, Int64),
    durations AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Int64),
    stored_at SimpleAggregateFunction(max, Int64)
) ENGINE = AggregatingMergeTree ORDER BY ({keys})
TTL toDateTime(intDiv(stored_at, 1000000000)) + INTERVAL 180 DAY
SETTINGS {_SYNCED}"""


def _tool_hours_of(agent: str) -> str:
    return f"""
SELECT intDiv(at, 3600000000000) * 3600000000000 AS hour, tool, {agent},
    count() AS calls,
    sum(toUInt64(failed)) AS errors,
    countIf(status IN ('denied', 'cancelled')) AS refused,
    sum(duration_ns) AS duration_ns_sum,
    max(duration_ns) AS duration_ns_max,
    quantilesDDState(0.01, 0.5, 0.95, 0.99)(duration_ns) AS durations,
    max(stored_at) AS stored_at
FROM {{source}} AS source WHERE type = 'tool.returned' GROUP BY hour, tool, agent"""


_AGENT_HOURS = f"""
CREATE TABLE IF NOT EXISTS {DATABASE}.agent_hours (
    hour Int64,
    agent LowCardinality(String),
    room LowCardinality(String),
    environment LowCardinality(String),
    events SimpleAggregateFunction(sum, UInt64),
    model_calls SimpleAggregateFunction(sum, UInt64),
    tool_calls SimpleAggregateFunction(sum, UInt64),
    errors SimpleAggregateFunction(sum, UInt64),
    tokens SimpleAggregateFunction(sum, Int64),
    usd SimpleAggregateFunction(sum, Float64),
    stored_at SimpleAggregateFunction(max, Int64)
) ENGINE = AggregatingMergeTree ORDER BY (hour, agent, room, environment)
TTL toDateTime(intDiv(stored_at, 1000000000)) + INTERVAL 180 DAY
SETTINGS {_SYNCED}"""

AGENT_HOURS_OF = """
SELECT intDiv(at, 3600000000000) * 3600000000000 AS hour, agent, room, environment,
    count() AS events,
    countIf(type = 'model.response') AS model_calls,
    countIf(type = 'tool.invoked') AS tool_calls,
    sum(toUInt64(failed)) AS errors,
    sumIf(input_tokens + output_tokens, type = 'model.response') AS tokens,
    sumIf(usd, type = 'model.response') AS usd,
    max(stored_at) AS stored_at
FROM {source} AS source GROUP BY hour, agent, room, environment"""

_MARKS = f"""
CREATE TABLE IF NOT EXISTS {DATABASE}.marks (
    recorder String,
    agent String,
    partition UInt8,
    high SimpleAggregateFunction(max, Tuple(Int64, String)),
    at SimpleAggregateFunction(max, Int64),
    stored_at SimpleAggregateFunction(max, Int64)
) ENGINE = AggregatingMergeTree ORDER BY (recorder, agent, partition)
TTL toDateTime(intDiv(stored_at, 1000000000)) + INTERVAL 400 DAY
SETTINGS index_granularity = 1024, {_SYNCED}"""

MARKS_OF = """
SELECT recorder, toString(agent) AS agent, partition,
    max((seq, chain)) AS high,
    max(at) AS at,
    max(stored_at) AS stored_at
FROM {source} AS source GROUP BY recorder, agent, partition"""

ROLLUPS: dict[str, str] = {
    "runs": RUNS_OF,
    "tool_hours": _tool_hours_of("'' AS agent"),
    "agent_tool_hours": _tool_hours_of("source.agent AS agent"),
    "agent_hours": AGENT_HOURS_OF,
    "marks": MARKS_OF,
}
"""Each aggregate and what it takes from a source of events (`fresh`, or a range of `events`)."""


def _views() -> tuple[str, ...]:
    return tuple(
        f"CREATE MATERIALIZED VIEW IF NOT EXISTS {DATABASE}.to_{name} TO {DATABASE}.{name} AS "
        + select.format(source=f"{DATABASE}.fresh")
        for name, select in ROLLUPS.items()
    )


VERSIONS = f"""
CREATE TABLE IF NOT EXISTS {DATABASE}.versions (version UInt32, applied_at Int64)
ENGINE = MergeTree ORDER BY version SETTINGS {_SYNCED}"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        _EVENTS,
        _CONTENTS,
        _FRESH,
        _RUNS,
        _tool_hours("tool_hours", "hour, tool, agent"),
        _tool_hours("agent_tool_hours", "agent, hour, tool"),
        _AGENT_HOURS,
        _MARKS,
        *_views(),
    ),
)
"""MIGRATIONS[n] brings version n to n + 1. Its statements may be repeated after a crash."""
