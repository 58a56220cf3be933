"""Who is alive, who could be halted, who speaks for whom."""

import pytest
from tests.control.rig import TASK, Holder, Rig

from checkrein.bus.messages import (
    Beat,
    BeatRun,
    LiveQuery,
    Progress,
    Registered,
    Registration,
    RunRecord,
    decode,
)
from checkrein.control.registry import matches
from checkrein.control.types import Beating, Limits, Misread, Registering, Reporting
from checkrein.events.types import RunEnd, ScopeDecision, Status


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def held(rig: Rig) -> Holder:
    holder = Holder(rig, "s1")
    holder.start("r1")
    rig.run_for(0.5)
    return holder


def told(rig: Rig, kind: type) -> list[object]:
    return [event for event in rig.events.values() if isinstance(event, kind)]


def test_can_halt_is_asked_outside_the_agent_with_a_nonce(rig: Rig, held: Holder) -> None:
    run = rig.live("r1")
    assert run.can_halt
    assert "supervisor answered a probe" in run.can_halt_why
    assert run.record.level == "L2"
    assert run.probed_ms_ago is not None
    rig.run_for(30)
    assert rig.live("r1").can_halt
    held.deaf_to_probes = True
    rig.run_for(8)
    assert rig.live("r1").can_halt
    rig.run_for(13)
    run = rig.live("r1")
    assert not run.can_halt
    assert "has not answered a probe for" in run.can_halt_why
    assert run.status == "running"


def test_a_supervisor_that_cannot_signal_cannot_halt(rig: Rig, held: Holder) -> None:
    held.can_stop = False
    rig.run_for(8)
    assert not rig.live("r1").can_halt
    assert "cannot stop it" in rig.live("r1").can_halt_why


def test_an_answer_to_a_probe_nobody_asked_counts_for_nothing(rig: Rig) -> None:
    holder = Holder(rig, "s1")
    holder.deaf_to_probes = True
    holder.start("r1")
    rig.run_for(0.5)
    lie = Progress(
        command_id="", session="s1", run_id="r1", epoch=0, stage="probe", ms=0, at=0,
        by="supervisor", confirmed=True, nonce="guessed",
    )  # fmt: skip
    rig.give(Reporting("s1", [lie]))
    assert not rig.live("r1").can_halt
    assert "not answered a probe yet" in rig.live("r1").can_halt_why


def test_sdk_only_says_what_is_not_guaranteed_before_anybody_asks(rig: Rig) -> None:
    Holder(rig, "s1", kind="sdk").start("r1")
    rig.run_for(8)
    assert not rig.live("r1").can_halt
    assert "stop not guaranteed" in rig.live("r1").can_halt_why


def test_silence_is_first_stuck_then_lost_then_over(rig: Rig, held: Holder) -> None:
    rig.cut("s1")
    rig.run_for(3.5)
    assert rig.live("r1").status == "stuck"
    assert not rig.live("r1").can_halt
    assert "supervisor is silent for" in rig.live("r1").can_halt_why
    rig.run_for(7)
    assert rig.live("r1").status == "lost"
    assert [event.status for event in told(rig, Status)] == ["lost"]  # type: ignore[attr-defined]
    rig.heal("s1")
    rig.run_for(0.1)
    assert rig.live("r1").status == "running"
    rig.cut("s1")
    rig.run_for(3700)
    assert rig.live("r1").status == "lost"
    (end,) = told(rig, RunEnd)
    assert end.status == "lost"  # type: ignore[attr-defined]
    rig.heal("s1")
    rig.run_for(1.5)
    assert rig.live("r1").status == "running"


def test_a_lost_run_that_is_to_be_halted_is_remembered_for_days(rig: Rig, held: Holder) -> None:
    rig.cut("s1")
    rig.ask("halt", "run:r1")
    rig.run_for(5 * 3600)
    rig.heal("s1")
    rig.run_for(0.1)
    assert held.runs["r1"].state == "halted"


def test_what_control_did_not_hear_itself_is_nobodys_silence(rig: Rig, held: Holder) -> None:
    rig.bus_down()
    rig.run_for(9.9)
    rig.bus_up()
    rig.run_for(1.5)
    assert rig.live("r1").status == "running"
    assert told(rig, Status) == []


def test_a_control_that_was_frozen_calls_nobody_lost(rig: Rig, held: Holder) -> None:
    rig.frozen = True
    rig.run_for(60)
    rig.frozen = False
    rig.run_for(1.5)
    assert rig.live("r1").status == "running"
    assert told(rig, Status) == []


