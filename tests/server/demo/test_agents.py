"""The demo's agents, started as a supervisor starts them, and what their flight recorders hold."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkrein.events import codec
from checkrein.events import types as events
from checkrein.sdk import boot
from checkrein.sdk.reader import RingReader
from checkrein.server.demo.cast import CAST, Part
from checkrein.server.demo.models import ModelServer
from checkrein.world import REAL

SOURCE = str(Path(boot.path()).parents[2])
PARTS = {part.agent: part for part in CAST}
RUN_ID = "01890000-0000-7000-8000-000000000001"


def start(part: Part, models: ModelServer, folder: Path, *options: str) -> tuple[int, list[Any]]:
    """Runs an agent to its end; its exit code and what it recorded, in order."""
    recorders = folder / "recorders"
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": boot.python_path(SOURCE),
        "CHECKREIN_SUPERVISOR": str(folder / "nobody.sock"),
        "CHECKREIN_RECORDERS": str(recorders),
        "CHECKREIN_RUN_ID": RUN_ID,
        "CHECKREIN_TASK_ID": REAL.trace_id(),
        "CHECKREIN_AGENT": part.agent,
        "CHECKREIN_PACT": str(part.pact),
        "OPENAI_BASE_URL": f"{models.url}/v1",
        "OPENAI_API_KEY": f"scripted:{part.agent}",
        "ANTHROPIC_BASE_URL": models.url,
        "ANTHROPIC_API_KEY": f"scripted:{part.agent}",
        "DEMO_HANDOFF": str(folder / "handoff"),
    }
    done = subprocess.run(
        [sys.executable, str(part.program), *options],
        env=environ, cwd=folder, capture_output=True, text=True, timeout=55,
    )  # fmt: skip
    found: list[Any] = []
    for place in sorted(recorders.iterdir()):
        reader = RingReader(place)
        try:
            found += [codec.decode(data) for _, data in reader.read(0)]
        finally:
            reader.close()
    return done.returncode, found


@pytest.fixture(scope="module")
def models() -> Any:
    with ModelServer() as server:
        yield server


def of(found: list[Any], kind: type[events.Base]) -> list[Any]:
    return [event for event in found if isinstance(event, kind)]


def test_librarian_is_seen_whole(models: ModelServer, tmp_path: Path) -> None:
    code, found = start(PARTS["librarian"], models, tmp_path, "--questions", "1")
    assert code == 0
    assert [event.tool for event in of(found, events.ToolReturned)] == [
        "search_catalogue", "reserve",
    ]  # fmt: skip
    assert all(event.status == "ok" for event in of(found, events.ToolReturned))
    assert len(of(found, events.ModelResponse)) == 3
    assert all(event.usd for event in of(found, events.ModelResponse))
    assert {event.run_id for event in found} == {RUN_ID}
    assert of(found, events.ScopeDecision) == []


def test_clerk_is_refused_and_goes_on(models: ModelServer, tmp_path: Path) -> None:
    code, found = start(PARTS["clerk"], models, tmp_path)
    assert code == 0
    (decision,) = of(found, events.ScopeDecision)
    assert (decision.rule, decision.action["name"]) == ("tools.pact", "delete_customer")
    assert [event.status for event in of(found, events.ToolReturned)] == ["ok", "ok", "denied"]
    assert "a human will" in of(found, events.ModelResponse)[-1].content


def test_courier_loses_nothing_when_it_is_killed(models: ModelServer, tmp_path: Path) -> None:
    code, found = start(PARTS["courier"], models, tmp_path)
    assert code == -9
    invoked = of(found, events.ToolInvoked)
    assert [event.tool for event in invoked] == ["pick_up", "deliver"]
    returned = of(found, events.ToolReturned)
    assert [event.call_id for event in returned] == [invoked[0].call_id]


def test_researcher_is_cut_off_without_a_server(models: ModelServer, tmp_path: Path) -> None:
    code, found = start(PARTS["researcher"], models, tmp_path)
    assert code != 0
    statuses = [event.status for event in of(found, events.ToolReturned)]
    made = statuses.index("denied")
    assert made in (3, 4)
    assert set(statuses[made:]) == {"denied"}
    assert of(found, events.RunEnd)[-1].status == "halted"
