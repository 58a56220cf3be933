"""Each rule of commands, one by one, on a quiet bus."""

import itertools

import pytest
from tests.control.rig import SIGNER, Holder, Rig

from checkrein.bus.messages import CommandRun, CommandState, LiveQuery
from checkrein.bus.orders import verify


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def held(rig: Rig) -> Holder:
    """A supervisor with one run, `r1`."""
    holder = Holder(rig, "s1")
    holder.start("r1")
    rig.run_for(0.5)
    return holder


def line(state: CommandState, run_id: str = "r1") -> CommandRun:
    return next(line for line in state.runs if line.run_id == run_id)


def test_a_halt_is_confirmed_by_the_supervisor_with_each_rung(rig: Rig, held: Holder) -> None:
    state = rig.command("halt", "run:r1")
    assert state.done
    assert not state.error
    got = line(state)
    assert (got.confirmed, got.outcome) == ("supervisor", "obeyed")
    assert got.delivered_ms is not None
    assert got.obeyed_ms is not None
    assert 0 < got.delivered_ms <= got.obeyed_ms < 10
    assert got.how == {"freeze": 1.0}
    rig.run_for(0.5)
    assert line(rig.state(state.command_id)).how == {"freeze": 1.0, "kill": 1.0}
    assert held.runs["r1"].did == [("halt", got.epoch)]


def test_pause_resume_and_a_halt_while_paused(rig: Rig, held: Holder) -> None:
    run = held.runs["r1"]
    assert line(rig.command("pause", "agent:bot")).confirmed == "supervisor"
    assert run.state == "paused"
    effects = run.effects
    rig.run_for(1.0)
    assert run.effects == effects
    assert line(rig.command("resume", "all")).outcome == "obeyed"
    assert run.state == "running"
    rig.command("pause", "run:r1")
    assert line(rig.command("halt", "run:r1")).outcome == "obeyed"
    assert [verb for verb, _ in run.did] == ["pause", "resume", "pause", "halt"]
    epochs = [epoch for _, epoch in run.did]
    assert epochs == sorted(set(epochs))


@pytest.mark.parametrize("verb", ["pause", "resume", "inject", "redirect", "approve"])
def test_after_a_halt_everything_else_is_refused(rig: Rig, held: Holder, verb: str) -> None:
    held.stubborn = True
    rig.ask("halt", "run:r1")
    got = line(rig.command(verb, "run:r1"))
    assert got.outcome == "refused"
    assert "halt" in got.note
    assert got.obeyed_ms is None


def test_a_second_halt_shares_the_first_ones_receipts(rig: Rig, held: Holder) -> None:
    held.stubborn = True
    first = rig.ask("halt", "run:r1")
    second = rig.ask("halt", "run:r1", wait_ms=9000)
    rig.run_for(0.5)
    assert not second
    held.stubborn = False
    held.inbox = type(held.inbox)("s1", held.inbox.key, rig.world)
    rig.run_for(3.0)
    assert first
    assert second
    got = line(second[0])
    assert (got.outcome, got.confirmed) == ("obeyed", "supervisor")
    assert "halted already" in got.note
    assert [verb for verb, _ in held.runs["r1"].did] == ["halt"]


def test_a_halt_of_a_halted_run_answers_at_once(rig: Rig, held: Holder) -> None:
    rig.command("halt", "run:r1")
    got = line(rig.command("halt", "run:r1"))
    assert (got.outcome, got.confirmed, got.obeyed_ms) == ("obeyed", "supervisor", 0.0)


def test_pausing_a_paused_run_joins_and_resuming_a_running_one_is_nothing(
    rig: Rig, held: Holder
) -> None:
    rig.command("pause", "run:r1")
    assert "paused already" in line(rig.command("pause", "run:r1")).note
    rig.command("resume", "run:r1")
    rig.run_for(1.1)
    got = line(rig.command("resume", "run:r1"))
    assert (got.outcome, got.note) == ("obeyed", "it was not paused")
    assert [verb for verb, _ in held.runs["r1"].did] == ["pause", "resume"]


def test_a_halt_supersedes_what_is_on_its_way(rig: Rig, held: Holder) -> None:
    held.stubborn = True
    pause, inject = rig.ask("pause", "run:r1"), rig.ask("inject", "run:r1")
    halt = rig.ask("halt", "run:r1", wait_ms=0)
    for answers in (pause, inject):
        got = line(answers[0])
        assert got.outcome == "superseded"
        assert halt[0].command_id in got.note


