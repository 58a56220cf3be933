"""Usual flows learned by a whole running system, and then enforced by it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.system import System, eventually, system

AGENT = """
import json
import sys
import checkrein
from checkrein.sdk.errors import Denied

ACCOUNT = "DE89370400440532013000"

@checkrein.tool
def read_mail():
    return f"The rent goes to account {ACCOUNT}."

@checkrein.tool
def send_money(recipient):
    return "sent"

@checkrein.tool
def post_webpage(text):
    return "posted"

for line in sys.stdin:
    said = "ok"
    with checkrein.run("pay what is due", task_type="rent"):
        read_mail()
        try:
            send_money(recipient=ACCOUNT)
            if line.strip() == "novel":
                post_webpage(text=ACCOUNT)
        except Denied as denied:
            said = str(denied)
    print(json.dumps(said), flush=True)
"""
PACT = "pact: rent\nflow: [learned]\napproval: 1s\n"
RUNS = 20


@contextmanager
def agent(it: System) -> Iterator["subprocess.Popen[str]"]:
    program = it.folder / "agent.py"
    program.write_text(AGENT)
    process = subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**it.environment, "CHECKREIN_AGENT": "bot", "CHECKREIN_TOKEN": it.token},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.communicate(timeout=30)


def run(process: "subprocess.Popen[str]", what: str) -> str:
    """One run of the agent: "ok", or why it was refused."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(what + "\n")
    process.stdin.flush()
    said: str = json.loads(process.stdout.readline())
    return said


def learned_runs(it: System) -> int:
    shown = it.run("pact", "show", "bot", "--profile")
    if shown.returncode:
        return 0
    found: int = json.loads(shown.stdout)["types"].get("rent", {"runs": 0})["runs"]
    return found


def test_what_was_watched_often_enough_is_enforced(tmp_path: Path) -> None:
    file = tmp_path / "rent.yaml"
    file.write_text(PACT)
    with system(tmp_path) as it, agent(it) as bot:
        pushed = it.run("pact", "push", str(file), "--agent", "bot", "--stage", "shadow")
        assert pushed.returncode == 0, pushed.stderr
        assert [run(bot, "usual") for _ in range(RUNS)] == ["ok"] * RUNS
        eventually(lambda: learned_runs(it) >= RUNS, 30, "20 runs are learned")
        pushed = it.run("pact", "push", str(file), "--agent", "bot", "--reason", "learned enough")
        assert pushed.returncode == 0, pushed.stderr

        def refused() -> str:
            said = run(bot, "novel")
            return said if "runs of it known this is refused" in said else ""

        said = eventually(refused, 60, "a way that was never taken is refused")
        assert "`post_webpage` was never called in tasks of type `rent`" in said
        before = it.get("/api/v1/approvals?all=true&limit=1000")
        assert [run(bot, "usual") for _ in range(3)] == ["ok"] * 3
        assert it.get("/api/v1/approvals?all=true&limit=1000") == before
        shown = json.loads(it.run("pact", "show", "bot", "--profile").stdout)
    kind = shown["types"]["rent"]
    assert kind["mature"] is True
    assert "post_webpage" not in kind["sinks"]
    assert kind["edges"].keys() == {"read_mail > send_money.recipient"}


def test_what_people_approved_three_times_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "rent.yaml"
    file.write_text(PACT.replace("1s", "1m"))
    with system(tmp_path) as it, agent(it) as bot, ThreadPoolExecutor(1) as beside:
        pushed = it.run("pact", "push", str(file), "--agent", "bot")
        assert pushed.returncode == 0, pushed.stderr
        first = beside.submit(run, bot, "usual")
        (asked,) = eventually(lambda: it.get("/api/v1/approvals"), 20, "a payment is asked about")
        assert (asked["tool"], asked["rule"]) == ("send_money", "flow[0]")
        done = it.run("approve", asked["approval_id"], "--for", "10m", "--reason", "the rent")
        assert done.returncode == 0, done.stderr
        assert [first.result(30), run(bot, "usual"), run(bot, "usual")] == ["ok"] * 3

        def approved() -> bool:
            shown = it.run("pact", "show", "bot", "--profile")
            kinds = json.loads(shown.stdout)["types"] if shown.returncode == 0 else {}
            kind = kinds.get("rent", {"approved": {}, "sinks": {}})
            return bool(kind["approved"] == {"send_money": 3} and not kind["sinks"])

        eventually(approved, 40, "three approvals are counted")
