"""Recorded runs: lines of JSON as other people's corpora keep them, turned into our events.

The form: one JSON object a line with `run_id`, `seq` (from 0, in order within a run) and `type`
(`run.start step.start step.end model.call tool.call tool.result message run.end`). Runs may follow
each other or interleave. Ids are derived from the recorded ones, so the same file always gives the
same events: whoever stores them twice finds that he has them. The recorded id is kept in
`run.start` under `labels["recorded_run_id"]`.

A line that is no such object is rejected with its number and the reason, and nothing else is lost.
A well-formed line of a type we do not know becomes a `checkpoint` that carries all its fields.
"""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from checkrein.events.types import (
    Base,
    Checkpoint,
    Handoff,
    ModelRequest,
    ModelResponse,
    Reasoning,
    RunEnd,
    RunStart,
    StepEnd,
    StepStart,
    ToolArguments,
    ToolInvoked,
    ToolReturned,
    ToolSelected,
)
from checkrein.world.ids import uuid7_from

RUNS_OPEN_MAX = 4096
"""So many interleaved runs are told apart; the one heard of longest ago is forgotten first."""
BASE_NS = 1_735_689_600_000_000_000
"""Events without a time of their own are dated from here (2025-01-01), 100 ms apart."""
LABEL_CHARS_MAX = 8_000
_TICK_NS = 100_000_000

Rejected = Callable[[int, str], None]
"""`rejected(line, reason)`, lines counted from 1."""

_JSON = msgspec.json.Decoder()


class _Run:
    """What is remembered of a run between its lines."""

    def __init__(self, recorded_id: str, salt: str) -> None:
        digest = sha256(f"{salt}\0{recorded_id}".encode("utf-8", "surrogatepass")).digest()
        self.digest = digest
        self.run_id = ""
        self.task_id = sha256(digest).hexdigest()[:32]
        self.agent = ""
        self.ts = 0
        self.started_ns = 0
        self.step = 0
        self.steps = 0
        self.tokens = 0
        self.usd = 0.0
        self.calls = 0
        self.open: dict[str, int] = {}


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a recorded file, plain or `.gz`. Raises OSError or EOFError (cut short)."""
    if path.suffix == ".gz":
        with gzip.open(path, "rb") as unpacked:
            yield from unpacked
    else:
        with path.open("rb") as file:
            yield from file


def events_of(
    lines: Iterable[bytes | str],
    *,
    room: str = "replay",
    environment: str = "replay",
    recorder: str = "replay",
    salt: str = "",
    rejected: Rejected | None = None,
) -> Iterator[Base]:
    """The events of recorded lines, in their order, numbered 1, 2, 3 … by `recorder`.

    Another `salt` gives other run and task ids, for replaying a file as new runs.
    """
    named = {"room": room, "environment": environment, "recorder": recorder, "salt": salt}
    for _, event in numbered_events_of(lines, **named, rejected=rejected):
        yield event


def numbered_events_of(
    lines: Iterable[bytes | str],
    *,
    room: str = "replay",
    environment: str = "replay",
    recorder: str = "replay",
    salt: str = "",
    rejected: Rejected | None = None,
) -> Iterator[tuple[tuple[str, int], Base]]:
    """As `events_of`, each event with the (run_id, seq) of the line it came from."""
    runs: dict[str, _Run] = {}
    count = 0
    for number, line in enumerate(lines, 1):
        fields = _read(line, number, rejected) if line.strip() else None
        if fields is None:
            continue
        recorded_id, recorded_seq = fields["run_id"], fields["seq"]
        run = runs.get(recorded_id)
        if run is None:
            if len(runs) >= RUNS_OPEN_MAX:
                del runs[next(iter(runs))]
            run = runs[recorded_id] = _Run(recorded_id, salt)
        _follow(run, fields)
        common = {
            "recorder": recorder, "ts": run.ts, "environment": environment, "room": room,
            "agent": run.agent, "run_id": run.run_id, "task_id": run.task_id, "step": run.step,
        }  # fmt: skip
        make = _MAKERS.get(fields["type"], _other)
        for kind, own in make(run, fields):
            count += 1
            yield (recorded_id, recorded_seq), kind(seq=count, **common, **own)
        if fields["type"] == "run.end":
            runs.pop(recorded_id, None)


def _read(line: bytes | str, number: int, rejected: Rejected | None) -> dict[str, Any] | None:
    """One line as a map, or None after saying why not."""
    problem = ""
    fields: Any = None
    try:
        fields = _JSON.decode(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        fields, problem = _read_slowly(line)
    if not problem:
        problem = _what_is_wrong(fields)
    if problem:
        if rejected is not None:
            rejected(number, problem)
        return None
    return fields  # type: ignore[no-any-return] # _what_is_wrong has found it a map


def _read_slowly(line: bytes | str) -> tuple[Any, str]:
    """What the strict reader refuses and JSON libraries write all the same: NaN, half characters,
    and bytes that are not UTF-8."""
    text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
    try:
        return _whole(json.loads(text)), ""
    except RecursionError:
        return None, "nested too deeply"
    except ValueError as error:
        return None, f"not JSON: {error}"


def _whole(value: Any) -> Any:
    """Half characters (lone surrogates) replaced; they have no UTF-8 form."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")
        case dict():
            return {_whole(name): _whole(item) for name, item in value.items()}
        case list():
            return [_whole(item) for item in value]
        case _:
            return value


