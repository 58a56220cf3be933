"""Agents with the real SDK in them, over the real socket: the boundary and the ladder together."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tests.conftest import within
from tests.supervise.control import Bench, linked
from tests.supervise.held import python

from checkrein.bus.messages import RunRecord
from checkrein.events.types import RunEnd
from checkrein.supervise import proc
from checkrein.supervise.holding import Limits
from checkrein.supervise.household import Household
from checkrein.supervise.local import LocalServer
from checkrein.supervise.unit import Unit
from checkrein.world import REAL

HEAD = """
import os, sys, time, checkrein
checkrein.init()
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def say(*words): os.write(log, (" ".join(map(str, words)) + "\\n").encode())

@checkrein.tool(kind="irreversible")
def act(number):
    say("act", number, time.monotonic_ns())
    return f"done {number}"
"""
LOOP = (
    HEAD
    + """
with checkrein.run(goal="act") as run:
    say("run", run.run_id)
    try:
        number = 0
        while True:
            number += 1
            act(number)
            time.sleep(0.002)
    finally:
        say("finally")
"""
)
STUBBORN = (
    HEAD
    + """
with checkrein.run(goal="act") as run:
    say("run", run.run_id)
    number = 0
    while True:
        number += 1
        try:
            act(number)
        except BaseException:
            say("swallowed")
            time.sleep(0.01)
"""
)
GOES_ON = (
    HEAD
    + """
with checkrein.run(goal="act") as run:
    act(1)
while True:
    say("raw", time.monotonic_ns())
    time.sleep(0.002)
"""
)
LONG_CALL = (
    HEAD
    + """
@checkrein.tool(kind="irreversible")
def slow():
    say("begun")
    time.sleep(0.3)
    say("act late", time.monotonic_ns())

with checkrein.run(goal="act") as run:
    say("run", run.run_id)
    while True:
        slow()
"""
)
TWO = (
    HEAD
    + """
import threading
def work(name, stubborn):
    with checkrein.run(goal=name, agent=name) as run:
        say("run", name, run.run_id)
        number = 0
        while True:
            number += 1
            try:
                act(number)
            except BaseException:
                if not stubborn: raise
            time.sleep(0.005)
def quietly(*args):
    try: work(*args)
    except BaseException: say("over", args[0])
threads = [
    threading.Thread(target=quietly, args=(name, name == sys.argv[2])) for name in ("one", "two")
]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Agent:
    def __init__(self, unit: Unit, log: Path) -> None:
        self.unit = unit
        self.log = log

    def lines(self, word: str) -> list[list[str]]:
        if not self.log.exists():
            return []
        return [line.split() for line in self.log.read_text().splitlines() if line.startswith(word)]


@asynccontextmanager
async def household(tmp_path: Path, **more: object) -> AsyncIterator[Bench]:
    async with linked(**more) as bench:
        server = LocalServer(tmp_path / "s" / "agent.sock", Household(bench.supervisor))
        await server.open()
        try:
            yield bench
        finally:
            await server.close()


async def start(bench: Bench, stack: ExitStack, tmp_path: Path, code: str, *args: str) -> Agent:
    log = tmp_path / "log"
    run_id = REAL.uuid7()
    environment = {
        "CHECKREIN_SUPERVISOR": str(tmp_path / "s" / "agent.sock"),
        "CHECKREIN_RECORDERS": str(tmp_path / "recorders"),
        "CHECKREIN_RUN_ID": run_id,
        "CHECKREIN_TASK_ID": REAL.trace_id(),
        "CHECKREIN_AGENT": "bot",
    }
    tree = stack.enter_context(python(code, str(log), *args, environment=environment))
    record = RunRecord(
        run_id=run_id, task_id=environment["CHECKREIN_TASK_ID"], agent="bot", room="lab",
        environment="development", session="", holder="supervisor", started_at=REAL.now_ns(),
    )  # fmt: skip
    unit = bench.supervisor.take(tree, record, ["python"])
    await bench.control.wait(lambda: run_id in bench.control.runs)
    return Agent(unit, log)


async def test_a_halt_unwinds_behind_the_boundary_and_nothing_acts_after_it_was_confirmed(
    stack: ExitStack, tmp_path: Path
) -> None:
    async with household(tmp_path) as bench:
        agent = await start(bench, stack, tmp_path, LOOP)
        run = agent.unit.main_run
        await within(15, lambda: len(agent.lines("act")) > 5)
        command = await bench.control.send("halt", run)
        await bench.control.reached(command, run, "freeze")
        confirmed_ns = time.monotonic_ns()
        await bench.control.reached(command, run, "obeyed")
        assert max(int(words[2]) for words in agent.lines("act")) < confirmed_ns
        stages = bench.control.stages(command, run)
        assert "fence" in stages
        assert stages[-1] == "obeyed!"
        await bench.supervisor.finished(agent.unit)
        assert agent.unit.runs[run].status == "halted"


async def test_an_agent_that_swallows_everything_is_killed_and_does_nothing_more(
    stack: ExitStack, tmp_path: Path
) -> None:
    async with household(tmp_path, limits=Limits(unwind_ms=300)) as bench:
        agent = await start(bench, stack, tmp_path, STUBBORN)
        run = agent.unit.main_run
        await within(15, lambda: len(agent.lines("act")) > 5)
        command = await bench.control.send("halt", run)
        await bench.control.reached(command, run, "freeze")
        confirmed_ns = time.monotonic_ns()
        await bench.control.reached(command, run, "kill")
        assert max(int(words[2]) for words in agent.lines("act")) < confirmed_ns
        assert not proc.alive(proc.look(agent.unit.tree.main))