def test_targets(rig: Rig) -> None:
    holder = Holder(rig, "s1")
    task = "f" * 32
    holder.start("run-aa", agent="a", room="x")
    holder.start("run-ab", agent="a", room="y", task=task)
    holder.start("run-b", agent="b", room="y")
    rig.run_for(0.5)

    def hit(target: str) -> list[str]:
        return [run.run_id for run in rig.command("inspect", target).runs]

    assert hit("agent:a") == ["run-aa", "run-ab"]
    assert hit("room:y") == ["run-ab", "run-b"]
    assert hit(f"task:{task}") == ["run-ab"]
    assert hit("run:run-b") == ["run-b"]
    assert hit("run:run-aa") == ["run-aa"]
    assert hit("all") == ["run-aa", "run-ab", "run-b"]
    for target, word in {
        "run:run-a": "2 runs begin",
        "run:zzz": "no live run",
        "agent:c": "live now: a, b",
        "task:" + "0" * 32: "no live run of task",
        "room:": "give agent:NAME",
        "everything": "give agent:NAME",
    }.items():
        state = rig.command("halt", target)
        assert word in state.error
        assert state.done
        assert state.runs == []


def test_an_unknown_verb_is_refused_and_so_is_too_much_text(rig: Rig, held: Holder) -> None:
    assert "inject" in rig.command("probe", "all").error
    assert "`reason`" in rig.command("halt", "all", reason="x" * 3000).error
    assert "arguments" in rig.command("inject", "all", arguments={"x": "y" * 70_000}).error
    assert "expected_step" in rig.command("inject", "all", arguments={"expected_step": "1"}).error
    assert held.runs["r1"].did == []


def test_the_same_command_id_is_the_same_command(rig: Rig, held: Holder) -> None:
    first = rig.command("pause", "run:r1", command_id="c1")
    again = rig.command("pause", "run:r1", command_id="c1")
    assert again == first
    assert len(held.runs["r1"].did) == 1
    assert "was used for pause run:r1" in rig.command("halt", "run:r1", command_id="c1").error
    assert held.runs["r1"].state == "paused"


def test_a_step_that_has_passed(rig: Rig, held: Holder) -> None:
    rig.run_for(2.0)
    got = line(rig.command("redirect", "run:r1", arguments={"expected_step": 1}))
    assert got.outcome == "refused"
    assert "meant for step 1" in got.note
    far = {"expected_step": 10**6}
    assert line(rig.command("redirect", "run:r1", arguments=far)).outcome == "obeyed"


def test_without_a_supervisor_a_stop_is_never_called_confirmed(rig: Rig) -> None:
    holder = Holder(rig, "s1", kind="sdk")
    holder.start("r1")
    rig.run_for(0.5)
    got = line(rig.command("halt", "run:r1"))
    assert (got.outcome, got.confirmed) == ("obeyed", "")
    assert "stop not guaranteed: no supervisor and no gateway" in got.note
    assert got.obeyed_ms is not None


def test_a_process_cannot_vouch_for_itself_as_supervisor(rig: Rig) -> None:
    holder = Holder(rig, "s1", kind="sdk")
    holder.start("r1")
    rig.run_for(0.5)
    holder.kind = "supervisor"
    state = rig.command("halt", "run:r1", wait_ms=500)
    assert line(state).confirmed == ""
    rig.run_for(2)
    assert not rig.live("r1").can_halt


def test_not_confirmed_is_said_within_two_seconds(rig: Rig, held: Holder) -> None:
    rig.cut("s1")
    answers = rig.ask("halt", "run:r1")
    rig.run_for(1.99)
    assert not answers
    rig.run_for(0.02)
    (state,) = answers
    assert not state.done
    assert line(state).note.startswith("not confirmed after 2 s")
    assert line(state).confirmed == ""
    assert "not confirmed" in rig.live("r1").reason
    rig.run_for(5)
    assert "cut off for" in line(rig.state(state.command_id)).note


def test_a_halt_sent_while_cut_off_takes_effect_on_coming_back(rig: Rig, held: Holder) -> None:
    rig.cut("s1")
    state = rig.command("halt", "run:r1")
    rig.run_for(120)
    assert held.runs["r1"].state == "running"
    assert rig.live("r1").status == "lost"
    rig.heal("s1")
    rig.run_for(0.1)
    assert held.runs["r1"].state == "halted"
    got = line(rig.state(state.command_id))
    assert (got.outcome, got.confirmed) == ("obeyed", "supervisor")


def test_an_edge_that_is_lost_is_repeated(rig: Rig, held: Holder) -> None:
    rig.net.faults.lost = 1.0
    answers = rig.ask("halt", "run:r1")
    rig.run_for(0.05)
    rig.net.faults.lost = 0.0
    rig.run_for(0.2)
    assert line(answers[0]).confirmed == "supervisor"
    assert len(held.runs["r1"].did) == 1


