"""A whole Checkrein: an agent with the SDK behind a real gateway is one story in the record."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from checkrein.server.demo.cast import CAST
from checkrein.server.demo.models import ModelServer
from checkrein.server.demo.stranger import introduce
from checkrein.server.demo.troupe import Troupe
from checkrein.world import REAL
from tests.system import System, eventually

AGENT = Path(__file__).with_name("announcing_agent.py")
OF_CALLS = ("model.request", "model.response", "passage")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    running = System(tmp_path_factory.mktemp("one-record"))
    with ModelServer() as models:
        running.environment |= {
            "CHECKREIN_OPENAI_UPSTREAM": f"{models.url}/v1", "OPENAI_API_KEY": "the-real-one",
        }  # fmt: skip
        running.up()
        yield running
        running.down()


@pytest.fixture(scope="module")
def key(system: System) -> str:
    request = urllib.request.Request(
        f"{system.url}/api/v1/agents", b'{"agent": "bot"}',
        {"authorization": f"Bearer {system.token}", "content-type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(json.load(answer)["key"])


@contextmanager
def playing(system: System, key: str, *how: str) -> Iterator[str]:
    """The run of an agent that has made its calls and is still there."""
    program = subprocess.Popen(
        [sys.executable, str(AGENT), key, system.gateway, *how], text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env={**system.environment, "CHECKREIN_TOKEN": key},
    )  # fmt: skip
    assert program.stdout is not None
    assert program.stdin is not None
    try:
        run_id = program.stdout.readline().strip()
        assert run_id, f"the agent made no calls: {system.log()}"
        yield run_id
    finally:
        program.stdin.close()
        program.stdout.close()
        assert program.wait(20) == 0


@pytest.fixture(scope="module")
def played(system: System, key: str) -> Iterator[str]:
    with playing(system, key) as run_id:
        yield run_id


def of_calls(system: System, run_id: str, number: int) -> list[dict[str, Any]]:
    """The events of the run's calls, once there are so many."""

    def found() -> list[dict[str, Any]]:
        events = system.get(f"/api/v1/runs/{run_id}/events")
        calls = [event for event in events if event["type"] in OF_CALLS]
        return calls if len(calls) >= number else []

    return list(eventually(found, what=f"{number} events of calls"))


def test_each_call_is_recorded_once_and_passed_once(system: System, played: str) -> None:
    events = of_calls(system, played, 6)
    by_call: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_call.setdefault(event["call_id"], []).append(event)
    assert [sorted(e["type"] for e in each) for each in by_call.values()] == [
        ["model.request", "model.response", "passage"]
    ] * 2
    passages = [event for event in events if event["type"] == "passage"]
    assert all(each["announced"] and each["upstream"] == "openai" for each in passages)
    assert [each.get("streamed", False) for each in passages] == [False, True]
    assert all("models" in each["guards"] for each in passages)
    assert len({event["recorder"] for event in events}) == 2
    line = system.get(f"/api/v1/runs/{played}")
    assert line["step"] == 2
    assert line["tokens"] == sum(
        event.get("input_tokens", 0) + event.get("output_tokens", 0) for event in events
    )
    assert line["agent"] == "bot"


def test_coverage_counts_it_once_and_show_tells_it_below(system: System, played: str) -> None:
    of_calls(system, played, 6)

    eventually(
        lambda: any(line["models"]["both"] >= 2 for line in system.get("/api/v1/coverage")),
        what="both calls are stored",
    )
    (line,) = system.json("coverage", "--agent", "bot")
    (run,) = [run for run in line["runs"] if run["run_id"] == played]
    assert run["models"] == {"both": 2, "sdk": 0, "gateway": 0, "denied": 0}
    shown = system.run("show", played).stdout
    assert shown.count("gpt-5-mini by openai  to openai") == 2
    assert "seen by the gateway only" not in shown


def test_a_call_made_around_the_sdk_is_noticed(system: System, key: str) -> None:
    with playing(system, key, "around") as run_id:
        events = of_calls(system, run_id, 9)
        (alone,) = [e for e in events if e["type"] == "passage" and not e.get("announced")]
        signals = eventually(
            lambda: [
                event for event in system.get(f"/api/v1/runs/{run_id}/events")
                if event["type"] == "signal" and event["detector"] == "unannounced"
            ],
            seconds=40.0, what="the detector has spoken",
        )  # fmt: skip
    assert [signal["level"] for signal in signals] == ["breach"]
    assert alone["call_id"] in signals[0]["why"]


async def test_a_program_that_knows_nothing_of_us_is_refused_all_the_same(system: System) -> None:
    part = next(part for part in CAST if part.stranger)
    key = await introduce(system.url, system.token, part)
    troupe = Troupe(REAL, system.url, system.token, system.gateway, system.folder)
    said = troupe.start(part, key)
    assert not [name for name in troupe.environment(part, key) if name.startswith("CHECKREIN_")]
    eventually(lambda: troupe.over, what="the program has ended")
    assert "[checkrein]" in said.read_text()
    assert "must never have run" not in said.read_text()
    (run,) = system.get(f"/api/v1/runs?agent={part.agent}")
    events = of_calls(system, run["run_id"], 6)
    assert [event["type"] for event in events] == list(OF_CALLS) * 2
    assert not any(event.get("announced") for event in events)
    decisions = [
        event for event in system.get(f"/api/v1/runs/{run['run_id']}/events")
        if event["type"] == "scope.decision"
    ]  # fmt: skip
    assert [(each["verdict"], each["rule"]) for each in decisions] == [("deny", "tools.pay.allow")]