async def test_a_call_in_flight_has_no_effect_after_the_halt_was_confirmed(
    stack: ExitStack, tmp_path: Path
) -> None:
    async with household(tmp_path) as bench:
        agent = await start(bench, stack, tmp_path, LONG_CALL)
        run = agent.unit.main_run
        await within(15, lambda: len(agent.lines("begun")) > len(agent.lines("act late")) > 0)
        command = await bench.control.send("halt", run)
        await bench.control.reached(command, run, "freeze")
        before = len(agent.lines("act late"))
        await bench.control.reached(command, run, "obeyed")
        assert len(agent.lines("act late")) == before


async def test_a_paused_agent_holds_at_its_boundary_and_goes_on_where_it_was(
    stack: ExitStack, tmp_path: Path
) -> None:
    async with household(tmp_path) as bench:
        agent = await start(bench, stack, tmp_path, LOOP)
        run = agent.unit.main_run
        await within(15, lambda: len(agent.lines("act")) > 5)
        paused = await bench.control.send("pause", run)
        held = await bench.control.reached(paused, run, "held")
        assert held.by == "sdk"
        count = len(agent.lines("act"))
        assert agent.unit.freezes == 0
        resumed = await bench.control.send("resume", run)
        await bench.control.reached(resumed, run, "obeyed")
        await within(10, lambda: len(agent.lines("act")) > count)


async def test_one_of_two_runs_in_a_process_stops_alone(stack: ExitStack, tmp_path: Path) -> None:
    async with household(tmp_path) as bench:
        agent = await start(bench, stack, tmp_path, TWO, "nobody")
        await within(15, lambda: len(agent.lines("run")) == 2)
        runs = {words[1]: words[2] for words in agent.lines("run")}
        await bench.control.wait(lambda: set(runs.values()) <= set(bench.control.runs))
        other = next(name for name, run in runs.items() if run != agent.unit.main_run)
        command = await bench.control.send("halt", runs[other])
        done = await bench.control.reached(command, runs[other], "obeyed")
        assert "1 other run(s)" in done.detail
        assert agent.unit.exit is None
        count = len(agent.lines("act"))
        await within(10, lambda: len(agent.lines("act")) > count)


async def test_a_process_that_goes_on_after_its_run_is_still_held_and_halted(
    stack: ExitStack, tmp_path: Path
) -> None:
    async with household(tmp_path) as bench:
        agent = await start(bench, stack, tmp_path, GOES_ON)
        run = agent.unit.main_run
        await within(15, lambda: len(agent.lines("raw")) > 5)
        await within(15, lambda: agent.unit.runs[run].ended_by_code)
        assert [beat.run_id for beat in agent.unit.beats(0, {})[0]] == [run]
        command = await bench.control.send("halt", run)
        await bench.control.reached(command, run, "obeyed")
        assert not proc.alive(proc.look(agent.unit.tree.main))
        assert "freeze!" in bench.control.stages(command, run)
        await bench.supervisor.finished(agent.unit)
        assert agent.unit.runs[run].status == "halted"


async def test_a_run_that_ended_in_its_code_keeps_the_end_it_was_given(
    stack: ExitStack, tmp_path: Path
) -> None:
    async with household(tmp_path) as bench:
        agent = await start(bench, stack, tmp_path, HEAD + "with checkrein.run(goal='g'): act(1)")
        await bench.supervisor.finished(agent.unit)
        run = agent.unit.runs[agent.unit.main_run]
        assert (run.status, run.over) == ("completed", True)
        assert [e for e in bench.recording.events if isinstance(e, RunEnd)] == []


async def test_a_run_that_will_not_stop_takes_its_process_with_it(
    stack: ExitStack, tmp_path: Path
) -> None:
    async with household(tmp_path, limits=Limits(unwind_ms=300)) as bench:
        agent = await start(bench, stack, tmp_path, TWO, "two")
        await within(15, lambda: len(agent.lines("run")) == 2)
        runs = {words[1]: words[2] for words in agent.lines("run")}
        await bench.control.wait(lambda: set(runs.values()) <= set(bench.control.runs))
        command = await bench.control.send("halt", runs["two"])
        await bench.control.reached(command, runs["two"], "kill")
        await bench.supervisor.finished(agent.unit)
        fallen = agent.unit.runs[runs["one"]]
        assert fallen.status == "halted"
        assert "shares its process" in fallen.reason
        by_us = {e.run_id: e for e in bench.recording.events if isinstance(e, RunEnd)}
        assert by_us[runs["two"]].status == "halted"


async def test_a_stranger_on_the_socket_is_hung_up_on(stack: ExitStack, tmp_path: Path) -> None:
    async with linked() as bench:
        server = LocalServer(tmp_path / "s" / "agent.sock", Household(bench.supervisor))
        await server.open()
        try:
            reader, writer = await asyncio.open_unix_connection(str(server.path))
            assert await reader.read() == b""
            writer.close()
            assert server.refused == 1
            assert os.stat(server.path.parent).st_mode & 0o777 == 0o700
        finally:
            await server.close()