def test_repeats_slow_down_and_go_on(rig: Rig, held: Holder) -> None:
    held.dead = True
    rig.sent.clear()
    rig.ask("halt", "run:r1")
    times, seen = [0.0], 1
    for tick in range(1, 1000):
        rig.run_for(0.02)
        halts = sum(verify(send.data, SIGNER.public).verb == "halt" for send in rig.sent)
        if halts > seen:
            times.append(tick * 0.02)
            seen = halts
    waits = [round(later - earlier, 2) for earlier, later in itertools.pairwise(times)]
    assert waits[:7] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0], abs=0.05)
    assert max(waits) == pytest.approx(10.0, abs=0.1)


def test_a_human_is_told_when_a_halt_stays_unconfirmed(rig: Rig, held: Holder) -> None:
    held.stubborn = True
    state = rig.command("halt", "run:r1")
    rig.run_for(25)
    assert not rig.state(state.command_id).escalated
    rig.run_for(10)
    assert rig.state(state.command_id).escalated
    assert f"{state.command_id}/escalated" in rig.audit
    assert any(getattr(event, "detector", "") == "unconfirmed" for event in rig.events.values())
    assert not rig.state(state.command_id).done


def test_an_act_that_nobody_takes_fails_and_is_not_obeyed_later(rig: Rig, held: Holder) -> None:
    rig.cut("s1")
    state = rig.command("inject", "run:r1")
    rig.run_for(75)
    got = line(rig.state(state.command_id))
    assert got.outcome == "failed"
    assert "not delivered within" in got.note
    rig.heal("s1")
    rig.run_for(20)
    assert held.runs["r1"].did == []


def test_a_run_that_ends_closes_what_was_asked_of_it(rig: Rig, held: Holder) -> None:
    held.stubborn = True
    pause = rig.ask("pause", "run:r1", wait_ms=9000)
    rig.run_for(0.1)
    held.end("r1", "completed")
    rig.run_for(1.1)
    got = line(pause[0])
    assert got.outcome == "ended"
    assert "completed" in got.note
    assert "has ended (completed)" in rig.command("halt", "run:r1").error
    assert rig.disk["run"] == {}
    assert rig.disk["level"] == {}


def test_a_run_that_ends_while_being_halted_is_halted(rig: Rig, held: Holder) -> None:
    held.stubborn = True
    halt = rig.ask("halt", "run:r1", wait_ms=9000)
    rig.run_for(0.1)
    held.end("r1", "failed")
    rig.run_for(1.1)
    got = line(halt[0])
    assert (got.outcome, got.confirmed) == ("obeyed", "supervisor")
    assert "has ended (failed)" in got.note


def test_one_signed_order_a_session_lists_all_its_runs(rig: Rig) -> None:
    for session in ("s1", "s2"):
        holder = Holder(rig, session)
        for number in range(300):
            holder.runs[f"{session}-{number}"] = holder.start(f"{session}-{number}")
    rig.run_for(2)
    rig.sent.clear()
    answers = rig.ask("halt", "all", wait_ms=5000)
    assert sorted(send.subject for send in rig.sent) == ["cmd.s1", "cmd.s2"]
    rig.run_for(1)
    assert {run.confirmed for run in answers[0].runs} == {"supervisor"}
    assert len(answers[0].runs) == 600


def test_what_is_told_and_written_down(rig: Rig, held: Holder) -> None:
    state = rig.command("halt", "run:r1")
    rig.run_for(1)
    told = sorted(rig.events.values(), key=lambda event: event.seq)
    kinds = [type(event).__name__ for event in told]
    assert kinds == ["Command", "Receipt", "Receipt"]
    assert {event.recorder for event in told} == {"role:control"}
    assert {event.agent for event in told} == {"bot"}
    assert [audit.kind for audit in rig.audit.values()] == ["command", "receipt", "receipt"]
    assert rig.disk["command"].keys() == {state.command_id}


def test_commands_are_shown_newest_first_and_in_pages(rig: Rig, held: Holder) -> None:
    ids = [rig.command("inspect", "run:r1").command_id for _ in range(5)]
    assert rig.control is not None
    assert [state.command_id for state in rig.control.commands(LiveQuery())] == ids[::-1]
    page = rig.control.commands(LiveQuery(after=ids[3], limit=2))
    assert [state.command_id for state in page] == [ids[2], ids[1]]


def test_what_was_obeyed_is_shown_before_the_next_beat(rig: Rig, held: Holder) -> None:
    for verb, status in (("pause", "paused"), ("resume", "running"), ("halt", "halted")):
        rig.command(verb, "run:r1")
        assert rig.live("r1").status == status
