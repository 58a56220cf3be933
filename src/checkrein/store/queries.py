"""The named queries in SQL. Each takes checked parameters and gives a statement with its bindings;
values never stand in the text."""

# ruff: noqa: S608  # names in the SQL are our own constants, values are bound or numbers of ours

from collections.abc import Sequence
from typing import Any, NamedTuple

from checkrein.store.position import parse_position
from checkrein.store.rows import EVENT_COLUMNS
from checkrein.store.schema import DATABASE

RUN_STATE = (
    "first", "stated", "call_ended", "ending", "named", "parent", "task_type", "step",
    "tokens_counted", "tokens_told", "usd_counted", "usd_told", "tool_calls", "errors",
    "own_last_at", "unpriced", "lows", "highs",
)  # fmt: skip

_AGGREGATES = {
    "first": "min",
    "started_at": "min",
    "lows": "minMap",
    "highs": "maxMap",
} | dict.fromkeys(("tokens_counted", "usd_counted", "tool_calls", "errors", "unpriced"), "sum")


class Statement(NamedTuple):
    sql: str
    bindings: dict[str, Any]


def _events(where: list[str], given: dict[str, Any], bindings: dict[str, Any]) -> Statement:
    if "after" in given:
        at, recorder, seq, agent = parse_position(given["after"])
        where = [
            *where,
            "at >= {a_at:Int64}",
            "(at, recorder, seq, toString(agent)) > "
            "({a_at:Int64}, {a_recorder:String}, {a_seq:Int64}, {a_agent:String})",
        ]
        bindings = bindings | {
            "a_at": at, "a_recorder": recorder, "a_seq": seq, "a_agent": agent,
        }  # fmt: skip
    condition = " AND ".join(where) or "1"
    columns = ", ".join(EVENT_COLUMNS)
    return Statement(
        f"SELECT {columns} FROM {DATABASE}.events WHERE {condition} "
        "ORDER BY at, recorder, seq, agent LIMIT {n:UInt32}",
        bindings | {"n": given["limit"]},
    )


def events_of_run(given: dict[str, Any]) -> Statement:
    return _events(["run_id = {run_id:String}"], given, {"run_id": given["run_id"]})


def events_of_task(given: dict[str, Any]) -> Statement:
    return _events(["task_id = {task_id:String}"], given, {"task_id": given["task_id"]})


def events(given: dict[str, Any]) -> Statement:
    where: list[str] = []
    bindings: dict[str, Any] = {}
    for name in ("agent", "room", "run_id", "task_id"):
        if name in given:
            where.append(f"{name} = {{{name}:String}}")
            bindings[name] = given[name]
    if "types" in given:
        where.append("type IN {types:Array(String)}")
        bindings["types"] = list(given["types"])
    for name, comparison in (("since", ">="), ("until", "<")):
        if name in given:
            where.append(f"at {comparison} {{{name}:Int64}}")
            bindings[name] = given[name]
    return _events(where, given, bindings)


def _whole(column: str) -> str:
    return f"{_AGGREGATES.get(column, 'max')}({column}) AS whole_{column}"


def _run_columns() -> str:
    return "run_id, " + ", ".join(_whole(column) for column in RUN_STATE)


def run(given: dict[str, Any]) -> Statement:
    return Statement(
        f"SELECT {_run_columns()} FROM {DATABASE}.runs WHERE run_id = {{run_id:String}} "
        "GROUP BY run_id",
        {"run_id": given["run_id"]},
    )


_STATUS = """multiIf(max(ending).1 > 0, max(ending).4,
    max(stated).3 IN ('waiting_model', 'waiting_tool')
        AND max(call_ended) > (max(stated).1, max(stated).2), 'running',
    max(stated).3 = '', 'running', max(stated).3)"""

_RUN_FILTERS = {
    "agent": "min(first).3", "room": "min(first).4", "environment": "min(first).5",
    "task_id": "min(first).6", "status": _STATUS,
}  # fmt: skip


def runs(given: dict[str, Any]) -> Statement:
    """Two steps: which runs, by few columns; then everything of these few."""
    having: list[str] = []
    bindings: dict[str, Any] = {"n": given["limit"]}
    where = ""
    if "run_ids" in given:
        where = " WHERE run_id IN {run_ids:Array(String)}"
        bindings["run_ids"] = list(given["run_ids"])
    for name, expression in _RUN_FILTERS.items():
        if name in given:
            having.append(f"{expression} = {{{name}:String}}")
            bindings[name] = given[name]
    if "since" in given:
        having.append("min(started_at) >= {since:Int64}")
        bindings["since"] = given["since"]
    chosen = (
        f"SELECT run_id FROM {DATABASE}.runs{where} GROUP BY run_id"
        + (f" HAVING {' AND '.join(having)}" if having else "")
        + " ORDER BY min(started_at) DESC, run_id DESC LIMIT {n:UInt32}"
    )
    return Statement(
        f"SELECT {_run_columns()} FROM {DATABASE}.runs WHERE run_id IN ({chosen}) GROUP BY run_id "
        "ORDER BY whole_first.1 DESC, run_id DESC",
        bindings,
    )


