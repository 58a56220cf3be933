"""The in-memory twin: the same promises (but for durability) in plain Python, nothing stored."""

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from checkrein.store import coverage, texts
from checkrein.store.answers import counts, tool_hour
from checkrein.store.objections import NOT_JSON, objection, refusal
from checkrein.store.parameters import check
from checkrein.store.position import parse_position, position_of
from checkrein.store.runs import LaneClock, RunSummary, as_row, fold, int_of, is_failure
from checkrein.store.types import Row
from checkrein.world import World

RUN_FILTERS = ("agent", "room", "task_id", "environment", "status")
HOUR_NS = 3600 * 10**9
_JSON = msgspec.json.Encoder()
_PLAIN = msgspec.json.Decoder(dict[str, Any])


class _Kept(msgspec.Struct, frozen=True):
    at: int
    fields: dict[str, Any]

    def place(self) -> tuple[int, str, int, str]:
        return self.at, self.fields["recorder"], self.fields["seq"], self.fields["agent"]


class _Mark(msgspec.Struct):
    seq: int = 0
    chain: bytes = b""
    at: int = 0


class MemoryStore:
    """See `types.Store`. Keeps everything until it is closed."""

    def __init__(self, world: World) -> None:
        self._lock = threading.Lock()
        self._events: dict[tuple[str, str, int], _Kept] = {}
        self._summaries: dict[str, RunSummary] = {}
        self._lanes: dict[tuple[str, str, int], _Mark] = {}
        self._texts: dict[str, str] = {}
        self._answers: dict[str, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {
            "run": self._run,
            "runs": self._runs,
            "events_of_run": self._events_of_run,
            "events_of_task": self._events_of_task,
            "events": self._events_by_filter,
            "find_run": self._find_run,
            "tool_errors_hourly": self._tool_errors_hourly,
            "agents": self._agents,
            "content": self._content,
            "counts": self._counts,
            "marks": self._marks,
            "coverage": self._coverage,
            "coverage_runs": self._coverage_runs,
            "coverage_paths": lambda given: coverage.paths(self._of_calls(given)),
        }

    def write(self, rows: Sequence[Row]) -> int:
        with self._lock:
            accepted = [(row, _accept(row)) for row in rows]
            new = 0
            for row, fields in accepted:
                key = (fields["agent"], fields["recorder"], fields["seq"])
                if key not in self._events:
                    new += 1
                    self._keep(key, row, fields)
            return new

    def _keep(self, key: tuple[str, str, int], row: Row, fields: dict[str, Any]) -> None:
        lane = (fields["agent"], fields["recorder"], row.partition)
        mark = self._lanes.setdefault(lane, _Mark())
        at = fields["ts"]
        if fields["seq"] > mark.seq:
            at = LaneClock(mark.at).at(at)
        mark.at = max(mark.at, at)
        if (fields["seq"], row.chain) > (mark.seq, mark.chain):
            mark.seq, mark.chain = fields["seq"], row.chain
        self._events[key] = _Kept(at, fields)
        texts.lift(fields, self._texts.__setitem__)
        if fields["run_id"]:
            run = self._summaries.get(fields["run_id"])
            self._summaries[fields["run_id"]] = fold(run, fields, at)

    def query(self, name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        given = check(name, parameters)
        with self._lock:
            return self._answers[name](given)

    def rest(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing to let go of."""

    # --- one method a query ----------------------------------------------------------------------

    def _run(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        run = self._summaries.get(given["run_id"])
        return [as_row(run)] if run else []

    def _runs(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        found = [
            run for run in self._summaries.values()
            if run.started_at >= given.get("since", 0)
            and run.run_id in given.get("run_ids", (run.run_id,))
            and all(getattr(run, name) == given[name] for name in RUN_FILTERS if name in given)
        ]  # fmt: skip
        found.sort(key=lambda run: (run.started_at, run.run_id), reverse=True)
        return [as_row(run) for run in found[: given["limit"]]]

    def _find_run(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        found = sorted(run for run in self._summaries if run.startswith(given["prefix"]))
        return [{"run_id": run} for run in found[: given["limit"]]]

    def _events_of_run(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        return self._select(given, {"run_id": given["run_id"]})

    def _events_of_task(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        return self._select(given, {"task_id": given["task_id"]})

    def _events_by_filter(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        names = ("agent", "room", "run_id", "task_id")
        return self._select(given, {name: given[name] for name in names if name in given})

    def _select(self, given: dict[str, Any], equal: dict[str, str]) -> list[dict[str, Any]]:
        kept: Iterable[_Kept] = self._events.values()
        kept = (one for one in kept if all(one.fields[k] == v for k, v in equal.items()))
        if "types" in given:
            kept = (one for one in kept if one.fields["type"] in given["types"])
        if "since" in given:
            kept = (one for one in kept if one.at >= given["since"])
        if "until" in given:
            kept = (one for one in kept if one.at < given["until"])
        if "after" in given:
            after = parse_position(given["after"])
            kept = (one for one in kept if one.place() > after)
        chosen = sorted(kept, key=_Kept.place)[: given["limit"]]
        return [one.fields | {"position": position_of(*one.place())} for one in chosen]

    def _tool_errors_hourly(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
        for one in self._events.values():
            hour = one.at // HOUR_NS * HOUR_NS
            if (
                one.fields["type"] == "tool.returned"
                and given.get("since", 0) <= hour < given.get("until", 2**63)
                and given.get("agent", one.fields["agent"]) == one.fields["agent"]
            ):
                tool = one.fields.get("tool", "")
                groups.setdefault((hour, tool), []).append(one.fields)
        return [_tool_hour(*key, groups[key]) for key in sorted(groups)]

    def _agents(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for run in self._summaries.values():
            if run.started_at < given.get("since", 0):
                continue
            row = found.setdefault(
                run.agent,
                {"agent": run.agent, "runs": 0, "tokens": 0, "usd": 0.0, "last_seen": 0},
            )
            row["runs"] += 1
            row["tokens"] += run.tokens
            row["usd"] += max(run.usd_counted, run.usd_told)
            row["last_seen"] = max(row["last_seen"], run.last_event_at)
        return [found[agent] for agent in sorted(found)]

    def _content(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        text = self._texts.get(given["hash"])
        return [] if text is None else [{"hash": given["hash"], "text": text}]

    def _counts(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        tables = [("events", len(self._events), 0, 0, 0), ("contents", len(self._texts), 0, 0, 0)]
        return counts(list(tables), len(self._summaries))

    def _marks(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        rows = [
            {
                "recorder": recorder, "agent": agent, "partition": partition,
                "seq": mark.seq, "at": mark.at, "chain": mark.chain.hex(),
            }
            for (agent, recorder, partition), mark in self._lanes.items()
            if given.get("recorder", recorder) == recorder and given.get("agent", agent) == agent
        ]  # fmt: skip
        return sorted(rows, key=lambda row: (row["recorder"], row["agent"], row["partition"]))

    def _coverage(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        return coverage.counted(self._of_calls(given), self._gateways(given))

    def _coverage_runs(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        rows = coverage.counted(self._of_calls(given), self._gateways(given), by_run=True)
        return rows[: given["limit"]]

    def _gateways(self, given: dict[str, Any]) -> frozenset[str]:
        since = given.get("since", 0)
        return coverage.gateways_of(one.fields for one in self._events.values() if one.at >= since)

    def _of_calls(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            one.fields for one in self._events.values()
            if one.fields["type"] in coverage.TYPES
            and given.get("since", 0) <= one.at < given.get("until", 2**63)
            and all(one.fields[k] == given[k] for k in ("agent", "run_id") if k in given)
        ]  # fmt: skip


def _accept(row: Row) -> dict[str, Any]:
    why = objection(row.fields)
    if why:
        raise refusal(row.fields, why)
    try:
        return _PLAIN.decode(_JSON.encode(row.fields))
    except NOT_JSON as error:
        raise refusal(row.fields, f"JSON cannot say it: {error}") from error


def _tool_hour(hour: int, tool: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
    durations = sorted(int_of(call, "duration_ns") for call in calls)
    refused = sum(call.get("status") in ("denied", "cancelled") for call in calls)

    def quantile(share: float) -> float:
        return float(durations[math.floor(share * (len(durations) - 1))])

    return tool_hour(
        hour, tool, (len(calls), sum(map(is_failure, calls)), refused),
        (sum(durations), durations[-1]), (quantile(0.5), quantile(0.95), quantile(0.99)),
    )  # fmt: skip
