"""A whole system and a real agent that waits for people."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.faults.asking_agent import PACT
from tests.system import System, eventually, system

AGENT = Path(__file__).parent / "asking_agent.py"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with system(tmp_path_factory.mktemp("approvals")) as running:
        yield running


def start(up: System, done: Path, *orders: str, supervised: bool, **env: str) -> Any:
    command = [sys.executable, str(AGENT), str(done), *orders]
    environment = {**os.environ, **up.environment, "CHECKREIN_TOKEN": up.token, **env}
    pact = done.with_name("pact.yaml")
    pact.write_text(PACT)
    environment["CHECKREIN_PACT"] = str(pact)
    environment["PYTHONPATH"] = os.pathsep.join(
        [os.environ.get("PYTHONPATH", ""), str(AGENT.parents[2])]
    )
    if supervised:
        run = [sys.executable, "-m", "checkrein", "run", "--agent", "refunder"]
        command = [*run, "--pact", str(pact), "--", *command]
    return subprocess.Popen(command, env=environment, text=True)


def stop(agent: Any) -> None:
    """However the test ended: `checkrein run` passes a SIGTERM on, and ends with its program."""
    if agent.poll() is None:
        agent.terminate()
        agent.wait(20)


def waiting(up: System, order: str) -> dict[str, Any]:
    def look() -> Any:
        asked = up.run("approvals", "--json")
        if asked.returncode:  # control is just starting again
            return None
        found = json.loads(asked.stdout)
        return next((one for one in found if one["arguments"]["order"] == order), None)

    found: dict[str, Any] = eventually(look, what=f"an approval of {order}")
    return found


def lines(done: Path) -> list[str]:
    return done.read_text().splitlines() if done.exists() else []


@pytest.mark.parametrize("supervised", [True, False], ids=["supervised", "alone"])
def test_a_call_waits_until_it_is_approved_denied_or_changed(
    up: System, tmp_path: Path, supervised: bool
) -> None:
    done = tmp_path / "done"
    agent = start(up, done, "A1", "A2", "A3", supervised=supervised)
    try:
        first = waiting(up, "A1")
        assert first["agent"] == "refunder"
        assert first["tool"] == "refund"
        assert first["rule"] == "tools.refund.ask"
        assert first["undo"] == {"kind": "compensable", "undo": "reverse_refund"}

        def shown() -> bool:
            runs = {run["run_id"]: run["status"] for run in up.json("ps")}
            return runs[first["run_id"]] == "waiting_human"

        eventually(shown, what="ps says that it waits")
        assert lines(done) == []
        assert up.run("approve", first["approval_id"], "--reason", "fine").returncode == 0
        second = waiting(up, "A2")
        assert lines(done) == ["A1 2500"]
        assert up.run("deny", second["approval_id"], "--reason", "too much").returncode == 0
        third = waiting(up, "A3")
        changed = json.dumps({"order": "A3", "cents": 100})
        assert up.run("approve", third["approval_id"], "--edit", changed).returncode == 0
        assert agent.wait(20) == 0
    finally:
        stop(agent)
    one, two, three = lines(done)
    assert (one, three) == ("A1 2500", "A3 100")
    assert two.startswith("denied A2: refund denied:")
    assert "too much" in two
    again = up.run("approve", first["approval_id"])
    assert again.returncode == 1
    assert "used up" in again.stdout
    assert third["similar"][0]["decision"] == "denied"
    types = [
        (e["type"], e.get("decision", ""))
        for e in eventually(lambda: up.json("show", first["run_id"]))
        if e["type"].startswith("approval.")
    ]
    (raised,) = [e for e in up.json("escalations") if e["run_id"] == first["run_id"]][-1:]
    assert (raised["to"], raised["status"]) == ("payments-oncall", "open")
    assert up.run("acknowledge", raised["escalation_id"], "--note", "seen").returncode == 0
    assert types[:2] == [("approval.requested", ""), ("approval.decided", "approved")]


@pytest.mark.parametrize("supervised", [True, False], ids=["supervised", "alone"])
def test_control_is_killed_while_an_agent_waits(
    up: System, tmp_path: Path, supervised: bool
) -> None:
    done = tmp_path / "done"
    agent = start(up, done, "B1", supervised=supervised)
    try:
        first = waiting(up, "B1")
        os.kill(up.children()["control"], signal.SIGKILL)
        assert agent.poll() is None
        again = waiting(up, "B1")  # the new control knows it
        assert again["approval_id"] == first["approval_id"]
        assert up.run("approve", first["approval_id"]).returncode == 0
        os.kill(up.children()["control"], signal.SIGKILL)
        assert agent.wait(30) == 0
    finally:
        stop(agent)
    assert lines(done) == ["B1 2500"]


def test_an_agent_that_comes_back_finds_its_question_and_the_answer(
    up: System, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    task = {"TRACEPARENT": f"00-{'c' * 32}-{'d' * 16}-01"}
    agent = start(up, done, "C1", supervised=False, **task)
    try:
        first = waiting(up, "C1")
    finally:
        agent.kill()
        agent.wait()
    assert up.run("approve", first["approval_id"]).returncode == 0
    agent = start(up, done, "C1", "C1", supervised=False, **task)
    try:
        second = waiting(up, "C1")  # the second refund is a question of its own
        assert lines(done) == ["C1 2500"]
        assert second["approval_id"] != first["approval_id"]
        assert up.run("halt", f"run:{second['run_id']}", "--reason", "enough", "--wait", "2")
        agent.wait(20)
    finally:
        agent.kill()
        agent.wait()
    assert lines(done) == ["C1 2500"]
    withdrawn = up.get(f"/api/v1/approvals/{second['approval_id']}")
    assert withdrawn["status"] == "withdrawn"