def find_run(given: dict[str, Any]) -> Statement:
    return Statement(
        f"SELECT DISTINCT run_id FROM {DATABASE}.runs WHERE startsWith(run_id, {{prefix:String}}) "
        "ORDER BY run_id LIMIT {n:UInt32}",
        {"prefix": given["prefix"], "n": given["limit"]},
    )


def tool_errors_hourly(given: dict[str, Any]) -> Statement:
    where, bindings = ["1"], {}
    for name, comparison in (("since", ">="), ("until", "<")):
        if name in given:
            where.append(f"hour {comparison} {{{name}:Int64}}")
            bindings[name] = given[name]
    table = "tool_hours"
    if "agent" in given:
        table = "agent_tool_hours"
        where.append("agent = {agent:String}")
        bindings["agent"] = given["agent"]
    return Statement(
        "SELECT hour, tool, sum(calls) AS n, sum(errors) AS failed, sum(refused) AS said_no, "
        "sum(duration_ns_sum) AS total, max(duration_ns_max) AS longest, "
        "quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(durations) AS quantiles "
        f"FROM {DATABASE}.{table} WHERE {' AND '.join(where)} "
        "GROUP BY hour, tool ORDER BY hour, tool",
        bindings,
    )


def agents(given: dict[str, Any]) -> Statement:
    having = "HAVING min(started_at) >= {since:Int64}" if "since" in given else ""
    return Statement(
        "SELECT agent, count() AS runs, sum(tokens) AS tokens, sum(usd) AS usd, "
        "max(seen) AS last_seen FROM (SELECT min(first).3 AS agent, "
        "greatest(sum(tokens_counted), max(tokens_told)) AS tokens, "
        "greatest(sum(usd_counted), max(usd_told)) AS usd, "
        "if(max(own_last_at) > 0, max(own_last_at), min(started_at)) AS seen "
        f"FROM {DATABASE}.runs GROUP BY run_id {having}) GROUP BY agent ORDER BY agent",
        {"since": given["since"]} if "since" in given else {},
    )


def content(given: dict[str, Any]) -> Statement:
    return Statement(
        f"SELECT any(text) FROM {DATABASE}.contents WHERE hash = unhex({{hash:String}}) "
        "GROUP BY hash",
        {"hash": given["hash"]},
    )


def texts_of(hashes: list[str]) -> Statement:
    return Statement(
        f"SELECT lower(hex(hash)), any(text) FROM {DATABASE}.contents "
        "WHERE hash IN (SELECT toFixedString(unhex(arrayJoin({hashes:Array(String)})), 32)) "
        "GROUP BY hash",
        {"hashes": hashes},
    )


def marks(given: dict[str, Any]) -> Statement:
    names = [name for name in ("recorder", "agent") if name in given]
    where = " AND ".join(f"{name} = {{{name}:String}}" for name in names) or "1"
    return Statement(
        "SELECT recorder, agent, partition, max(high).1 AS seq, max(at) AS last_at, "
        "lower(hex(max(high).2)) AS chain "
        f"FROM {DATABASE}.marks WHERE {where} GROUP BY recorder, agent, partition "
        "ORDER BY recorder, agent, partition",
        {name: given[name] for name in names},
    )


def marks_of(recorders: Sequence[str]) -> Statement:
    """For `seen.Lanes`: (recorder, agent, partition, seq, at)."""
    return Statement(
        "SELECT recorder, agent, partition, max(high).1, max(at) "
        f"FROM {DATABASE}.marks WHERE recorder IN {{recorders:Array(String)}} "
        "GROUP BY recorder, agent, partition",
        {"recorders": list(recorders)},
    )


def stored_of(agent: str, recorder: str, seqs: Sequence[int]) -> Statement:
    """Which of these numbers of a recorder stand in the store."""
    return Statement(
        f"SELECT DISTINCT seq FROM {DATABASE}.events WHERE recorder = {{recorder:String}} "
        "AND agent = {agent:String} AND seq IN {seqs:Array(Int64)}",
        {"agent": agent, "recorder": recorder, "seqs": list(seqs)},
    )


COUNTS = Statement(
    "SELECT table, sum(rows), sum(bytes_on_disk), sum(data_uncompressed_bytes), count() "
    f"FROM system.parts WHERE database = '{DATABASE}' AND active GROUP BY table",
    {},
)
