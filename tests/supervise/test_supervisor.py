"""Orders come in, process trees stop, receipts go out: with real processes."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import within
from tests.supervise.control import Bench, linked
from tests.supervise.held import python
from tests.supervise.programs import CHILDREN

from checkrein.bus.messages import RunRecord
from checkrein.events.types import RunEnd, RunStart, Status
from checkrein.supervise import proc
from checkrein.supervise.holding import Limits
from checkrein.supervise.unit import Unit
from checkrein.world import REAL

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(bench: Bench, stack: ExitStack, code: str = SLEEP, *args: str, **more: Any) -> Unit:
    tree = stack.enter_context(python(code, *args, **more))
    record = RunRecord(
        run_id=REAL.uuid7(), task_id=REAL.trace_id(), agent="bot", room="lab",
        environment="development", session="", holder="supervisor", started_at=REAL.now_ns(),
    )  # fmt: skip
    return bench.supervisor.take(tree, record, ["python", "-c", code])


def types(bench: Bench) -> list[str]:
    return [str(event.__struct_config__.tag) for event in bench.recording.events]


async def test_a_halt_is_confirmed_frozen_then_killed_and_the_run_ends_halted(
    stack: ExitStack,
) -> None:
    async with linked() as bench:
        unit = start(bench, stack)
        run = unit.main_run
        await bench.control.wait(lambda: run in bench.control.runs)
        command = await bench.control.send("halt", run)
        frozen = await bench.control.reached(command, run, "freeze")
        assert frozen.confirmed
        assert frozen.by == "supervisor"
        await bench.control.reached(command, run, "obeyed")
        stages = bench.control.stages(command, run)
        assert stages == ["delivered", "freeze!", "capture", "kill!", "revoke", "obeyed!"]
        exited = await bench.supervisor.finished(unit)
        assert exited.signal == signal.SIGKILL
        start_event, *_, end = bench.recording.events
        assert isinstance(start_event, RunStart)
        assert isinstance(end, RunEnd)
        assert (end.status, end.reason, end.signal) == ("halted", "drill", "SIGKILL")
        captured = [e for e in bench.recording.events if isinstance(e, Status) and e.detail]
        assert captured[0].detail["capture"]["processes"] == 1


async def test_children_of_a_halted_run_die_too(stack: ExitStack, tmp_path: Path) -> None:
    async with linked() as bench:
        for kind, method in (("double fork", "strongest"), ("setsid", "subreaper")):
            ready = tmp_path / f"{method}-{kind}"
            code = CHILDREN[kind].format(ready=f"open({str(ready)!r}, 'w').close()")
            unit = start(bench, stack, code, method=method)
            await within(10, ready.exists)
            pids = [process.pid for process in unit.tree.members()]
            assert len(pids) == 2
            await bench.control.wait(lambda unit=unit: unit.main_run in bench.control.runs)  # type: ignore[misc] # bound at once
            command = await bench.control.send("halt", unit.main_run)
            await bench.control.reached(command, unit.main_run, "kill")
            assert [pid for pid in pids if proc.alive(proc.look(pid))] == []


async def test_a_paused_program_stands_still_and_goes_on(stack: ExitStack) -> None:
    async with linked() as bench:
        unit = start(bench, stack)
        run = unit.main_run
        await bench.control.wait(lambda: run in bench.control.runs)
        paused = await bench.control.send("pause", run)
        await bench.control.reached(paused, run, "obeyed")
        assert unit.tree.frozen()
        assert unit.runs[run].status == "paused"
        resumed = await bench.control.send("resume", run)
        await bench.control.reached(resumed, run, "obeyed")
        assert not unit.tree.frozen()
        assert unit.runs[run].status == "running"
        assert unit.exit is None


async def test_a_pause_that_outlives_its_lease_is_parked(stack: ExitStack) -> None:
    async with linked(limits=Limits(lease_ms=200)) as bench:
        unit = start(bench, stack)
        run = unit.main_run
        await bench.control.wait(lambda: run in bench.control.runs)
        await bench.control.send("pause", run)
        await bench.supervisor.finished(unit)
        end = bench.recording.events[-1]
        assert isinstance(end, RunEnd)
        assert end.status == "halted"
        assert end.reason.startswith("parked")


async def test_an_order_missed_while_cut_off_is_read_from_the_level(stack: ExitStack) -> None:
    async with linked() as bench:
        unit = start(bench, stack)
        run = unit.main_run
        await bench.control.wait(lambda: run in bench.control.runs)
        command = await bench.control.send("halt", run, edge=False)
        assert bench.control.stages(command, run) == []
        bench.link.turned(False)
        bench.link.turned(True)  # the connection is back
        await bench.control.reached(command, run, "kill")
        await bench.supervisor.finished(unit)


async def test_a_forged_or_foreign_order_does_nothing(stack: ExitStack) -> None:
    async with linked() as bench:
        unit = start(bench, stack)
        other = type(bench.control)()
        _, forged = other.order("halt", unit.main_run)
        bench.supervisor.deliver(forged)
        bench.supervisor.deliver(b"garbage")
        assert bench.supervisor.orders_refused == 2
        assert unit.exit is None
        assert not unit.ladder.halting


async def test_the_same_order_again_only_repeats_its_receipts(stack: ExitStack) -> None:
    async with linked() as bench:
        unit = start(bench, stack)
        run = unit.main_run
        command, signed = bench.control.order("pause", run)
        bench.supervisor.deliver(signed)
        await bench.control.reached(command, run, "obeyed")
        freezes = unit.freezes
        before = len(bench.control.receipts)
        bench.supervisor.deliver(signed)
        await bench.control.wait(lambda: len(bench.control.receipts) >= before + 3)
        assert unit.freezes == freezes == 1
        late = bench.control.stages(command, run)[before:]
        assert late == ["delivered", "freeze!", "obeyed!"]


async def test_a_probe_is_answered_with_its_nonce_and_the_truth(stack: ExitStack) -> None:
    async with linked() as bench:
        unit = start(bench, stack)
        command, signed = bench.control.order("probe", unit.main_run, "no-such-run")
        bench.supervisor.deliver(signed)
        mine = await bench.control.reached(command, unit.main_run, "probe")
        other = await bench.control.reached(command, "no-such-run", "probe")
        assert mine.confirmed
        assert mine.nonce
        assert mine.detail == f"L0 {unit.tree.method}"
        assert not other.confirmed


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("raise SystemExit(3)", "failed", "the process exited with 3"),
        ("pass", "completed", ""),
        ("import os; os.kill(os.getpid(), 6)", "failed", "the process was ended by SIGABRT"),
    ],
)
async def test_how_a_process_ended_is_told_in_words(
    stack: ExitStack, code: str, status: str, reason: str
) -> None:
    async with linked() as bench:
        unit = start(bench, stack, code)
        await bench.supervisor.finished(unit)
        end = bench.recording.events[-1]
        assert isinstance(end, RunEnd)
        assert end.status == status
        assert end.reason.startswith(reason)
        run = unit.main_run
        await bench.control.wait(
            lambda: any(b.ended and b.ended[0].run_id == run for b in bench.control.beats)
        )


async def test_who_outlives_the_program_is_stopped(stack: ExitStack, tmp_path: Path) -> None:
    code = (
        "import os, time\n"
        f"if os.fork() == 0:\n    os.setsid()\n    open({str(tmp_path / 'pid')!r}, 'w')"
        ".write(str(os.getpid()))\n    time.sleep(600)\n"
        f"while not os.path.exists({str(tmp_path / 'pid')!r}): time.sleep(0.01)\n"
    )
    async with linked() as bench:
        unit = start(bench, stack, code)
        exited = await bench.supervisor.finished(unit)
        assert exited.code == 0
        text = (tmp_path / "pid").read_text()
        assert not text or not proc.alive(proc.look(int(text)))


async def test_a_halt_of_what_outlived_its_program_is_confirmed_when_that_is_gone(
    stack: ExitStack, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    code = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    canary = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)\n"
        "    while True: os.write(canary, b'x')\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
    )
    async with linked() as bench:
        unit = start(bench, stack, code, str(canary))
        run = unit.main_run
        await bench.control.wait(lambda: run in bench.control.runs)
        await within(10, lambda: unit.exit is not None)
        command = await bench.control.send("halt", run)
        done = await bench.control.reached(command, run, "obeyed")
        size = canary.stat().st_size
        assert done.confirmed
        assert unit.tree.survivors() == []
        await bench.supervisor.finished(unit)
        assert canary.stat().st_size == size
        assert unit.runs[run].status == "halted"


async def test_many_units_stop_at_one_order(stack: ExitStack) -> None:
    async with linked() as bench:
        units = [start(bench, stack, "while True: pass") for _ in range(8)]
        runs = [unit.main_run for unit in units]
        await bench.control.wait(lambda: set(runs) <= set(bench.control.runs))
        command = await bench.control.send("halt", *runs)
        for run in runs:
            assert (await bench.control.reached(command, run, "freeze")).confirmed
        for unit in units:
            await bench.supervisor.finished(unit)
        assert types(bench).count("run.end") == 8


async def test_the_end_of_what_was_halted_is_told_to_a_control_that_comes_back(
    stack: ExitStack,
) -> None:
    async with linked() as bench:
        unit = start(bench, stack)
        await bench.control.wait(lambda: unit.main_run in bench.control.runs)
        await bench.control.send("halt", unit.main_run)
        bench.control.silent = True
        await bench.supervisor.finished(unit)
        bench.link.stop()
        before = len(bench.control.beats)
        async with asyncio.TaskGroup() as tasks:
            closing = tasks.create_task(bench.link.close())
            await within(10, lambda: len(bench.control.beats) > before + 1 or closing.done())
            assert not closing.done()
            bench.control.silent = False
        assert [one.run_id for one in bench.control.beats[-1].ended] == [unit.main_run]


async def test_a_name_that_no_server_takes_does_not_cost_the_others_their_session() -> None:
    async with linked() as bench:
        bench.supervisor.need(["good bot", "new\nline", "", "q" * 201])
        assert bench.supervisor.needs >= {"good bot"}
        assert all(name.isprintable() and 0 < len(name) <= 200 for name in bench.supervisor.needs)


async def test_an_order_for_no_run_of_ours_is_refused_in_words() -> None:
    async with linked() as bench:
        command, signed = bench.control.order("halt", "unknown")
        bench.supervisor.deliver(signed)
        refused = await bench.control.reached(command, "unknown", "refused")
        assert refused.detail == "no such run here"
