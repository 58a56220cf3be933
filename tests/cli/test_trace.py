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
