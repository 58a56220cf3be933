"""A framework's agent behind walls: its model calls come to the gateway with the key of its run,
and it is shown with the level that holds it."""

import sys
from pathlib import Path
from typing import Any

import pytest

from checkrein.server.demo.models import ModelServer
from checkrein.supervise.confine import able
from tests.frameworks.test_gateway import PLAIN, REAL_KEY
from tests.system import System, eventually

ABLE = able.look()


@pytest.mark.skipif(not ABLE.levels, reason=ABLE.missing)
def test_an_agent_behind_walls_works_through_the_gateway(
    models: ModelServer, tmp_path: Path
) -> None:
    running = System(tmp_path)
    running.environment |= {
        "CHECKREIN_OPENAI_UPSTREAM": f"{models.url}/v1",
        "OPENAI_API_KEY": REAL_KEY,
        "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src"),
    }
    running.up()
    try:
        (tmp_path / "work").mkdir()
        program = [sys.executable, str(PLAIN / "with_langgraph.py"), "scripted:add"]
        process = running.start(
            "run", "--confine", "--agent", "walled", "--", *program, cwd=tmp_path / "work"
        )
        assert process.wait(100) == 0
        record = eventually(lambda: _ended(running), 30, what="its run has ended")
        events: list[dict[str, Any]] = eventually(
            lambda: _with_passages(running, record["run_id"]), 30, what="passages are recorded"
        )
    finally:
        running.down()
    assert [e["detail"]["level"] for e in events if "level" in e.get("detail", {})] == [
        ABLE.levels[0]
    ]
    assert {e["status"] for e in events if e["type"] == "passage"} == {"ok"}
    assert REAL_KEY not in str(events)


def _ended(running: System) -> dict[str, Any] | None:
    runs = [run for run in running.json("ps", "--all") if run["agent"] == "walled"]
    return next((run for run in runs if run["status"] == "completed"), None)


def _with_passages(running: System, run_id: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = running.json("show", run_id)
    return events if any(event["type"] == "passage" for event in events) else []
