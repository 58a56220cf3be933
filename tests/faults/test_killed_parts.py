"""kill -9 of every part while agents work: nothing acknowledged is lost, nothing is counted twice,
and the system heals by itself."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system import System, eventually, system

AGENT = Path(__file__).with_name("counting_agent.py")
CALLS = 150


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with system(tmp_path_factory.mktemp("system")) as started:
        yield started


def start_agent(running: System, calls: int = CALLS, pace_s: float = 0.02) -> Any:
    command = ["run", "--agent", "counter", "--", sys.executable, str(AGENT)]
    return running.start(*command, str(calls), str(pace_s), stdout=subprocess.PIPE)


def run_id_of(agent: Any) -> str:
    line = agent.stdout.readline().strip()
    assert line, "the agent said nothing"
    return str(line)


def returned_numbers(running: System, run_id: str) -> Counter[str]:
    events = running.json("show", run_id)
    return Counter(e["result"] for e in events if e["type"] == "tool.returned")


def assert_complete(running: System, run_id: str, calls: int = CALLS) -> None:
    def complete() -> bool:
        done = running.run("show", run_id, "--json")
        return done.returncode == 0 and '"run.end"' in done.stdout

    eventually(complete, 40, "the run's end is visible")
    counted = returned_numbers(running, run_id)
    assert len(counted) == calls
    assert set(counted.values()) == {1}


@pytest.mark.parametrize(
    "victim", ["control", "archive", "watch", "api", "nats-events", "nats-control"]
)
@pytest.mark.timeout(120)
def test_a_killed_part_costs_nothing(running: System, victim: str) -> None:
    agent = start_agent(running)
    run_id = run_id_of(agent)
    pid = running.children()[victim]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: running.children().get(victim, pid) != pid, 20, f"{victim} is back")
    assert agent.wait(60) == 0
    agent.stdout.close()
    running.wait_healthy()
    assert_complete(running, run_id)


@pytest.mark.timeout(120)
def test_a_killed_up_starts_again_with_everything(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        agent = start_agent(running, calls=100, pace_s=0.03)
        run_id = run_id_of(agent)
        running.kill()
        running.up()
        assert agent.wait(60) == 0
        agent.stdout.close()
        assert_complete(running, run_id, 100)


@pytest.mark.timeout(120)
def test_an_agent_killed_after_its_last_event_loses_none(running: System) -> None:
    agent = start_agent(running, calls=10_000, pace_s=0.01)
    run_id = run_id_of(agent)

    def several() -> bool:
        done = running.run("show", run_id, "--json")
        return done.returncode == 0 and len(json.loads(done.stdout)) > 100

    eventually(several, 30)
    pids = [e["pid"] for e in running.json("show", run_id) if e["type"] == "run.start"]
    assert pids
    os.kill(pids[0], signal.SIGKILL)
    assert agent.wait(30) == 128 + signal.SIGKILL
    agent.stdout.close()

    def end() -> Any:
        return [e for e in running.json("show", run_id) if e["type"] == "run.end"]

    ended = eventually(end, 20, "the supervisor reports the death")
    assert ended[0]["signal"] == "SIGKILL"
    events = running.json("show", run_id)
    returned = [e["call_id"] for e in events if e["type"] == "tool.returned"]
    selected = [e["call_id"] for e in events if e["type"] == "tool.selected"]
    assert returned == selected[: len(returned)]
    assert len(selected) - len(returned) <= 1
    numbers = [e["seq"] for e in events if e["recorder"] == events[-2]["recorder"]]
    assert numbers == sorted(set(numbers))


def test_a_second_up_on_the_same_folder_is_refused(running: System) -> None:
    second = running.run("up", "--data", str(running.data), "--http", "127.0.0.1:0")
    assert second.returncode == 2
    assert "another `checkrein up`" in second.stderr
