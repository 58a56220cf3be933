"""Control dies at any moment, and what was wanted of the runs is wanted still."""

import pytest
from tests.control.rig import SIGNER, Holder, Rig

from checkrein.bus.orders import verify


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def held(rig: Rig) -> Holder:
    holder = Holder(rig, "s1")
    holder.start("r1")
    rig.run_for(0.5)
    return holder


def restart(rig: Rig, away_s: float = 1.0) -> None:
    rig.crash()
    rig.run_for(away_s)
    rig.boot()


def test_an_open_halt_goes_on(rig: Rig, held: Holder) -> None:
    rig.cut("s1")
    state = rig.command("halt", "run:r1")
    restart(rig)
    rig.run_for(60)
    rig.heal("s1")
    rig.run_for(1)
    after = rig.state(state.command_id)
    assert (after.done, after.runs[0].confirmed) == (True, "supervisor")
    assert after.asked_at == state.asked_at
    assert after.runs[0].obeyed_ms is not None
    assert after.runs[0].obeyed_ms > 60_000
    assert [verb for verb, _ in held.runs["r1"].did] == ["halt"]


def test_epochs_rise_over_restarts(rig: Rig, held: Holder) -> None:
    for verb in ("pause", "resume", "pause"):
        rig.command(verb, "run:r1")
        restart(rig, 0.2)
        rig.run_for(1.2)
    rig.command("halt", "run:r1")
    epochs = [epoch for _, epoch in held.runs["r1"].did]
    assert len(epochs) == 4
    assert epochs == sorted(set(epochs))


@pytest.mark.parametrize("lost", ["run", "level", "command"])
def test_any_one_of_the_three_records_may_be_missing(rig: Rig, held: Holder, lost: str) -> None:
    rig.cut("s1")
    rig.ask("halt", "run:r1")
    rig.run_for(0.3)
    rig.crash()
    rig.disk[lost].clear()
    rig.boot()
    rig.run_for(1)
    rig.heal("s1")
    rig.run_for(2.5)
    assert held.runs["r1"].state == "halted"
    assert rig.control is not None
    assert [verb for verb, _ in held.runs["r1"].did] == ["halt"]


def test_an_edge_that_went_out_before_anything_was_written(rig: Rig, held: Holder) -> None:
    """The command is forgotten, its epoch is not used again, and the next order is obeyed."""
    rig.disk_up = False
    rig.ask("pause", "run:r1", wait_ms=0)
    rig.run_for(0.1)
    assert held.runs["r1"].state == "paused"
    rig.crash()
    rig.disk_up = True
    rig.boot()
    rig.run_for(1.5)
    state = rig.command("resume", "run:r1")
    assert state.runs[0].outcome == "obeyed"
    assert held.runs["r1"].state == "running"


def test_holders_register_again_what_was_forgotten(rig: Rig, held: Holder) -> None:
    rig.crash()
    for part in rig.disk.values():
        part.clear()
    rig.boot()
    rig.run_for(1.5)
    assert rig.live("r1").status == "running"


def test_a_pause_stands_through_a_restart_and_its_level_is_signed(rig: Rig, held: Holder) -> None:
    rig.command("pause", "run:r1")
    rig.run_for(0.2)
    order = verify(rig.disk["level"]["s1.r1"], SIGNER.public)
    assert (order.verb, order.expires_at, order.session) == ("pause", 0, "s1")
    restart(rig)
    rig.run_for(2)
    assert "paused already" in rig.command("pause", "run:r1").runs[0].note
    assert held.runs["r1"].state == "paused"


def test_a_run_that_ended_meanwhile_closes_its_lines(rig: Rig, held: Holder) -> None:
    held.stubborn = True
    state = rig.command("halt", "run:r1")
    rig.crash()
    rig.disk["run"].clear()
    held.end("r1", "completed")
    rig.boot()
    rig.run_for(1.5)
    after = rig.state(state.command_id)
    assert (after.done, after.runs[0].outcome) == (True, "obeyed")
    assert "has ended (completed)" in after.runs[0].note


def test_a_joined_halt_goes_on_with_its_leader(rig: Rig, held: Holder) -> None:
    rig.cut("s1")
    rig.ask("halt", "run:r1")
    second = rig.command("halt", "run:r1")
    restart(rig)
    rig.heal("s1")
    rig.run_for(1)
    got = rig.state(second.command_id).runs[0]
    assert (got.outcome, got.confirmed) == ("obeyed", "supervisor")
    assert [verb for verb, _ in held.runs["r1"].did] == ["halt"]


def test_what_was_told_is_told_again_under_the_same_numbers(rig: Rig, held: Holder) -> None:
    rig.command("halt", "run:r1")
    rig.run_for(1)
    before = dict(rig.events)
    rig.events.clear()
    rig.crash()
    rig.boot()
    held.dead = True
    rig.run_for(1)
    again = {seq: event for seq, event in rig.events.items() if seq in before}
    assert {type(event).__name__ for event in again.values()} <= {"Command", "Receipt"}
    assert rig.events.keys() <= before.keys()


def test_a_new_generation_is_wanted_before_the_epochs_run_out(rig: Rig, held: Holder) -> None:
    assert rig.control is not None
    assert rig.control.generation_wanted == 1
    book = rig.control._book
    book.epoch = book.epoch_end - 2
    assert rig.control.generation_wanted == 2
    assert not rig.command("pause", "run:r1").error
    assert "restart" in rig.command("resume", "run:r1").error
    rig.control.reserved(2)
    assert rig.command("resume", "run:r1").runs[0].outcome == "obeyed"
