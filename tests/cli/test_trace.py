"""A trace of events that nobody has checked is shown all the same."""

from typing import Any

import pytest

from checkrein.cli import show, trace
from checkrein.events.types import TYPES

ODD: tuple[Any, ...] = (None, 5, -1.5, "x", ["x"], {"a": ["x"]}, [{"rung": 7, "ms": "x"}])


def odd_events(value: Any) -> list[dict[str, Any]]:
    common = {
        "recorder": "r", "ts": 1, "environment": "e", "room": "r", "agent": "a", "run_id": "u",
        "task_id": "t", "step": 1,
    }  # fmt: skip
    found: list[dict[str, Any]] = []
    for kind in (*TYPES, "tool.future", "model.future", "galaxy", ""):
        struct = TYPES.get(kind)
        own = set(struct.__struct_fields__) - common.keys() - {"seq"} if struct else {"call_id"}
        found.append({**common, "seq": len(found) + 1, "type": kind} | dict.fromkeys(own, value))
        found.append({**common, "seq": len(found) + 1, "type": kind})
    return found


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_fields_of_any_type_are_shown(value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    events = odd_events(value)
    assert len(trace.rows_of(events)) > 20
    show._waterfall(events)
    show._commands(events)
    assert "galaxy" in capsys.readouterr().out


def call_events(**passage: Any) -> list[dict[str, Any]]:
    common = {
        "recorder": "r", "environment": "e", "room": "r", "agent": "a", "run_id": "u",
        "task_id": "t", "step": 1, "call_id": "m1",
    }  # fmt: skip
    return [
        {**common, "seq": 1, "ts": 1_000_000_000, "type": "model.request", "model": "gpt"},
        {**common, "recorder": "gw", "seq": 1, "ts": 3_000_000_000, "type": "passage",
         "duration_ns": 1_500_000_000, "path": "openai", "name": "gpt", **passage},
        {**common, "seq": 2, "ts": 3_100_000_000, "type": "model.response", "model": "gpt",
         "content": "hello", "duration_ns": 2_100_000_000},
    ]  # fmt: skip


def test_a_passage_stands_below_its_call_and_is_no_other_call() -> None:
    rows = trace.rows_of(call_events(
        announced=True, upstream="main", redacted={"email": 2}, requested_model="gpt",
        reported_model="gpt-mini", attempts=2, provider_tools=["web_search"],
    ))  # fmt: skip
    assert [(row.kind, row.depth) for row in rows] == [("model", 1), ("gateway", 2)]
    assert (rows[1].start, rows[1].end) == (500_000_000, 2_000_000_000)
    assert rows[1].text == (
        "gpt by openai  to main  answered by gpt-mini  2 attempts  redacted 2 email  "
        "the provider runs web_search"
    )


def test_a_passage_says_how_it_ended_and_who_did_not_see_it() -> None:
    _, row = trace.rows_of(call_events(status="cut", reason="run u was halted"))
    assert row.text == "gpt by openai  seen by the gateway only  CUT: run u was halted"
    (alone,) = trace.rows_of(call_events(status="refused", reason="no")[1:2])
    assert (alone.kind, alone.depth) == ("passage", 1)
    assert alone.text.endswith("REFUSED: no")
