"""A real `up`: another language asks over the Unix socket, hooks run as processes, a person
approves, an operator halts."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system import System, eventually, system

PACT = """
pact: coder
tools:
  Bash:
    kind: irreversible
    allow: '!args.command.contains("rm ")'
    ask: args.command.contains("push")
  Read: {kind: read}
loops: {no_progress: 15}
"""


class House:
    """A running system with the agent `coder`."""

    def __init__(self, running: System) -> None:
        self.running = running
        added = httpx.post(
            f"{running.url}/api/v1/agents", json={"agent": "coder"},
            headers={"authorization": f"Bearer {running.token}"},
        )  # fmt: skip
        self.key = str(added.raise_for_status().json()["key"])
        (running.folder / "coder.yaml").write_text(PACT)
        done = running.run("pact", "push", str(running.folder / "coder.yaml"))
        assert done.returncode == 0, done.stderr
        socket = str(running.data / "gateway" / "gateway.sock")
        self.client = httpx.Client(
            transport=httpx.HTTPTransport(uds=socket), base_url="http://gateway", timeout=20,
            headers={"authorization": f"Bearer {self.key}"},
        )  # fmt: skip

    def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.client.post("/decide", json=body)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def start(self, event: dict[str, Any], *options: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "checkrein", "hook", "claude-code", *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.running.environment | {"CHECKREIN_KEY": self.key},
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps(event))
        process.stdin.close()
        process.stdin = None
        return process

    def hook(self, event: dict[str, Any], *options: str) -> Any:
        """What the hook says, {} when it says nothing."""
        out, err = (process := self.start(event, *options)).communicate(timeout=30)
        assert process.returncode == 0, err
        return json.loads(out) if out else {}

    def recorded(self, run_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.running.json("show", run_id)
        return found


def event(name: str, tool: str = "Bash", command: str = "ls", **more: Any) -> dict[str, Any]:
    return {
        "session_id": "sess-1", "cwd": "/srv", "hook_event_name": name, "tool_name": tool,
        "tool_input": {"command": command}, **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = Path(tmp_path_factory.mktemp("decide"))
    with system(folder) as running:
        found = House(running)
        yield found
        found.client.close()


def test_a_call_is_judged_made_and_recorded(house: House) -> None:
    told = house.ask({"tool": "Read", "arguments": {"path": "/a"}, "run": "curl"})
    assert (told["verdict"], told["pact"]) == ("allow", "coder")
    house.ask({"call_id": told["call_id"], "run": "curl", "phase": "after", "result": "text"})
    refused = house.ask({"tool": "Bash", "arguments": {"command": "rm -r /"}, "run": "curl"})
    assert (refused["verdict"], refused["rule"]) == ("deny", "tools.Bash.allow")

    def types() -> list[str]:
        return [found["type"] for found in house.recorded(told["run_id"])]

    found = eventually(lambda: types() if "scope.decision" in types() else None)
    assert found[0] == "run.start"
    assert {"tool.selected", "tool.invoked", "tool.returned", "passage"} <= set(found)


def test_hooks_of_claude_code(house: House) -> None:
    house.hook({"hook_event_name": "UserPromptSubmit", "session_id": "sess-1", "prompt": "tidy up"})
    denied = house.hook(event("PreToolUse", command="rm -r build", tool_use_id="t1"))
    decision = denied["hookSpecificOutput"]
    assert decision["permissionDecision"] == "deny"
    assert "tools.Bash.allow" in decision["permissionDecisionReason"]
    assert house.hook(event("PreToolUse", tool_use_id="t2")) == {}
    assert house.hook(event("PostToolUse", tool_use_id="t2", tool_response={"stdout": "a"})) == {}
    (line,) = [run for run in house.running.json("ps") if run["goal"] == "tidy up"]
    run_id = line["run_id"]

    waiting = house.start(event("PreToolUse", command="git push", tool_use_id="t3"), "--grant")
    (approval,) = eventually(lambda: house.running.json("approvals"), what="an approval")
    assert (approval["tool"], approval["arguments"]) == ("Bash", {"command": "git push"})
    assert house.running.run("approve", approval["approval_id"]).returncode == 0
    out, _ = waiting.communicate(timeout=30)
    assert json.loads(out)["hookSpecificOutput"]["permissionDecision"] == "allow"

    asked = house.hook(event("PreToolUse", command="git push -f", tool_use_id="t4"), "--ask",
                       "terminal")  # fmt: skip
    assert asked["hookSpecificOutput"]["permissionDecision"] == "ask"

    halted = house.running.json("halt", f"run:{run_id}", "--reason", "enough")
    assert halted["runs"][0]["confirmed"], halted
    stopped = house.hook(event("PreToolUse", command="ls", tool_use_id="t5"))
    assert stopped["continue"] is False
    assert "enough" in stopped["stopReason"]
    returned = [found for found in house.recorded(run_id) if found["type"] == "tool.returned"]
    assert any(found.get("result") == {"stdout": "a"} for found in returned)
