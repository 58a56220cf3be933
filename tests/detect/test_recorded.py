"""Recorded lines become events; what is malformed is rejected with its line and reason."""

import gzip
import json
from pathlib import Path

import pytest

from checkrein.detect.recorded import events_of, lines_of, numbered_events_of
from checkrein.events import codec
from checkrein.events.types import (
    Checkpoint,
    Handoff,
    ModelResponse,
    RunEnd,
    RunStart,
    ToolArguments,
    ToolReturned,
)
from checkrein.world import is_trace_id, is_uuid7

RUN = [
    {"type": "run.start", "agent": "bot", "model": "m", "task": "do it",
     "tools": ["a", {"name": "b"}], "framework": "f", "domain": "d", "ts": 1754626020.5},
    {"type": "step.start", "step": 1},
    {"type": "model.call", "step": 1, "content": "hm", "input_tokens": 7, "output_tokens": 3,
     "cost_usd": 0.5, "handoff_to": "other"},
    {"type": "tool.call", "step": 1, "tool": "a", "arguments": {"x": 1}, "call_id": "c1"},
    {"type": "tool.result", "step": 1, "tool": "a", "call_id": "c1", "status": "error",
     "error": "no", "result": None},
    {"type": "message", "role": "user", "content": "hello"},
    {"type": "step.end", "step": 1, "duration_s": 1.5},
    {"type": "novelty", "what": [1, 2]},
    {"type": "run.end", "status": "error", "exit_status": "Limit", "duration_s": 2.0},
]  # fmt: skip


def lines(run_id: str = "r1") -> list[str]:
    return [json.dumps({"run_id": run_id, "seq": n, **each}) for n, each in enumerate(RUN)]


def test_every_type_has_its_events() -> None:
    events = list(events_of(lines(), room="lab"))
    assert [codec.decode(codec.encode(event)) for event in events] == events
    assert [codec.fields_of(codec.encode(event))["type"] for event in events] == [
        "run.start", "step.start", "model.request", "model.response", "handoff", "tool.selected",
        "tool.arguments", "tool.invoked", "tool.returned", "reasoning", "step.end", "checkpoint",
        "run.end",
    ]  # fmt: skip
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert {event.room for event in events} == {"lab"}
    start, response, handoff = events[0], events[3], events[4]
    assert isinstance(start, RunStart)
    assert start.ts == 1754626020_500_000_000
    assert (start.goal, start.tools, start.task_type) == ("do it", ["a", "b"], "d")
    assert start.labels == {"recorded_run_id": "r1", "domain": "d"}
    assert is_uuid7(start.run_id)
    assert is_trace_id(start.task_id)
    assert isinstance(response, ModelResponse)
    assert (response.input_tokens, response.usd) == (7, 0.5)
    assert isinstance(handoff, Handoff)
    arguments, returned = events[6], events[8]
    assert isinstance(arguments, ToolArguments)
    assert arguments.arguments == {"x": 1}
    assert isinstance(returned, ToolReturned)
    assert (returned.status, returned.error) == ("error", "no")
    assert isinstance(events[11], Checkpoint)
    assert events[11].state["what"] == [1, 2]
    end = events[-1]
    assert isinstance(end, RunEnd)
    assert (end.status, end.reason, end.steps, end.tokens) == ("failed", "Limit", 1, 10)


def test_the_same_file_gives_the_same_events_and_a_salt_gives_others() -> None:
    assert list(events_of(lines())) == list(events_of(lines()))
    assert next(events_of(lines())).run_id != next(events_of(lines(), salt="2")).run_id


def test_interleaved_runs_are_told_apart() -> None:
    mixed = [line for pair in zip(lines("a"), lines("b"), strict=True) for line in pair]
    found = list(numbered_events_of(mixed))
    assert len({event.run_id for _, event in found}) == 2
    assert [at for at, event in found if isinstance(event, RunEnd)] == [("a", 8), ("b", 8)]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"), ("[1]", "not a map but list"), ("7", "not a map but int"),
        ('{"seq": 1, "type": "x"}', "field `run_id` is missing"),
        ('{"run_id": "r", "type": "x"}', "field `seq` is missing"),
        ('{"run_id": "r", "seq": "1", "type": "x"}', "field `seq` is str, not int"),
        ('{"run_id": "r", "seq": true, "type": "x"}', "field `seq` is bool, not int"),
        ('{"run_id": "", "seq": 1, "type": "x"}', "is empty"),
        ("[" * 100_000, "nested too deeply"), (b"\xff\xfe\x00", "not JSON"),
    ],
)  # fmt: skip
def test_a_malformed_line_is_rejected_and_the_rest_goes_on(line: str | bytes, why: str) -> None:
    rejected: list[tuple[int, str]] = []
    good = lines()
    mixed: list[str | bytes] = [*good[:3], line, "", *good[3:]]
    events = list(events_of(mixed, rejected=lambda at, reason: rejected.append((at, reason))))
    assert events == list(events_of(good))
    ((at, reason),) = rejected
    assert at == 4
    assert why in reason


@pytest.mark.parametrize(
    "odd",
    ['"content": "\\ud800"', '"output_tokens": NaN', '"output_tokens": -5', '"content": ["a"]',
     '"input_tokens": 1e300', '"ts": "yesterday"', '"ts": "2026-01-01T00:00:00"', '"step": -1',
     '"model": {"a": 1}', '"cost_usd": "much"', '"output_tokens": 99999999999999999999999'],
)  # fmt: skip
def test_odd_values_are_taken_as_far_as_they_make_sense(odd: str) -> None:
    line = f'{{"run_id": "r", "seq": 0, "type": "model.call", {odd}}}'
    refused: list[object] = []
    events = list(events_of([line], rejected=lambda *why: refused.append(why)))
    assert not refused
    for event in events:
        assert type(codec.decode(codec.encode(event))) is type(event)


def test_plain_and_packed_files(tmp_path: Path) -> None:
    text = "\n".join(lines()).encode()
    (tmp_path / "a.jsonl").write_bytes(text)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text))
    plain, packed = (
        list(events_of(lines_of(tmp_path / name))) for name in ("a.jsonl", "a.jsonl.gz")
    )
    assert plain == packed == list(events_of(lines()))