def test_speaking_for_another_is_refused_counted_and_reported(rig: Rig, held: Holder) -> None:
    assert rig.control is not None
    thief = Holder(rig, "s2")
    rig.sessions["s2"].agents[:] = ["thief"]
    rig.run_for(0.1)
    held.stubborn = True
    halt = rig.ask("halt", "run:r1", wait_ms=100)
    rig.run_for(0.2)
    lie = Progress(
        command_id=halt[0].command_id, session="s2", run_id="r1", epoch=halt[0].epoch,
        stage="freeze", ms=1, at=0, by="supervisor", confirmed=True,
    )  # fmt: skip
    answers: list[bytes] = []
    record = held.runs["r1"].record
    rig.give(Reporting("s2", [lie]))
    rig.give(Reporting("s2", [Progress(**_fields(lie) | {"session": "s1"})]))
    rig.give(Beating("s2", Beat(session="s2", at=0, runs=[BeatRun(run_id="r1", status="x")])))
    rig.give(Beating("s2", Beat(session="s2", at=0, ended=[BeatRun(run_id="r1", status="x")])))
    rig.give(Beating("s2", Beat(session="s1", at=0)))
    for registration in (
        Registration(session="s1", runs=[record]),
        Registration(session="s2", runs=[record]),
        Registration(session="s2", runs=[_of_session(record, "s2")]),
    ):
        rig.give(Registering("s2", registration, answers.append))
    rig.give(Misread("s2", "rcpt.s2", "not a Progress"))
    assert rig.control.forged == 9
    rig.run_for(0.1)
    assert [bool(decode(answer, Registered).error) for answer in answers] == [True] * 3
    state = rig.state(halt[0].command_id)
    assert not state.done
    assert state.runs[0].confirmed == ""
    assert rig.live("r1").record.session == "s1"
    assert rig.live("r1").status == "running"
    reported = [audit for audit in rig.audit.values() if audit.kind == "forged"]
    assert len(reported) == 9
    assert {audit.record["session"] for audit in reported} == {"s2"}
    refusals = [event for event in told(rig, ScopeDecision) if isinstance(event, ScopeDecision)]
    assert len(refusals) == 8, "the bytes that said nothing are only in the audit record"
    assert {(event.agent, event.rule, event.guard) for event in refusals} == {
        ("thief", "forgery", "control")
    }
    assert {event.action["name"] for event in refusals} == {
        "report", "beat", "register", "register bot"
    }  # fmt: skip
    assert not any(event.run_id == "r1" for event in refusals), "it is not the victim's doing"
    assert not thief.runs


def test_a_session_registers_runs_of_its_own_agents_as_what_it_is(rig: Rig) -> None:
    Holder(rig, "s1", "sdk")
    own = _record("s1", "r1", "bot", "sdk")
    for record, why in (
        (own, ""),
        (_record("s1", "r2", "other", "sdk"), "which is not one of session s1"),
        (_record("s1", "r3", "bot", "supervisor"), "session s1 is a sdk"),
    ):
        answers: list[bytes] = []
        given = Registration(session="s1", runs=[record])
        rig.give(Registering("s1", given, answers.append))
        rig.run_for(0.1)
        error = decode(answers[0], Registered).error
        assert why in error
        assert bool(error) == bool(why)
    assert rig.control is not None
    assert [run.record.run_id for run in rig.control.runs(LiveQuery())] == ["r1"]
    assert [run.record.run_id for run in rig.control.runs(LiveQuery(session="s1"))] == ["r1"]
    assert rig.control.runs(LiveQuery(session="s2")) == []
    told_of = [event for event in rig.events.values() if isinstance(event, ScopeDecision)]
    assert [(event.run_id, event.action["name"]) for event in told_of] == [
        ("r1", "register other"), ("r1", "register bot"),
    ]  # fmt: skip


def test_a_session_that_is_not_known_registers_nothing(rig: Rig) -> None:
    answers: list[bytes] = []
    given = Registration(session="s9", runs=[_record("s9", "r1", "bot", "sdk")])
    rig.give(Registering("s9", given, answers.append))
    rig.run_for(0.1)
    assert "not known here" in decode(answers[0], Registered).error
    assert rig.control is not None
    assert rig.control.runs(LiveQuery()) == []
    assert [audit.kind for audit in rig.audit.values()] == ["forged"]
    assert told(rig, ScopeDecision) == [], "nobody can be named"


def test_the_word_of_an_sdk_confirms_nothing(rig: Rig) -> None:
    holder = Holder(rig, "s1", "sdk")
    holder.start("r1")
    rig.run_for(0.5)
    holder.stubborn = True
    halt = rig.ask("halt", "run:r1", wait_ms=100)
    rig.run_for(0.2)
    for by, confirmed in (("supervisor", True), ("sdk", True), ("gateway", False)):
        rig.give(Reporting("s1", [Progress(
            command_id=halt[0].command_id, session="s1", run_id="r1",
            epoch=halt[0].runs[0].epoch, stage="freeze", ms=1, at=0, by=by, confirmed=confirmed,
        )]))  # fmt: skip
    rig.run_for(0.1)
    line = rig.state(halt[0].command_id).runs[0]
    assert (line.confirmed, line.outcome, line.how) == ("", "", {})
    refusals = [event for event in rig.events.values() if isinstance(event, ScopeDecision)]
    assert [event.action["name"] for event in refusals] == ["report"] * 3
    assert {event.run_id for event in refusals} == {"r1"}


