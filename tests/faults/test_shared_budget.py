"""One hour's budget, five processes, two of them supervised; one is killed, and so is control."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.system import System, eventually

AGENT = Path(__file__).parent / "spending_agent.py"
CALLS = 600
PACT = f"pact: spender\nbudgets: {{hour: {{tool_calls: {CALLS}}}}}\n"


def ready(path: Path) -> bool:
    return path.exists() and path.read_text().startswith("ready\n")


def made(path: Path) -> int:
    return path.read_text().count("call\n") if path.exists() else 0


@pytest.mark.timeout(180)
def test_what_many_share_is_spent_once_whoever_dies(tmp_path: Path) -> None:
    pact = tmp_path / "spender.yaml"
    pact.write_text(PACT)
    system = System(tmp_path)
    system.environment |= {"CHECKREIN_PACT": str(pact)}
    system.up()
    outs, gate = [tmp_path / f"out-{number}" for number in range(5)], tmp_path / "all-may-spend"
    running: list[subprocess.Popen[str]] = []
    try:
        for number, out in enumerate(outs):
            program = [sys.executable, str(AGENT), str(out), str(gate)]
            if number < 2:
                running.append(system.start("run", "--agent", "spender", "--", *program))
            else:
                running.append(subprocess.Popen(program, env=system.environment, text=True))
        eventually(lambda: all(map(ready, outs)), 60, "all have begun")
        gate.touch()
        eventually(lambda: all(made(out) > 5 for out in outs), 60, "all spend")
        killed = running[-1]
        killed.kill()
        killed.wait()
        os.kill(system.children()["control"], signal.SIGKILL)
        for process in running[:-1]:
            assert process.wait(90) == 0
        spent = [made(out) for out in outs]
        assert sum(spent) <= CALLS, spent
        assert sum(spent) >= CALLS - 80, f"more than the dead one may have had is missing: {spent}"
        ends = [out.read_text().splitlines()[-1] for out in outs[:-1]]
        assert set(ends) <= {"end budgets.hour.tool_calls", "end waiting"}, ends
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
        system.down()


@pytest.mark.timeout(120)
def test_somebody_raises_what_is_spent_and_the_agent_goes_on(tmp_path: Path) -> None:
    pact, out = tmp_path / "spender.yaml", tmp_path / "out"
    pact.write_text("pact: spender\nbudgets: {hour: {tool_calls: 5}}\n")
    system = System(tmp_path)
    system.environment |= {"CHECKREIN_PACT": str(pact)}
    system.up()
    program = [sys.executable, str(AGENT), str(out)]
    process = subprocess.Popen(program, env=system.environment, text=True)
    try:
        (asked,) = eventually(lambda: system.json("approvals"), 30, "it asks")
        assert asked["rule"] == "budgets.hour.tool_calls"
        assert made(out) == 5
        raised = ("--raise", "tool_calls=3", "--reason", "a busy day")
        system.run("approve", asked["approval_id"], *raised)
        eventually(lambda: made(out) == 8, 30, "it goes on")
        (again,) = eventually(lambda: system.json("approvals"), 30, "it asks again")
        system.run("deny", again["approval_id"], "--reason", "enough")
        assert process.wait(30) == 0
        assert out.read_text().splitlines()[-1] == "end budgets.hour.tool_calls"
        assert made(out) == 8
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        system.down()
