"""Frameworks pointed at the gateway by two variables of the environment, and nothing else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkrein.server.demo.models import ModelServer
from tests.system import System

PLAIN = Path(__file__).parent / "plain"
REAL_KEY = "sk-the-real-one-0123456789"
PACT = "pact: plain\njob: add\nowner: test\ntools:\n  add: {kind: read}\n"
FRAMEWORKS = ("langgraph", "openai_agents", "pydantic_ai")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, models: ModelServer) -> Iterator[System]:
    system = System(tmp_path_factory.mktemp("frameworks"))
    system.environment |= {
        "CHECKREIN_OPENAI_UPSTREAM": f"{models.url}/v1",
        "CHECKREIN_ANTHROPIC_UPSTREAM": models.url,
        "OPENAI_API_KEY": REAL_KEY,
        "ANTHROPIC_API_KEY": REAL_KEY,
    }
    system.up()
    yield system
    system.down()


def key_of(system: System, agent: str, tmp_path: Path) -> str:
    key = str(system.json("agent", "add", agent)["key"])
    pact = tmp_path / "pact.yaml"
    pact.write_text(PACT.replace("plain", agent))
    system.run("pact", "push", str(pact), "--stage", "enforce")
    return key


def play(system: System, framework: str, key: str, *scripts: str) -> str:
    """What the program prints. It knows a base URL and a key."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "OPENAI_BASE_URL": f"{system.gateway}/openai/v1",
        "OPENAI_API_KEY": key,
        "ANTHROPIC_BASE_URL": f"{system.gateway}/anthropic",
        "ANTHROPIC_API_KEY": key,
    }
    command = [sys.executable, str(PLAIN / f"with_{framework}.py")]
    done = subprocess.run(
        [*command, *(f"scripted:{script}" for script in scripts)], env=environment, text=True,
        capture_output=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


def recorded(system: System, agent: str) -> list[dict[str, Any]]:
    (run,) = [run for run in system.json("ps", "--all") if run["agent"] == agent]
    events: list[dict[str, Any]] = system.json("show", run["run_id"])
    return events


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_works_as_without_but_for_what_the_pact_forbids(
    system: System, framework: str, tmp_path: Path
) -> None:
    key = key_of(system, framework, tmp_path)
    said = play(system, framework, key, "add", "forbidden")
    assert "ran add" in said
    assert "said it said: 5" in said
    assert "ran forbidden" not in said
    assert "not in the pact" in said
    events = recorded(system, framework)
    types = [event["type"] for event in events]
    assert types.count("model.request") == types.count("model.response") == 3
    (returned,) = [
        e for e in events if e["type"] == "tool.returned" and e.get("status", "ok") == "ok"
    ]
    assert "5" in str(returned["result"])
    decisions = [e for e in events if e["type"] == "scope.decision"]
    assert [(e["verdict"], e["action"]["name"]) for e in decisions] == [("deny", "forbidden")]
    assert REAL_KEY not in str(events)
    assert key not in str(events)
