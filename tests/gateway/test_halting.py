"""Agents as they are started, a gateway as it runs: stopped, held and shut out at the gateway."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from checkrein.server.demo.models import ModelServer
from checkrein.server.demo.replies import Reply, Turn
from tests.system import System, eventually

HERE = Path(__file__).parent
CALLING, WITH_SDK = HERE / "calling_agent.py", HERE / "sdk_agent.py"
SECRET = "sk-the-real-one"


def slow(turn: Turn) -> Reply:
    return Reply(text=" ".join(f"word{n}" for n in range(1_000)), pace_s=0.02)


def quick(turn: Turn) -> Reply:
    return Reply(text="done")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with ModelServer({"slow": slow, "quick": quick}) as models:
        system = System(tmp_path_factory.mktemp("halting"))
        system.environment |= {
            "CHECKREIN_OPENAI_UPSTREAM": f"{models.url}/v1", "OPENAI_API_KEY": SECRET,
        }  # fmt: skip
        system.environment.pop("ANTHROPIC_API_KEY", None)
        system.up()
        eventually(lambda: _serves(system), 30, "the gateway is known")
        yield system
        system.down()


def _serves(system: System) -> bool:
    grant = httpx.post(
        f"{system.url}/api/v1/sessions", json={"kind": "supervisor", "agents": ["look"]},
        headers={"authorization": f"Bearer {system.token}"},
    )  # fmt: skip
    return bool(grant.json().get("gateway_url"))


class Agent:
    """One under `checkrein run`: its environment, and what its calls came to."""

    def __init__(self, system: System, name: str, script: str, *options: str) -> None:
        program = [sys.executable, "-I", str(CALLING), script]
        self.process = system.start(
            "run",
            "--agent",
            name,
            *(options or ["--gateway"]),
            "--",
            *program,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.environment = json.loads(self.process.stdout.readline())
        self.run_id = self.environment["CHECKREIN_RUN_ID"]
        self.came: list[int] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as said:
            for line in said:
                self.came.append(int(line))

    def comes_to(self, status: int) -> None:
        """The next calls, from now on, come to this."""
        before = len(self.came)
        eventually(lambda: self.came[before + 1 :][:1] == [status], 20, f"calls come to {status}")

    def ask(self) -> int:
        """A call with this run's key, from outside."""
        url, key = self.environment["OPENAI_BASE_URL"], self.environment["OPENAI_API_KEY"]
        return _ask(url, key)


def _ask(url: str, key: str) -> int:
    body = {"model": "scripted:quick", "messages": [{"role": "user", "content": "go"}]}
    answer = httpx.post(
        f"{url}/chat/completions", json=body, headers={"authorization": f"Bearer {key}"},
        timeout=30,
    )  # fmt: skip
    return answer.status_code


@contextmanager
def running(system: System, *arguments: str) -> Iterator[Agent]:
    agent = Agent(system, *arguments)
    try:
        yield agent
    finally:
        if agent.process.poll() is None:
            agent.process.send_signal(signal.SIGTERM)
        agent.process.wait(20)
        agent.reader.join(20)


