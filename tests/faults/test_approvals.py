"""A whole system and a real agent that waits for people."""

import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from tests.faults.asking_agent import PACT
from tests.system import System, eventually

AGENT = Path(__file__).parent / "asking_agent.py"


SECRET = "a secret of the test"


class Outside(BaseHTTPRequestHandler):
    """Whoever is told of approvals: takes notices that are signed, refuses the first."""

    came: ClassVar[list[dict[str, Any]]] = []
    refused: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        stamp, _, mac = self.headers["Checkrein-Signature"].partition(",v1=")
        signed = stamp.removeprefix("t=").encode() + b"." + body
        good = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest() == mac
        code = 200 if good and self.refused else 503
        (self.came.append(json.loads(body)) if code == 200 else self.refused.append(code))
        self.send_response(code)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        return None


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    server = HTTPServer(("127.0.0.1", 0), Outside)
    thread = Thread(target=server.serve_forever)
    thread.start()
    running = System(tmp_path_factory.mktemp("approvals"))
    running.environment |= {
        "CHECKREIN_APPROVAL_WEBHOOK": f"http://127.0.0.1:{server.server_port}/notices",
        "CHECKREIN_APPROVAL_WEBHOOK_SECRET": SECRET,
    }
    try:
        running.up()
        yield running
    finally:
        running.down()
        server.shutdown()
        thread.join()
        server.server_close()


def start(
    up: System, done: Path, *orders: str, supervised: bool, pact_text: str = PACT, **env: str
) -> Any:
    command = [sys.executable, str(AGENT), str(done), *orders]
    environment = {**os.environ, **up.environment, "CHECKREIN_TOKEN": up.token, **env}
    pact = done.with_name("pact.yaml")
    pact.write_text(pact_text)
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
        told = eventually(
            lambda: [n for n in Outside.came if n.get("approval_id") == first["approval_id"]]
        )
        assert told[0]["arguments"] == first["arguments"]
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


BUDGET = """
pact: refunds
tools:
  refund: {kind: compensable}
budgets: {tool_calls: 1}
"""
HOLD = """
pact: refunds
tools:
  refund: {kind: compensable}
escalate:
  - {when: args.cents > 2400, to: payments-oncall, within: 5m, hold: true}
"""


def test_a_budget_that_is_used_up_is_raised_and_the_run_goes_on(up: System, tmp_path: Path) -> None:
    done = tmp_path / "done"
    orders = ("E1", "E2", "E3")
    agent = start(up, done, *orders, supervised=False, pact_text=BUDGET, AGENT="spender")
    try:
        second = waiting(up, "E2")
        assert second["rule"] == "budgets.tool_calls"
        bare = up.run("approve", second["approval_id"])
        assert bare.returncode == 1
        assert "by how much" in bare.stdout
        raised = up.run("approve", second["approval_id"], "--raise", "tool_calls=5")
        assert raised.returncode == 0, raised.stdout
        assert agent.wait(20) == 0
    finally:
        stop(agent)
    assert lines(done) == [f"{order} 2500" for order in orders]


def test_a_call_waits_until_somebody_has_taken_note(up: System, tmp_path: Path) -> None:
    done = tmp_path / "done"
    agent = start(up, done, "F1", supervised=False, pact_text=HOLD, AGENT="holder")
    try:

        def raised() -> Any:
            found = up.json("escalations")
            return next((one for one in found if one["hold"] and one["status"] == "open"), None)

        escalation = eventually(raised)
        assert (escalation["to"], escalation["tool"]) == ("payments-oncall", "refund")
        assert escalation["arguments"] == {"order": "F1", "cents": 2500}
        assert lines(done) == []
        assert up.run("acknowledge", escalation["escalation_id"]).returncode == 0
        assert agent.wait(20) == 0
    finally:
        stop(agent)
    assert lines(done) == ["F1 2500"]


def test_the_supervisor_is_killed_while_its_agent_waits(up: System, tmp_path: Path) -> None:
    done = tmp_path / "done"
    agent = start(up, done, "D1", supervised=True)
    try:
        first = waiting(up, "D1")
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
        (supervisor,) = map(int, children.read_text().split())
        os.kill(supervisor, signal.SIGKILL)
        assert up.run("approve", first["approval_id"]).returncode == 0
        assert agent.wait(40) == 0
    finally:
        stop(agent)
    assert lines(done) == ["D1 2500"]
    assert up.get(f"/api/v1/approvals/{first['approval_id']}")["status"] == "used"


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
    eventually(
        lambda: up.get(f"/api/v1/approvals/{second['approval_id']}")["status"] == "withdrawn"
    )


@pytest.mark.parametrize("supervised", [True, False], ids=["supervised", "alone"])
def test_control_is_killed_while_an_agent_waits(
    up: System, tmp_path: Path, supervised: bool
) -> None:
    # The last of this file: `up` waits ever longer before it starts again what keeps dying.
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