def _what_is_wrong(fields: Any) -> str:
    if type(fields) is not dict:
        return f"not a map but {type(fields).__name__}"
    for name, kind in (("run_id", str), ("seq", int), ("type", str)):
        value = fields.get(name)
        if type(value) is not kind:
            got = "missing" if value is None else f"{type(value).__name__}, not {kind.__name__}"
            return f"field `{name}` is {got}"
    if not fields["run_id"] or not fields["type"]:
        return "field `run_id` or `type` is empty"
    return ""


def _follow(run: _Run, fields: dict[str, Any]) -> None:
    """Keeps the run's time, step and agent."""
    given = _time_ns(fields.get("ts"))
    if not run.run_id:
        run.ts = given or BASE_NS
        run.started_ns = run.ts
        run.run_id = uuid7_from(run.ts // 1_000_000, run.digest)
        agents = fields.get("agents")
        first = agents[0] if isinstance(agents, list) and agents else None
        named = fields.get("agent") or first or fields.get("framework")
        run.agent = _text(named)[:120] or "agent"
    else:
        run.ts = max(given, run.ts) if given else run.ts + _TICK_NS
    step = fields.get("step")
    if type(step) is int and step >= 0:
        run.step = step


def _time_ns(value: Any) -> int:
    """Seconds since 1970 or an ISO text, as nanoseconds; 0 when it is neither."""
    try:
        match value:
            case bool() | None:
                return 0
            case int() | float() if 0 < value < 1e11:
                return round(value * 1e9)
            case str() if value:
                moment = datetime.fromisoformat(value)
                if moment.tzinfo is None:
                    moment = moment.replace(tzinfo=UTC)
                return round(moment.timestamp() * 1e9)
            case _:
                return 0
    except (ValueError, OverflowError):
        return 0


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def _count(value: Any) -> int:
    match value:
        case bool():
            return 0
        case int() if 0 <= value < 2**63:
            return value
        case float() if 0 <= value < 2**63:
            return int(value)
        case _:
            return 0


def _usd(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and value >= 0 else None


def _duration_ns(value: Any) -> int:
    return round(value * 1e9) if type(value) in (int, float) and 0 <= value < 1e9 else 0


def _names(value: Any) -> list[str]:
    if not isinstance(value, list):
        return []
    return [_text(item.get("name") if isinstance(item, dict) else item) for item in value]


_Made = Iterator[tuple[type[Any], dict[str, Any]]]


def _run_start(run: _Run, fields: dict[str, Any]) -> _Made:
    labels = {"recorded_run_id": fields["run_id"]}
    for name in ("domain", "tool_schema", "url", "system"):
        if fields.get(name) is not None:
            labels[name] = _text(fields[name])[:LABEL_CHARS_MAX]
    yield (
        RunStart,
        {
            "goal": _text(fields.get("task")),
            "task_type": _text(fields.get("domain")),
            "framework": _text(fields.get("framework")),
            "model": _text(fields.get("model")),
            "tools": _names(fields.get("tools")),
            "labels": labels,
        },
    )


def _run_end(run: _Run, fields: dict[str, Any]) -> _Made:
    failed = fields.get("status") not in (None, "completed")
    reason = fields.get("exit_status") or fields.get("termination_reason") or fields.get("error")
    tokens = _count(fields.get("input_tokens")) + _count(fields.get("output_tokens"))
    yield (
        RunEnd,
        {
            "status": "failed" if failed else "completed",
            "reason": _text(reason),
            "steps": run.steps,
            "tokens": tokens or run.tokens,
            "usd": _usd(fields.get("cost_usd")) or run.usd,
            "duration_ns": _duration_ns(fields.get("duration_s")) or run.ts - run.started_ns,
        },
    )


def _step_start(run: _Run, fields: dict[str, Any]) -> _Made:
    run.steps += 1
    yield StepStart, {}


def _step_end(run: _Run, fields: dict[str, Any]) -> _Made:
    yield StepEnd, {"duration_ns": _duration_ns(fields.get("duration_s"))}


def _model_call(run: _Run, fields: dict[str, Any]) -> _Made:
    run.calls += 1
    call_id = f"model-{run.calls}"
    model = _text(fields.get("model"))
    speaker = _text(fields.get("agent"))
    yield (
        ModelRequest,
        {
            "call_id": call_id,
            "model": model,
            "input_chars": _count(fields.get("input_chars")),
            "parameters": {"agent": speaker} if speaker and speaker != run.agent else {},
        },
    )
    tokens_in, tokens_out = _count(fields.get("input_tokens")), _count(fields.get("output_tokens"))
    usd = _usd(fields.get("cost_usd"))
    run.tokens += tokens_in + tokens_out
    run.usd += usd or 0.0
    yield (
        ModelResponse,
        {
            "call_id": call_id,
            "model": model,
            "content": _text(fields.get("content")),
            "finish_reason": _text(fields.get("finish_reason")),
            "input_tokens": tokens_in,
            "output_tokens": tokens_out,
            "cached_tokens": _count(fields.get("cached_tokens")),
            "usd": usd,
        },
    )
    yield from _handed_over(fields)


def _tool_call(run: _Run, fields: dict[str, Any]) -> _Made:
    run.calls += 1
    tool = _text(fields.get("tool"))
    call_id = _text(fields.get("call_id")) or f"tool-{run.calls}"
    parse_error = _text(fields.get("parse_error"))
    named = {"call_id": call_id, "tool": tool}
    yield ToolSelected, named
    yield ToolArguments, {
        **named, "arguments": fields.get("arguments"), "parse_error": parse_error,
    }  # fmt: skip
    if len(run.open) < 1024:
        run.open[call_id] = run.ts
    if not parse_error:
        yield ToolInvoked, named


def _tool_result(run: _Run, fields: dict[str, Any]) -> _Made:
    run.calls += 1
    call_id = _text(fields.get("call_id")) or f"tool-{run.calls}"
    error = _text(fields.get("error"))
    failed = fields.get("status") == "error" or bool(error)
    begun = run.open.pop(call_id, run.ts)
    yield (
        ToolReturned,
        {
            "call_id": call_id,
            "tool": _text(fields.get("tool")),
            "result": fields.get("result"),
            "status": "error" if failed else "ok",
            "error": error or (_text(fields.get("result"))[:2000] if failed else ""),
            "duration_ns": _duration_ns(fields.get("duration_s")) or run.ts - begun,
        },
    )


def _message(run: _Run, fields: dict[str, Any]) -> _Made:
    yield Reasoning, {"text": _text(fields.get("content")), "role": _text(fields.get("role"))}
    yield from _handed_over(fields)


def _handed_over(fields: dict[str, Any]) -> _Made:
    to_agent = _text(fields.get("handoff_to"))
    if to_agent:
        yield Handoff, {"to_agent": to_agent}


def _other(run: _Run, fields: dict[str, Any]) -> _Made:
    yield Checkpoint, {"name": fields["type"], "state": fields}


_MAKERS: dict[str, Callable[[_Run, dict[str, Any]], _Made]] = {
    "run.start": _run_start,
    "run.end": _run_end,
    "step.start": _step_start,
    "step.end": _step_end,
    "model.call": _model_call,
    "tool.call": _tool_call,
    "tool.result": _tool_result,
    "message": _message,
}