def test_an_order_that_a_holder_refused_is_reported(rig: Rig, held: Holder) -> None:
    said = {
        "command_id": "c1", "session": "s1", "epoch": 0, "stage": "refused", "ms": 0.0, "at": 0,
        "by": "supervisor",
    }  # fmt: skip
    rig.give(Reporting("s1", [Progress(**said, run_id="", detail="forged: not control's key")]))
    rig.give(Reporting("s1", [Progress(**said, run_id="r1", detail="old epoch")]))
    rig.give(Reporting("s1", [Progress(**said, run_id="r1", detail="no such run here")]))
    rig.run_for(0.1)
    refusals = [event for event in rig.events.values() if isinstance(event, ScopeDecision)]
    assert [(e.rule, e.guard, e.action["name"], e.agent) for e in refusals] == [
        ("false-order", "holder", "forged", "bot"), ("false-order", "holder", "old epoch", "bot"),
    ]  # fmt: skip
    assert [audit.kind for audit in rig.audit.values()] == ["refused", "refused"]


def _record(session: str, run_id: str, agent: str, holder: str) -> RunRecord:
    return RunRecord(
        run_id=run_id, task_id=TASK, agent=agent, room="", environment="test", session=session,
        holder=holder, started_at=0,  # type: ignore[arg-type]
    )  # fmt: skip


def test_reports_of_forgeries_are_bounded(rig: Rig) -> None:
    assert rig.control is not None
    for _ in range(1000):
        rig.give(Misread("s2", "rcpt.s2", "noise"))
    assert rig.control.forged == 1000
    assert len(rig.audit) == Limits().forgeries_per_s_max


def test_a_run_goes_over_to_another_session_once_its_own_is_lost(rig: Rig, held: Holder) -> None:
    rig.cut("s1")
    state = rig.command("halt", "run:r1")
    other = Holder(rig, "s2")
    other.start("r1")
    rig.run_for(5)
    assert other.runs["r1"].state == "running"
    rig.run_for(10)
    other.register()
    rig.run_for(0.1)
    assert other.runs["r1"].state == "halted"
    assert rig.state(state.command_id).runs[0].confirmed == "supervisor"


@pytest.mark.parametrize(("target", "halted"), [("agent:bot", True), ("agent:b2", False)])
def test_a_run_on_its_way_in_is_halted_with_its_agent(
    rig: Rig, held: Holder, target: str, halted: bool
) -> None:
    Holder(rig, "s3").start("r3", agent="b2")
    rig.run_for(0.5)
    late = Holder(rig, "s2")
    rig.cut("s2")
    run = late.start("r2")
    rig.run_for(0.1)
    rig.ask("halt", target)
    rig.run_for(1)
    rig.heal("s2")
    rig.run_for(0.2)
    assert (run.state == "halted") == halted


def test_a_run_begun_after_the_halt_is_a_new_one_unless_its_task_was_halted(
    rig: Rig, held: Holder
) -> None:
    rig.command("halt", "agent:bot")
    rig.run_for(0.1)
    assert held.start("r2", task="e" * 32).state == "running"
    rig.run_for(1)
    assert held.runs["r2"].state == "running"
    rig.command("halt", f"task:{'e' * 32}")
    rig.run_for(3000)
    run = held.start("r3", task="e" * 32)
    rig.run_for(0.1)
    assert run.state == "halted"
    assert matches("all", run.record)
    assert run.record.task_id != TASK


def test_registry_is_bounded_and_says_so() -> None:
    rig = Rig(limits=Limits(runs_max=2, ended_max=1))
    holder = Holder(rig, "s1")
    answers: list[bytes] = []
    for number in range(3):
        holder.start(f"r{number}")
    rig.run_for(1)
    live = [acting.record for acting in holder.runs.values()]
    rig.give(Registering("s1", Registration(session="s1", runs=live), answers.append))
    rig.run_for(0.1)
    assert "2 runs are live" in decode(answers[0], Registered).error
    assert [run.run_id for run in rig.command("inspect", "all").runs] == ["r0", "r1"]
    for run_id in ("r0", "r1"):
        holder.end(run_id, "completed")
        rig.run_for(1.5)
    assert rig.control is not None
    assert [run.record.run_id for run in rig.control.runs(_all())] == ["r1", "r2"]


def test_commands_and_lines_are_bounded() -> None:
    rig = Rig(limits=Limits(commands_max=3, lines_max=5))
    holder = Holder(rig, "s1")
    for number in range(2):
        holder.start(f"r{number}")
    rig.run_for(0.5)
    ids = [rig.command("inspect", "all").command_id for _ in range(6)]
    rig.run_for(1)
    assert rig.control is not None
    kept = [state.command_id for state in rig.control.commands(_all())]
    assert kept == ids[:-3:-1]
    assert set(rig.disk["command"]) == set(kept)


def _all() -> object:
    from checkrein.bus.messages import LiveQuery

    return LiveQuery()


def _fields(progress: Progress) -> dict[str, object]:
    return {name: getattr(progress, name) for name in progress.__struct_fields__}


def _of_session(record: object, session: str) -> object:
    import msgspec

    return msgspec.structs.replace(record, session=session)
