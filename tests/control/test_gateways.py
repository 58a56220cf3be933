"""What gateways say of runs that others hold, and what becomes of it in receipts."""

from typing import Any

import msgspec
from tests.control.gate_party import GateParty
from tests.control.rig import TASK, Answers, Holder, Rig

from checkrein.bus.approvals import Ask, Asked, Decide, Decided
from checkrein.bus.messages import CommandRun, CommandState, Progress
from checkrein.control.rules import FENCED_ONLY, NOT_GUARANTEED
from checkrein.control.types import Deciding, Reporting, Revoked, Seeking
from checkrein.policy.digest import digest_of


def made(kind: str = "supervisor") -> tuple[Rig, Holder, GateParty]:
    rig = Rig()
    holder, gate = Holder(rig, "s1", kind), GateParty(rig, "g")
    holder.start("r1")
    rig.run_for(0.1)
    assert gate.call("r1", "bot")
    return rig, holder, gate


def line_of(state: CommandState) -> CommandRun:
    (line,) = state.runs
    return line


def test_a_supervised_run_is_fenced_by_the_gateway_and_confirmed_by_the_supervisor() -> None:
    rig, _, gate = made()
    state = rig.command("halt", "run:r1")
    rig.run_for(1.0)
    line = line_of(rig.state(state.command_id))
    assert line.how["fence"] == 2.0
    assert "kill" in line.how
    assert line.confirmed == "supervisor"
    assert not gate.call("r1", "bot")
    assert rig.control is not None
    assert rig.control.forged == 0


def test_the_fence_alone_does_not_end_the_halt_of_a_supervised_run() -> None:
    rig, holder, _ = made()
    holder.stubborn = True
    state = rig.command("halt", "run:r1", wait_ms=500)
    line = line_of(state)
    assert (line.confirmed, line.outcome, line.obeyed_ms) == ("gateway", "", None)
    rig.run_for(3.0)
    assert "its process is not stopped yet" in line_of(rig.state(state.command_id)).note
    holder.end("r1", "halted")
    rig.run_for(3.0)
    ended = line_of(rig.state(state.command_id))
    assert (ended.confirmed, ended.outcome) == ("supervisor", "obeyed")


def test_a_run_that_nobody_holds_from_outside_is_halted_by_the_fence() -> None:
    rig, _, _ = made("sdk")
    line = line_of(rig.command("halt", "run:r1"))
    assert (line.confirmed, line.outcome) == ("gateway", "obeyed")
    assert line.note == FENCED_ONLY
    assert line.how == {"fence": 2.0}


def test_a_run_that_no_gateway_knows_is_not_confirmed() -> None:
    rig = Rig()
    holder = Holder(rig, "s1", "sdk")
    GateParty(rig, "g")
    holder.start("r1")
    rig.run_for(0.1)
    line = line_of(rig.command("halt", "run:r1"))
    assert line.confirmed == ""
    assert line.note == NOT_GUARANTEED


def test_the_slowest_gateway_gives_the_fences_time() -> None:
    rig, holder, _ = made()
    second = GateParty(rig, "second")
    second.call("r1", "bot")
    holder.stubborn = True
    state = rig.command("halt", "run:r1", wait_ms=200)
    said = Progress(
        command_id=state.command_id, session=second.session, run_id="r1",
        epoch=line_of(state).epoch, stage="fence", ms=40.0, at=0, by="gateway", confirmed=True,
    )  # fmt: skip
    assert line_of(state).how["fence"] == 2.0
    third = GateParty(rig, "third")
    rig.give(Reporting(third.session, [_by(said, third.session)]))
    assert line_of(rig.state(state.command_id)).how["fence"] == 40.0


def _by(said: Progress, session: str) -> Progress:
    return msgspec.structs.replace(said, session=session)


def test_who_is_no_gateway_says_nothing_of_others_runs() -> None:
    rig, _, _ = made()
    other = Holder(rig, "s2")
    other.start("r2")
    rig.run_for(0.1)
    said = Progress(
        command_id="c", session="s2", run_id="r1", epoch=1, stage="fence", ms=1.0, at=0,
        by="supervisor", confirmed=True,
    )  # fmt: skip
    rig.give(Reporting(other.session, [said]))
    rig.give(Reporting("gate-g-1", [_by(said, "gate-g-1")]))  # a gateway, as a supervisor
    assert rig.control is not None
    assert rig.control.forged == 2


def test_a_pause_is_seen_at_the_gateway_and_obeyed_by_the_holder() -> None:
    rig, holder, _ = made("sdk")
    holder.stubborn = True
    state = rig.command("pause", "run:r1", wait_ms=300)
    assert (line_of(state).confirmed, line_of(state).outcome) == ("gateway", "")
    holder.stubborn = False
    again = rig.command("resume", "run:r1")
    assert line_of(again).outcome == "obeyed"


def test_a_directive_is_placed_by_the_gateway_where_the_program_has_no_sdk() -> None:
    rig, holder, gate = made()
    holder.stubborn = True
    state = rig.command("inject", "run:r1", wait_ms=300)
    epoch = line_of(state).epoch
    gate.say(state.command_id, "r1", epoch, "obeyed", "placed in the next request at the gateway")
    rig.run_for(0.1)
    line = line_of(rig.state(state.command_id))
    assert (line.outcome, line.confirmed) == ("obeyed", "gateway")


