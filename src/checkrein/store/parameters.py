"""What a named query may be given: checked once, the same for the store and its twin."""

from typing import Any, NamedTuple

from checkrein.store.types import QUERIES, UnknownQuery

LIMIT_MAX = 10_000
LIMIT_DEFAULT = 1000

_TEXT, _NUMBER, _LIMIT, _TEXTS = "text", "number", "limit", "texts"


class Parameter(NamedTuple):
    kind: str
    required: bool = False


_NEEDED = Parameter(_TEXT, required=True)
_OPTIONAL = Parameter(_TEXT)
_TIME = Parameter(_NUMBER)
_AT_MOST = Parameter(_LIMIT)

_COVERAGE = {"agent": _OPTIONAL, "run_id": _OPTIONAL, "since": _TIME, "until": _TIME}

PARAMETERS: dict[str, dict[str, Parameter]] = {
    "run": {"run_id": _NEEDED},
    "runs": {
        "limit": _AT_MOST, "agent": _OPTIONAL, "room": _OPTIONAL, "task_id": _OPTIONAL,
        "environment": _OPTIONAL, "status": _OPTIONAL, "since": _TIME,
        "run_ids": Parameter(_TEXTS),
    },
    "events_of_run": {"run_id": _NEEDED, "limit": _AT_MOST, "after": _OPTIONAL},
    "events_of_task": {"task_id": _NEEDED, "limit": _AT_MOST, "after": _OPTIONAL},
    "events": {
        "limit": _AT_MOST, "types": Parameter(_TEXTS), "agent": _OPTIONAL, "room": _OPTIONAL,
        "run_id": _OPTIONAL, "task_id": _OPTIONAL, "since": _TIME, "until": _TIME,
        "after": _OPTIONAL,
    },
    "find_run": {"prefix": _NEEDED, "limit": _AT_MOST},
    "tool_errors_hourly": {"since": _TIME, "until": _TIME, "agent": _OPTIONAL},
    "agents": {"since": _TIME},
    "content": {"hash": _NEEDED},
    "counts": {},
    "marks": {"recorder": _OPTIONAL, "agent": _OPTIONAL},
    "coverage": _COVERAGE,
    "coverage_runs": {"limit": _AT_MOST, **_COVERAGE},
    "coverage_paths": _COVERAGE,
}  # fmt: skip


def check(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters that were given (None counts as not given), with `limit` filled in. Raises
    UnknownQuery naming the query or the parameter."""
    known = PARAMETERS.get(name)
    if known is None:
        raise UnknownQuery(f"no query {name!r}; there are: {', '.join(QUERIES)}")
    given = {key: value for key, value in parameters.items() if value is not None}
    for key, value in given.items():
        if key not in known:
            raise UnknownQuery(f"query {name!r} knows no parameter {key!r}; it takes {list(known)}")
        if not _fits(known[key].kind, value):
            raise UnknownQuery(f"query {name!r}: {key!r} is {value!r}, not a {known[key].kind}")
    for key, parameter in known.items():
        if parameter.required and key not in given:
            raise UnknownQuery(f"query {name!r} needs {key!r}")
        if parameter.kind == _LIMIT:
            given[key] = min(given.get(key, LIMIT_DEFAULT), LIMIT_MAX)
    return given


def _fits(kind: str, value: Any) -> bool:
    match kind:
        case "text":
            return isinstance(value, str)
        case "number":
            return type(value) is int and 0 <= value < 2**63
        case "limit":
            return type(value) is int and value > 0
        case _:
            return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
