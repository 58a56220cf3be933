"""Which actions were seen by the agent's own SDK, by a gateway, or by both. Pure.

An action is a model or tool call of a run, known by its `call_id`. The SDK has seen it when there
is a `model.request`, `model.response`, `tool.invoked` or `tool.returned` of it by another recorder
than a gateway's; a gateway has when there is a `passage` of it, or one of those by its recorder (a
call that was not announced, or a tool's that a model has proposed). A gateway's recorder is one
that has recorded a passage. `denied` are actions that a guard refused, wherever; a tool call that
was refused was not made, and nobody has seen it. The same in SQL stands in `store.coverage_sql`.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

MODEL_TYPES = ("model.request", "model.response")
TOOL_TYPES = ("tool.invoked", "tool.returned")
TYPES = (*MODEL_TYPES, *TOOL_TYPES, "passage", "scope.decision")
KINDS = ("model", "tool")
PATH_COLUMNS = (
    "agent", "environment", "path", "calls", "streamed", "announced", "refused", "cut", "redacted",
    "guards", "provider_tools",
)  # fmt: skip
SEEN = ("both", "sdk", "gateway", "denied")
COUNTS = tuple(f"{kind}_{seen}" for kind in KINDS for seen in SEEN)

Fields = dict[str, Any]


class _Action(msgspec.Struct):
    by_sdk: bool = False
    by_gateway: bool = False
    denied: bool = False

    @property
    def seen(self) -> str:
        if self.by_gateway:
            return "both" if self.by_sdk else "gateway"
        return "sdk" if self.by_sdk else ""


def kind_of(fields: Fields) -> str:
    """`model`, `tool`, or "" for an event that is no part of an action."""
    type_ = fields["type"]
    if type_ in MODEL_TYPES:
        return "model"
    if type_ in TOOL_TYPES:
        return "tool"
    if type_ == "passage":
        return "tool" if fields.get("kind") == "tool" else "model"
    if type_ == "scope.decision":
        action = fields.get("action")
        kind = action.get("kind") if isinstance(action, dict) else ""
        return str(kind) if kind in KINDS else ""
    return ""


def gateways_of(events: Iterable[Fields]) -> frozenset[str]:
    """The recorders of gateways."""
    return frozenset(event["recorder"] for event in events if event["type"] == "passage")


def counted(
    events: Iterable[Fields], gateways: frozenset[str], *, by_run: bool = False
) -> list[Fields]:
    """One row for each (agent, environment), or for each run, the latest first: COUNTS by name."""
    groups: dict[tuple[str, ...], dict[tuple[str, str, str], _Action]] = {}
    for event in events:
        kind, call_id = kind_of(event), str(event.get("call_id", ""))
        if not kind or not call_id:
            continue
        place = (event["agent"], event["environment"]) + ((event["run_id"],) if by_run else ())
        actions = groups.setdefault(place, {})
        action = actions.setdefault((event["run_id"], call_id, kind), _Action())
        _take(action, event, event["recorder"] in gateways)
    if by_run:
        order = sorted(sorted(groups), key=lambda place: place[2], reverse=True)
        return [_row(place, groups[place]) for place in order]
    return [_row(place, groups[place]) for place in sorted(groups)]


def _take(action: _Action, event: Fields, by_gateway: bool) -> None:
    type_, status = event["type"], event.get("status")
    if type_ == "scope.decision":
        refused = event.get("verdict") == "deny" and event.get("shadow") is not True
        action.denied = action.denied or refused
        return
    if type_ == "tool.returned" and status == "denied":
        action.denied = True
    elif by_gateway or type_ == "passage":
        action.by_gateway = True
    else:
        action.by_sdk = True
    action.denied = action.denied or (type_ == "passage" and status == "refused")


def _row(place: tuple[str, ...], actions: dict[tuple[str, str, str], _Action]) -> Fields:
    row: Fields = dict(zip(("agent", "environment", "run_id"), place, strict=False))
    row |= dict.fromkeys(COUNTS, 0)
    for (_, _, kind), action in actions.items():
        if action.seen:
            row[f"{kind}_{action.seen}"] += 1
        row[f"{kind}_denied"] += action.denied
    return row


def paths(events: Iterable[Fields]) -> list[Fields]:
    """One row for each (agent, environment, path) of the passages among the events: how many calls
    passed there, how many of them as streams, were announced, refused or cut; which guards ran,
    and which tools the provider runs itself. `redacted`: how many values were taken out."""
    groups: dict[tuple[str, str, str], list[Fields]] = {}
    for event in events:
        if event["type"] == "passage":
            path = str(event.get("path", ""))
            groups.setdefault((event["agent"], event["environment"], path), []).append(event)
    return [_path(place, groups[place]) for place in sorted(groups)]


def _path(place: tuple[str, str, str], passages: list[Fields]) -> Fields:
    def count(name: str, value: Any) -> int:
        return sum(one.get(name) == value for one in passages)

    agent, environment, path = place
    return {
        "agent": agent, "environment": environment, "path": path, "calls": len(passages),
        "streamed": count("streamed", True), "announced": count("announced", True),
        "refused": count("status", "refused"), "cut": count("status", "cut"),
        "redacted": sum(sum(_numbers(one.get("redacted"))) for one in passages),
        "guards": _names(passages, "guards"), "provider_tools": _names(passages, "provider_tools"),
    }  # fmt: skip


def _numbers(value: Any) -> list[int]:
    return [each for each in value.values() if type(each) is int] if isinstance(value, dict) else []


def _names(passages: list[Fields], field: str) -> list[str]:
    found: set[str] = set()
    for one in passages:
        given = one.get(field)
        found.update(str(name) for name in (given if isinstance(given, list) else ()))
    return sorted(found)
