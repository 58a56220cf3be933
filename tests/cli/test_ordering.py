"""pause, resume, halt: receipts as they come, and an exit code that means it."""

import asyncio
import json

import msgspec
import pytest
from tests.cli.conftest import Run
from tests.server.api.conftest import Stand, eventually, live_run
from tests.server.api.test_acting import COMMAND, COMMAND_RUN, RUN

from checkrein.bus.messages import CommandRun
from checkrein.cli import order

SECOND = RUN[:-1] + "2"


async def test_halt_prints_receipts_and_ends_with_0_when_all_obeyed(
    stand: Stand, checkrein: Run
) -> None:
    stand.control.live = [live_run(RUN), live_run(SECOND, "planner")]
    result = await checkrein("halt", "all", "--reason", "drill")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "halt all  asked of 2 runs"
    assert "support-bot" in lines[1]
    assert "delivered 1.5 ms  fence 1.0 ms  freeze 3.2 ms  obeyed 3.2 ms" in lines[1]
    assert lines[1].endswith("confirmed by supervisor")
    assert lines[-1] == "2 of 2 obeyed, 2 confirmed, slowest 3.2 ms"
    assert stand.control.commands[0].reason == "drill"


async def test_json_is_the_command(stand: Stand, checkrein: Run) -> None:
    stand.control.live = [live_run(RUN)]
    result = await checkrein("pause", "agent:support-bot", "--reason", "x", "--json")
    state = json.loads(result.stdout)
    assert set(state) >= COMMAND
    assert set(state["runs"][0]) >= COMMAND_RUN
    assert state["runs"][0]["how"][0] == {"rung": "fence", "ms": 1.0}


async def test_what_nobody_has_seen_is_not_called_stopped(
    stand: Stand, checkrein: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "UNCONFIRMED_AFTER_S", 0.1)
    stand.control.live = [live_run(RUN)]
    stand.control.confirmed = ""
    result = await checkrein("halt", RUN[:10], "--reason", "x", "--wait", "0.6")
    assert result.exit_code == 1
    assert "not confirmed: support-bot" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("0 of 1 obeyed, 0 confirmed")
    assert stand.control.commands[0].target == f"run:{RUN}"


def test_a_pause_that_the_agent_obeyed_is_not_called_unconfirmed() -> None:
    run = {
        "run_id": RUN, "agent": "a", "delivered_ms": 1.0, "obeyed_ms": 2.0, "how": [],
        "confirmed": "", "note": "", "outcome": "obeyed",
    }  # fmt: skip
    texts = {
        verb: "".join(cell.text for cell in order._receipt(run, RUN[:13], verb))
        for verb in ("pause", "halt")
    }
    assert "as the agent says" in texts["pause"]
    assert "not confirmed yet" in texts["halt"]


async def test_a_receipt_that_comes_late_is_waited_for(stand: Stand, checkrein: Run) -> None:
    stand.control.live = [live_run(RUN)]
    stand.control.confirmed = ""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(checkrein("halt", "all", "--reason", "x"))

        async def asked() -> bool:
            return bool(stand.control.asked_for)

        await eventually(asked)
        state = next(iter(stand.control.states.values()))
        run = CommandRun(
            run_id=RUN, agent="support-bot", delivered_ms=2.0, obeyed_ms=700.0, outcome="obeyed",
            how={"fence": 1.0, "freeze": 3.0, "kill": 700.0}, confirmed="supervisor",
        )  # fmt: skip
        await stand.control.change(msgspec.structs.replace(state, runs=[run], done=True))
    result = running.result()
    assert result.exit_code == 0, result.output
    assert "kill 700.0 ms" in result.stdout
    assert result.stdout.splitlines()[-1] == "1 of 1 obeyed, 1 confirmed, slowest 700.0 ms"


async def test_no_run_is_not_a_success(checkrein: Run) -> None:
    result = await checkrein("halt", "agent:nobody", "--reason", "x")
    assert result.exit_code == 1
    assert "no run is agent:nobody now" in result.stdout


async def test_mistakes_are_told(stand: Stand, checkrein: Run) -> None:
    stand.control.live = [live_run(RUN), live_run(SECOND)]
    ambiguous = await checkrein("halt", "run:0198a000", "--reason", "x")
    unknown = await checkrein("halt", "ffffffff", "--reason", "x")
    target = await checkrein("halt", "planet:mars", "--reason", "x")
    reason = await checkrein("halt", "all")
    assert [r.exit_code for r in (ambiguous, unknown, target, reason)] == [2, 2, 2, 2]
    assert RUN in ambiguous.stderr
    assert SECOND in ambiguous.stderr
    assert "no run's id begins with 'ffffffff'" in unknown.stderr
    assert "agent:NAME" in target.stderr
    assert "--reason" in reason.stderr
    assert stand.control.commands == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("all", "all"), ("0198a000", "run:0198a000"), (RUN, f"run:{RUN}"), ("agent:a", "agent:a"),
     ("refunds", "refunds")],
)  # fmt: skip
def test_a_run_may_be_named_by_its_id_alone(typed: str, meant: str) -> None:
    assert order.full_target(typed) == meant