def test_a_run_whose_calls_pass_a_gateway_can_be_halted() -> None:
    rig, _, gate = made("sdk")
    rig.run_for(6.0)
    live = rig.live("r1")
    assert live.can_halt
    assert live.record.level == "L1"
    gate.crash()
    rig.run_for(30.0)
    live = rig.live("r1")
    assert (live.can_halt, live.can_halt_why, live.record.level) == (False, NOT_GUARANTEED, "L0")


def test_a_halted_runs_keys_are_ended_behind_the_fence() -> None:
    rig, _, _ = made()
    state = rig.command("halt", "run:r1")
    assert rig.revoking == ["r1"]
    rig.give(Revoked("r1"))
    assert rig.control is not None
    assert rig.control.halted("r1")
    assert "revoke" in line_of(rig.state(state.command_id)).how


# -- approvals that a gateway asks for, too ----------------------------------------------------

CALL: dict[str, Any] = {"order": "A-1"}


def question(claim: str, run_id: str = "r1", **other: Any) -> Ask:
    fields: dict[str, Any] = {
        "claim": claim, "run_id": run_id, "task_id": TASK, "agent": "bot",
        "tool": "refund", "arguments": CALL,
        "kind": "tool", "rule": "tools.refund", "reason": "more than 20", "life_s": 600.0,
        "pact": "bot", "pact_version": "1",
        "digest": digest_of("bot", "tool", "refund", CALL, "bot", "1"),
    } | other  # fmt: skip
    return Ask(**fields)


def ask(rig: Rig, session: str, word: Ask) -> Asked:
    answers = Answers(Asked)
    rig.give(Seeking(session, word, answers))
    rig.run_for(0.2)
    (answer,) = answers
    return answer  # type: ignore[no-any-return] # of the kind given


def decide(rig: Rig, answer: Asked, decision: str) -> None:
    answers = Answers(Decided)
    rig.give(
        Deciding(
            Decide(ids=[answer.approval_id], decision=decision, by="ann", reason="looked"), answers
        )
    )  # type: ignore[arg-type]
    rig.run_for(0.2)
    assert answers[0].done[0].ok


def test_a_call_that_was_approved_is_not_asked_about_again_at_the_gateway() -> None:
    rig, holder, gate = made()
    first = ask(rig, holder.session, question("own"))
    assert first.status == "open"
    decide(rig, first, "approve")
    assert ask(rig, holder.session, question("own")).status == "approved"
    here = ask(rig, gate.session, question("gate"))
    assert (here.status, here.approval_id) == ("approved", first.approval_id)
    assert ask(rig, gate.session, question("gate")).status == "approved"
    assert len(rig.notices) == 1


def test_one_approval_lets_one_call_through_the_gateway() -> None:
    rig, holder, gate = made()
    first = ask(rig, holder.session, question("own"))
    decide(rig, first, "approve")
    ask(rig, holder.session, question("own"))
    assert ask(rig, gate.session, question("gate")).status == "approved"
    again = ask(rig, gate.session, question("gate-2"))
    assert again.status == "open"
    assert again.approval_id != first.approval_id


def test_that_one_call_was_let_through_outlives_control() -> None:
    rig, holder, gate = made()
    first = ask(rig, holder.session, question("own"))
    decide(rig, first, "approve")
    ask(rig, holder.session, question("own"))
    ask(rig, gate.session, question("gate"))
    rig.crash()
    rig.boot()
    rig.run_for(2.0)
    assert ask(rig, gate.session, question("gate")).status == "approved"
    assert ask(rig, gate.session, question("gate-2")).approval_id != first.approval_id


def test_the_gateway_waits_until_the_runs_own_call_has_used_its_approval() -> None:
    rig, holder, gate = made()
    first = ask(rig, holder.session, question("own"))
    assert ask(rig, gate.session, question("gate")).approval_id == first.approval_id
    decide(rig, first, "approve")
    assert ask(rig, gate.session, question("gate")).status == "open"
    assert ask(rig, holder.session, question("own")).status == "approved"
    assert ask(rig, gate.session, question("gate")).status == "approved"


def test_a_no_is_a_no_at_the_gateway_too() -> None:
    rig, holder, gate = made()
    first = ask(rig, holder.session, question("own"))
    decide(rig, first, "deny")
    assert ask(rig, gate.session, question("gate")).status == "denied"
    assert len(rig.notices) == 1


def test_a_gateway_asks_by_itself_for_a_run_that_did_not_ask() -> None:
    rig, _, gate = made()
    first = ask(rig, gate.session, question("gate"))
    assert first.status == "open"
    decide(rig, first, "approve")
    assert ask(rig, gate.session, question("gate")).status == "approved"
    assert rig.control is not None
    assert rig.control.forged == 0


def test_a_gateway_asks_for_no_agent_but_the_runs() -> None:
    rig, _, gate = made()
    word = question("gate", agent="other")
    assert ask(rig, gate.session, word).status == "denied"
    assert rig.control is not None
    assert rig.control.forged == 1
