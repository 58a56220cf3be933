"""A thousand secrets and personal things through every path, and then looked for everywhere."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.canaries import PERSONAL, SECRETS, canaries
from tests.system import System, system

from checkrein.server.demo.models import ModelServer
from checkrein.server.demo.replies import Reply, Turn

COUNT, BATCH = 1_000, 50
AGENT = Path(__file__).with_name("leaking_agent.py")
PACT = """
pact: leaky
job: echo
owner: test
redact: [secrets, pii]
tools: {echo: {kind: read}, fail: {kind: read}, structured: {kind: read}}
loops: {same_call: 15, similar_call: 15 in 1s, no_progress: 15}
"""
MADE = list(canaries(7, COUNT, SECRETS | PERSONAL))
BATCHES = [
    "\n".join(f"- {secret}" for _, secret, _ in MADE[at : at + BATCH])
    for at in range(0, COUNT, BATCH)
]


def leak(batch: str) -> Any:
    return lambda turn: Reply(text=batch)


def fail(turn: Turn) -> Reply:
    return Reply(status=400, error=turn.prompt)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    scripts: dict[str, Any] = {f"leak{n}": leak(batch) for n, batch in enumerate(BATCHES)}
    scripts |= {"echo": lambda turn: Reply(text=turn.prompt), "fail": fail}
    folder = tmp_path_factory.mktemp("canaries")
    command = json.dumps([sys.executable, "-m", "tests.gateway.mcp.server"])
    (folder / "checkrein.toml").write_text(f"[gateway.mcp.tools]\ncommand = {command}\n")
    with ModelServer(scripts) as models, system(
        folder, CHECKREIN_OPENAI_UPSTREAM=f"{models.url}/v1",
        CHECKREIN_ANTHROPIC_UPSTREAM=models.url, OPENAI_API_KEY="sk-real-key-of-this-test-0001",
        ANTHROPIC_API_KEY="sk-ant-real-key-of-this-test-0002",
    ) as started:  # fmt: skip
        yield started


def cores(secret: str) -> list[str]:
    """Parts of a secret that nothing else would hold: what is looked for."""
    parts = re.split(r"\s+", secret) if "PRIVATE KEY" in secret else [secret]
    return [part for part in parts if len(part) >= 12 or part == secret]


LOOKED_FOR = sorted({core for _, secret, _ in MADE for core in cores(secret) if core.isascii()})


def found_in(text: str) -> list[str]:
    return [core for core in LOOKED_FOR if core in text]


def send(running: System, key: str) -> list[str]:
    """All batches over every path of the gateway; what refusals and errors said."""
    said: list[str] = []
    head = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=running.gateway, headers=head, timeout=60) as client:
        for number, batch in enumerate(BATCHES):
            message = [{"role": "user", "content": batch}]
            for script in ("echo", "fail", f"leak{number}"):
                for stream in (False, True):
                    body = {"model": f"scripted:{script}", "messages": message, "stream": stream}
                    client.post("/openai/v1/chat/completions", json=body)
                    client.post("/anthropic/v1/messages", json=body | {"max_tokens": 9_000})
            call = {"tool": "echo", "arguments": {"text": batch}, "call_id": f"c{number}"}
            assert client.post("/decide", json=call).json()["verdict"] == "allow"
            client.post("/decide", json=call | {"phase": "after", "result": batch})
            refused = client.post("/decide", json=call | {"tool": "forbidden", "call_id": ""})
            assert refused.json()["verdict"] == "deny"
            said.append(refused.text)
        call_tools(client)
    return said


def call_tools(client: httpx.Client) -> None:
    """Every batch through a tool of an MCP server, one that echoes it and one that is refused."""
    head = {"accept": "application/json, text/event-stream"}

    def post(method: str, params: Any, number: int | None = None) -> httpx.Response:
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        return client.post(
            "/mcp/tools", json=message if number is None else message | {"id": number}, headers=head
        )

    client_info = {"name": "canaries", "version": "1"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client_info}
    begun = post("initialize", hello, 0)
    assert begun.status_code == 200, begun.text
    head["mcp-session-id"] = begun.headers["mcp-session-id"]
    post("notifications/initialized", {})
    post("tools/list", {}, 1)
    for number, batch in enumerate(BATCHES):
        for tool in ("echo", "refund"):
            arguments = {"text": batch, "currency": batch, "cents": 1}
            answer = post("tools/call", {"name": tool, "arguments": arguments}, number + 2)
            assert answer.status_code == 200, answer.text


@pytest.mark.timeout(240)
def test_none_is_found_anywhere(running: System, tmp_path: Path) -> None:
    pact = tmp_path / "leaky.yaml"
    pact.write_text(PACT)
    running.run("pact", "push", str(pact))
    key = running.json("agent", "add", "leaky")["key"]
    said = send(running, key)
    batches = tmp_path / "batches.json"
    batches.write_text(json.dumps(BATCHES))
    running.run("run", "--agent", "leaky", "--", sys.executable, str(AGENT), str(batches))
    batches.unlink()
    assert found_in("\n".join(said)) == []
    shown = ""
    for run in running.json("ps", "--all"):
        shown += running.run("show", run["run_id"], "--json").stdout
    shown += running.run("incidents", "--json").stdout
    assert shown.count('"passage"') >= 6 * len(BATCHES)
    assert "[redacted" in shown
    assert found_in(shown.replace("\\n", "\n")) == []
    running.down()
    assert in_files(running.folder) == {}


def in_files(folder: Path) -> dict[str, list[str]]:
    """Bus, logs, recorders, keys: whatever lies on disk, the store's compressed parts as well."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            held = found_in(path.read_bytes().decode("latin-1").replace("\\n", "\n"))
            if held:
                found[str(path.relative_to(folder))] = held[:3]
    return found