@contextmanager
def started(program: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        program, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def live(system: System, run_id: str) -> dict[str, Any]:
    return next(run for run in system.json("ps", "--all") if run["run_id"] == run_id)


def in_flight(system: System) -> int:
    return int(httpx.get(f"{system.gateway}/healthz").json()["in_flight"])


def rungs(line: dict[str, Any]) -> list[str]:
    return [rung["rung"] for rung in line["how"]]


def test_a_halt_shuts_the_gateway_first_and_is_proved_by_the_supervisor(system: System) -> None:
    with running(system, "streams", "slow") as agent:
        eventually(lambda: in_flight(system), 20, "a stream flows")
        assert live(system, agent.run_id)["level"] == "L1"
        state = system.json("halt", agent.run_id, "--reason", "enough")
        (line,) = state["runs"]
        assert line["confirmed"] == "supervisor"
        assert agent.process.wait(20) == 137
        assert agent.ask() in (401, 403)
    assert in_flight(system) == 0

    def told() -> Any:
        (line,) = system.get(f"/api/v1/commands/{state['command_id']}")["runs"]
        return {"fence", "freeze", "kill", "revoke"} <= set(rungs(line))

    eventually(told, 20, "every rung is in the receipt")

    def recorded() -> list[Any]:
        events = system.json("show", agent.run_id)
        return [event for event in events if event["type"] == "passage"]

    (passage, *_) = eventually(recorded, 20, "the call that was cut is on record")
    assert passage["status"] == "cut"
    assert "enough" in passage["reason"]


def test_a_program_has_its_runs_key_and_not_the_providers(system: System) -> None:
    with running(system, "keys", "quick") as agent:
        given = agent.environment
        assert given["OPENAI_API_KEY"].startswith("crr_")
        assert given["OPENAI_BASE_URL"] == f"{system.gateway}/openai/v1"
        assert given["CHECKREIN_GATEWAY"] == system.gateway
        assert SECRET not in json.dumps(given)
        agent.comes_to(200)
    with running(system, "as-it-was", "quick", "--no-gateway") as agent:
        assert "CHECKREIN_KEY" not in agent.environment
        assert agent.environment["OPENAI_API_KEY"] == SECRET


def test_a_contained_agent_is_let_in_nowhere_until_it_is_released(system: System) -> None:
    with running(system, "shut", "quick") as agent:
        agent.comes_to(200)
        state = system.json("contain", "agent:shut", "--reason", "it was hijacked")
        (line,) = state["runs"]
        assert (line["run_id"], line["agent"], line["confirmed"]) == ("", "shut", "gateway")
        assert rungs(line) == ["fence"]
        assert agent.ask() == 403
        agent.comes_to(403)
        with running(system, "shut", "quick") as another:
            another.comes_to(403)
        assert system.run("release", "agent:shut", "--reason", "it was not").returncode == 0
        agent.comes_to(200)


def test_a_pause_holds_the_next_call_at_the_gateway(system: System) -> None:
    key = system.json("agent", "add", "held")["key"]
    url = f"{system.gateway}/openai/v1"
    assert _ask(url, key) == 200
    (run,) = eventually(
        lambda: [run for run in system.json("ps") if run["agent"] == "held"], 20, "it is listed"
    )
    assert run["level"] == "L1" or not run["can_halt"]
    state = system.json("pause", run["run_id"], "--reason", "wait")
    assert state["runs"][0]["confirmed"] == "gateway"
    came: list[int] = []
    asking = threading.Thread(target=lambda: came.append(_ask(url, key)))
    asking.start()
    eventually(lambda: in_flight(system) == 1, 20, "the call waits")
    assert not came
    assert system.run("resume", run["run_id"], "--reason", "go on").returncode == 0
    asking.join(20)
    assert came == [200]


def test_a_run_that_only_its_sdk_holds_is_halted_by_the_fence(system: System) -> None:
    key = system.json("agent", "add", "unheld")["key"]
    more = {"OPENAI_BASE_URL": f"{system.gateway}/openai/v1", "OPENAI_API_KEY": key}
    with started([sys.executable, str(WITH_SDK)], {**system.environment, **more}) as agent:
        assert agent.stdout is not None
        run_id = agent.stdout.readline().strip()
        eventually(lambda: live(system, run_id)["can_halt"], 20, "a gateway knows it")
        assert live(system, run_id)["level"] == "L1"
        state = system.json("halt", run_id, "--reason", "enough")
        (line,) = state["runs"]
        assert (line["confirmed"], line["outcome"]) == ("gateway", "obeyed")
        assert "fence" in rungs(line)
        assert "nobody holds its process" in line["note"]
        assert agent.wait(20) != 0


def test_where_only_the_gateway_will_do_nothing_starts_without_it(system: System) -> None:
    nowhere = "http://127.0.0.1:1"
    done = system.run("run", "--gateway", "--url", nowhere, "--", "true")
    assert done.returncode == 125
    assert "not started" in done.stderr
