"""`store.coverage` in SQL, over the raw events. A contract test holds the two together."""

# ruff: noqa: S608  # names in the SQL are our own constants, values are bound or numbers of ours

from typing import Any

from checkrein.store.coverage import MODEL_TYPES, TOOL_TYPES, TYPES
from checkrein.store.queries import Statement
from checkrein.store.schema import DATABASE

_KIND = f"""multiIf(type IN {MODEL_TYPES}, 'model', type IN {TOOL_TYPES}, 'tool',
    type = 'passage', if(kind = 'tool', 'tool', 'model'),
    JSONExtractString(body, 'action', 'kind'))"""

_DENIED = """multiIf(type = 'passage', status = 'refused',
    type = 'scope.decision', verdict = 'deny' AND NOT JSONExtractBool(body, 'shadow'),
    type = 'tool.returned' AND status = 'denied')"""

_MADE = "NOT (type = 'scope.decision' OR type = 'tool.returned' AND status = 'denied')"

_SEEN = {
    "both": "by_sdk AND by_gateway",
    "sdk": "by_sdk AND NOT by_gateway",
    "gateway": "by_gateway AND NOT by_sdk",
    "denied": "denied",
}


def coverage(given: dict[str, Any]) -> Statement:
    return _counted(given, "agent, environment", "agent, environment", "")


def coverage_runs(given: dict[str, Any]) -> Statement:
    statement = _counted(
        given, "agent, environment, run_id", "run_id DESC, agent, environment", "LIMIT {n:UInt32}"
    )
    return Statement(statement.sql, statement.bindings | {"n": given["limit"]})


def coverage_paths(given: dict[str, Any]) -> Statement:
    where, bindings = _where(given, ("passage",))

    def names(field: str) -> str:
        return (
            f"arraySort(groupUniqArrayArray(1000)(JSONExtract(body, '{field}', 'Array(String)')))"
        )

    return Statement(
        "SELECT agent, environment, JSONExtractString(body, 'path') AS path, count(), "
        "countIf(JSONExtractBool(body, 'streamed')), countIf(JSONExtractBool(body, 'announced')), "
        "countIf(status = 'refused'), countIf(status = 'cut'), "
        "sum(arraySum(mapValues(JSONExtract(body, 'redacted', 'Map(String, Int64)')))), "
        f"{names('guards')}, {names('provider_tools')} FROM {DATABASE}.events WHERE {where} "
        "GROUP BY agent, environment, path ORDER BY agent, environment, path",
        bindings,
    )


def _counted(given: dict[str, Any], keys: str, order: str, limit: str) -> Statement:
    where, bindings = _where(given, TYPES)
    since = "AND at >= {since:Int64}" if "since" in given else ""
    gateways = f"SELECT recorder FROM {DATABASE}.events WHERE type = 'passage' {since}"
    counts = ", ".join(
        f"countIf(action = '{kind}' AND {seen})"
        for kind in ("model", "tool")
        for seen in _SEEN.values()
    )
    own = f"recorder IN ({gateways})"
    return Statement(
        f"SELECT {keys}, {counts} FROM (SELECT agent, environment, run_id, call_id, "
        f"{_KIND} AS action, "
        f"max(type != 'passage' AND {_MADE} AND NOT {own}) AS by_sdk, "
        f"max({_MADE} AND {own}) AS by_gateway, "
        f"max({_DENIED}) AS denied FROM {DATABASE}.events "
        f"WHERE {where} AND call_id != '' AND action IN ('model', 'tool') "
        "GROUP BY agent, environment, run_id, call_id, action) "
        f"GROUP BY {keys} ORDER BY {order} {limit}",
        bindings,
    )


def _where(given: dict[str, Any], types: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    where = ["type IN {types:Array(String)}"]
    bindings: dict[str, Any] = {"types": list(types)}
    for name in ("agent", "run_id"):
        if name in given:
            where.append(f"{name} = {{{name}:String}}")
            bindings[name] = given[name]
    for name, comparison in (("since", ">="), ("until", "<")):
        if name in given:
            where.append(f"at {comparison} {{{name}:Int64}}")
            bindings[name] = given[name]
    return " AND ".join(where), bindings
