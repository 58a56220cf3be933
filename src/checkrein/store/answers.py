"""The rows of ClickHouse as the rows that a named query answers."""

from collections.abc import Callable
from typing import Any

from checkrein.store import coverage, coverage_sql, queries
from checkrein.store.runs import RunSummary, as_row

Given = dict[str, Any]
Rows = list[tuple[Any, ...]]

OF_EVENTS = frozenset({"events", "events_of_run", "events_of_task"})
FROM_AGGREGATES = frozenset(
    {"run", "runs", "find_run", "tool_errors_hourly", "agents", "marks", "counts"}
)

STATEMENTS: dict[str, Callable[[Given], queries.Statement]] = {
    "run": queries.run,
    "runs": queries.runs,
    "events_of_run": queries.events_of_run,
    "events_of_task": queries.events_of_task,
    "events": queries.events,
    "find_run": queries.find_run,
    "tool_errors_hourly": queries.tool_errors_hourly,
    "agents": queries.agents,
    "content": queries.content,
    "marks": queries.marks,
    "coverage": coverage_sql.coverage,
    "coverage_runs": coverage_sql.coverage_runs,
    "coverage_paths": coverage_sql.coverage_paths,
}

_FIELD_OF = {"ending": "end"}


def _runs(given: Given, rows: Rows) -> list[dict[str, Any]]:
    names = [_FIELD_OF.get(column, column) for column in queries.RUN_STATE]
    return [
        as_row(RunSummary(run_id=row[0], **dict(zip(names, row[1:], strict=True)))) for row in rows
    ]


def tool_hour(
    hour: int, tool: str, counts: tuple[int, int, int], durations_ns: tuple[int, int],
    quantiles_ns: tuple[float, float, float],
) -> dict[str, Any]:  # fmt: skip
    """One row of `tool_errors_hourly`: `hour` is its beginning (ns), `counts` are calls, errors and
    refusals, `durations_ns` sum and longest, the quantiles (50, 95, 99 %) within 1 %."""
    calls, errors, refused = counts
    total, longest = durations_ns
    return {
        "hour": hour, "tool": tool, "calls": calls, "errors": errors, "refused": refused,
        "error_rate": errors / calls if calls else 0.0,
        "mean_ms": total / calls / 1e6 if calls else 0.0, "max_ms": longest / 1e6,
        "p50_ms": quantiles_ns[0] / 1e6, "p95_ms": quantiles_ns[1] / 1e6,
        "p99_ms": quantiles_ns[2] / 1e6,
    }  # fmt: skip


def _tool_hours(given: Given, rows: Rows) -> list[dict[str, Any]]:
    return [
        tool_hour(hour, tool, (calls, errors, refused), (total, longest), tuple(quantiles))
        for hour, tool, calls, errors, refused, total, longest, quantiles in rows
    ]


def _named(*names: str) -> Callable[[Given, Rows], list[dict[str, Any]]]:
    return lambda given, rows: [dict(zip(names, row, strict=True)) for row in rows]


def _content(given: Given, rows: Rows) -> list[dict[str, Any]]:
    return [{"hash": given["hash"], "text": row[0]} for row in rows]


SHAPES: dict[str, Callable[[Given, Rows], list[dict[str, Any]]]] = {
    "run": _runs,
    "runs": _runs,
    "find_run": _named("run_id"),
    "tool_errors_hourly": _tool_hours,
    "agents": _named("agent", "runs", "tokens", "usd", "last_seen"),
    "content": _content,
    "marks": _named("recorder", "agent", "partition", "seq", "at", "chain"),
    "coverage": _named("agent", "environment", *coverage.COUNTS),
    "coverage_runs": _named("agent", "environment", "run_id", *coverage.COUNTS),
    "coverage_paths": _named(*coverage.PATH_COLUMNS),
}


def counts(tables: Rows, runs: int) -> list[dict[str, Any]]:
    """One row: events, runs, long texts, and bytes on disk in all and by table."""
    by_table = {table: int(size) for table, _, size, _, _ in tables}
    rows = {table: int(count) for table, count, _, _, _ in tables}
    return [
        {
            "events": rows.get("events", 0), "runs": runs, "contents": rows.get("contents", 0),
            "bytes": sum(by_table.values()), "bytes_by_table": by_table,
            "parts": sum(int(parts) for _, _, _, _, parts in tables),
        }
    ]  # fmt: skip
