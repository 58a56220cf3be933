"""The ladder, rung by rung, without a process."""

from typing import Any

from checkrein.supervise import happenings as h
from checkrein.supervise.holding import Limits
from checkrein.supervise.ladder import Ladder

MS = 1_000_000
LIMITS = Limits()


def order(verb: str, *runs: str, epoch: int = 1, command: str = "c1", **more: Any) -> h.Ordered:
    return h.Ordered(
        command, verb, tuple((run, epoch) for run in runs), "because", "human:ann", **more
    )


def unit(*runs: str, sdk: bool = False) -> Ladder:
    ladder = Ladder(LIMITS)
    for run in runs or ("r1",):
        ladder.step(0, h.RunBegan(run))
    if sdk:
        ladder.step(0, h.SdkChanged(1))
    return ladder


def names(acts: list[h.Act]) -> list[str]:
    """Each act in one word: reports by their stage, with `!` when confirmed."""
    return [
        f"{act.stage}{'!' if act.confirmed else ''}"
        if isinstance(act, h.Report)
        else type(act).__name__
        for act in acts
    ]


def test_a_program_without_sdk_is_frozen_at_once_and_killed_from_there() -> None:
    ladder = unit()
    assert names(ladder.step(0, order("halt", "r1"))) == ["delivered", "Tell", "Freeze"]
    acts = ladder.step(2 * MS, h.Froze(True))
    assert names(acts) == ["Mark", "freeze!", "Capture"]
    assert isinstance(acts[1], h.Report)
    assert acts[1].ms == 2.0
    assert names(ladder.step(3 * MS, h.Captured({"processes": 2}))) == ["capture", "Kill"]
    acts = ladder.step(9 * MS, h.Killed())
    assert names(acts) == ["kill!", "Revoke", "revoke", "obeyed!"]
    assert ladder.wake_at_ns is None


def test_the_boundary_gets_a_moment_to_shut_before_the_freeze() -> None:
    ladder = unit(sdk=True)
    assert names(ladder.step(0, order("halt", "r1"))) == ["delivered", "Tell"]
    assert ladder.wake_at_ns == LIMITS.fence_ms * MS
    acts = ladder.step(1 * MS, h.SdkDid("c1", "r1", "fence"))
    assert names(acts) == ["fence", "Freeze"]
    assert names(ladder.step(2 * MS, h.Froze(True))) == ["Mark", "freeze!", "Capture"]
    assert names(ladder.step(3 * MS, h.Captured({}))) == ["capture", "Thaw"]
    assert names(ladder.step(4 * MS, h.RunEnded("r1"))) == ["unwind"]
    assert names(ladder.step(5 * MS, h.Died())) == ["Kill"]
    assert names(ladder.step(6 * MS, h.Killed()))[-1] == "obeyed!"


def test_a_silent_boundary_is_not_waited_for_and_never_let_go_again() -> None:
    ladder = unit(sdk=True)
    ladder.step(0, order("halt", "r1"))
    assert names(ladder.step(LIMITS.fence_ms * MS, h.Tick())) == ["Freeze"]
    ladder.step(20 * MS, h.Froze(True))
    assert names(ladder.step(21 * MS, h.Captured({}))) == ["capture", "Kill"]


def test_a_call_in_flight_is_never_let_go_after_the_halt_was_confirmed() -> None:
    ladder = unit(sdk=True)
    ladder.step(0, h.InFlight("r1", 1))
    ladder.step(0, order("halt", "r1"))
    ladder.step(1 * MS, h.SdkDid("c1", "r1", "fence"))
    ladder.step(2 * MS, h.Froze(True))
    assert "Thaw" not in names(ladder.step(3 * MS, h.Captured({})))


def test_unwinding_has_an_end() -> None:
    ladder = unit(sdk=True)
    ladder.step(0, order("halt", "r1"))
    ladder.step(1 * MS, h.SdkDid("c1", "r1", "fence"))
    ladder.step(2 * MS, h.Froze(True))
    ladder.step(3 * MS, h.Captured({}))
    assert ladder.wake_at_ns == (3 + LIMITS.unwind_ms) * MS
    assert names(ladder.step(ladder.wake_at_ns, h.Tick())) == ["Kill"]


def test_survivors_are_said_and_killed_again() -> None:
    ladder = unit()
    ladder.step(0, order("halt", "r1"))
    ladder.step(1 * MS, h.Froze(True))
    ladder.step(2 * MS, h.Captured({}))
    acts = ladder.step(3 * MS, h.Killed((41, 42)))
    assert names(acts) == ["failed", "Kill"]
    assert isinstance(acts[0], h.Report)
    assert acts[0].detail == "still alive: 41, 42"
    assert names(ladder.step(4 * MS, h.Killed((42,)))) == ["Kill"]
    assert names(ladder.step(5 * MS, h.Killed()))[-1] == "obeyed!"


def test_pause_holds_at_the_boundary_for_as_long_as_it_is_wanted() -> None:
    ladder = unit(sdk=True)
    assert names(ladder.step(0, order("pause", "r1"))) == ["delivered", "Tell"]
    assert names(ladder.step(1 * MS, h.SdkDid("c1", "r1", "held"))) == ["Mark", "held", "obeyed"]
    assert ladder.wake_at_ns is None
    resumed = order("resume", "r1", epoch=2, command="c2")
    assert names(ladder.step(2 * MS, resumed)) == ["delivered", "Tell"]
    acts = ladder.step(3 * MS, h.SdkDid("c2", "r1", "resumed"))
    assert names(acts) == ["Mark", "resumed", "obeyed"]


def test_pause_freezes_who_does_not_get_to_a_boundary_and_parks_after_the_lease() -> None:
    ladder = unit(sdk=True)
    ladder.step(0, order("pause", "r1"))
    at = ladder.wake_at_ns
    assert at == LIMITS.hold_ms * MS
    assert names(ladder.step(at, h.Tick())) == ["Freeze"]
    assert names(ladder.step(at, h.Froze(True))) == ["Mark", "freeze!", "obeyed!"]
    half = ladder.wake_at_ns
    assert half == at + LIMITS.lease_ms * MS // 2
    assert names(ladder.step(half, h.Tick())) == ["Mark", "delivered"]
    end = ladder.wake_at_ns
    assert end == at + LIMITS.lease_ms * MS
    acts = ladder.step(end, h.Tick())
    assert names(acts) == ["Tell", "Mark", "freeze!", "Capture"]
    assert isinstance(acts[0], h.Tell)
    assert acts[0].arguments["park"] is True
    assert isinstance(acts[1], h.Mark)
    assert acts[1].reason.startswith("parked")
    assert names(ladder.step(end, h.Captured({})))[-1] == "Thaw"
    assert names(ladder.step(end + LIMITS.unwind_ms * MS, h.Tick())) == ["Kill"]


def test_a_call_under_way_may_finish_before_a_pause_freezes() -> None:
    ladder = unit(sdk=True)
    ladder.step(0, h.InFlight("r1", 1))
    ladder.step(0, order("pause", "r1"))
    assert ladder.wake_at_ns == LIMITS.hold_in_flight_ms * MS


def test_a_paused_program_without_sdk_is_frozen_and_goes_on() -> None:
    ladder = unit()
    assert names(ladder.step(0, order("pause", "r1"))) == ["delivered", "Freeze"]
    ladder.step(1 * MS, h.Froze(True))
    acts = ladder.step(2 * MS, order("resume", "r1", epoch=2, command="c2"))
    assert names(acts) == ["delivered", "Thaw", "Mark", "resumed!", "obeyed!"]
    assert ladder.wake_at_ns is None


def test_a_paused_run_can_be_halted_and_a_halted_one_not_resumed() -> None:
    ladder = unit()
    ladder.step(0, order("pause", "r1"))
    ladder.step(1 * MS, h.Froze(True))
    acts = ladder.step(2 * MS, order("halt", "r1", epoch=2, command="c2"))
    assert names(acts) == ["delivered", "Tell", "Mark", "freeze!", "Capture"]
    acts = ladder.step(3 * MS, order("resume", "r1", epoch=3, command="c3"))
    assert names(acts) == ["delivered", "refused"]
    assert "Thaw" not in names(ladder.step(4 * MS, h.Captured({})))


def test_one_run_of_several_ends_in_its_own_code_and_the_others_go_on() -> None:
    ladder = unit("r1", "r2", sdk=True)
    assert names(ladder.step(0, order("halt", "r1"))) == ["delivered", "Tell"]
    assert names(ladder.step(1 * MS, h.SdkDid("c1", "r1", "fence"))) == ["fence"]
    acts = ladder.step(5 * MS, h.RunEnded("r1"))
    assert names(acts) == ["unwind", "Mark", "Revoke", "revoke", "obeyed!"]
    assert isinstance(acts[-1], h.Report)
    assert "1 other run(s)" in acts[-1].detail
    assert not ladder.halting


def test_one_run_of_several_that_goes_on_takes_its_process_with_it_and_this_is_said() -> None:
    ladder = unit("r1", "r2", sdk=True)
    ladder.step(0, order("halt", "r1"))
    acts = ladder.step(LIMITS.unwind_ms * MS, h.Tick())
    acts += ladder.step(2_100 * MS, h.Tick())
    acts += ladder.step(2_101 * MS, h.Froze(True))
    marks = [act for act in acts if isinstance(act, h.Mark)]
    assert [mark.run_id for mark in marks] == ["r1", "r2"]
    assert "shares its process" in marks[1].reason
    assert any("r2" in act.detail for act in acts if isinstance(act, h.Report))


def test_halting_a_run_halts_those_it_began() -> None:
    ladder = unit("r1")
    ladder.step(0, h.RunBegan("child", "r1"))
    ladder.step(0, h.SdkChanged(1))
    acts = ladder.step(0, order("halt", "r1"))
    told = {act.run_id for act in acts if isinstance(act, h.Tell)}
    assert told == {"r1", "child"}
    assert ladder.halting


def test_a_halt_of_what_has_ended_is_obeyed_already() -> None:
    ladder = unit()
    ladder.step(0, h.Died())
    ladder.step(0, h.Gone())
    assert names(ladder.step(1, order("halt", "r1"))) == ["delivered", "obeyed!"]
    assert names(ladder.step(2, order("pause", "r1", command="c2"))) == ["delivered", "refused"]


def test_what_outlives_its_program_is_killed_before_a_halt_is_confirmed() -> None:
    ladder = unit()
    ladder.step(0, h.Died())
    assert names(ladder.step(1, order("halt", "r1"))) == ["delivered", "Kill"]
    assert names(ladder.step(2, order("halt", "r1", command="c2"))) == ["delivered"]
    assert names(ladder.step(3, h.Killed((77,)))) == ["failed", "failed", "Kill"]
    acts = names(ladder.step(4, h.Killed(())))
    assert acts.count("obeyed!") == 2


def test_a_process_that_ended_its_run_in_code_and_goes_on_is_halted_none_the_less() -> None:
    ladder = unit(sdk=True)
    ladder.step(0, h.RunEnded("r1"))
    ladder.step(0, h.SdkChanged(0))
    assert names(ladder.step(1, order("halt", "r1")))[:3] == ["delivered", "Tell", "Freeze"]
    acts = names(ladder.step(2, h.Froze(True)))
    assert acts[:2] == ["Mark", "freeze!"]


def test_a_run_that_ended_in_code_among_others_is_not_confirmed_by_its_word() -> None:
    ladder = unit("r1", "r2", sdk=True)
    ladder.step(0, h.RunEnded("r1"))
    assert names(ladder.step(1, order("halt", "r1"))) == ["delivered", "obeyed"]
    assert not ladder.halting
    acts = names(ladder.step(2, order("halt", "r1", "r2", command="c2")))
    assert "obeyed" not in acts
    assert ladder.halting


def test_other_verbs_go_to_the_agents_code_or_are_refused() -> None:
    ladder = unit()
    assert names(ladder.step(0, order("inject", "r1"))) == ["delivered", "refused"]
    ladder.step(0, h.SdkChanged(1))
    acts = ladder.step(0, order("inject", "r1", epoch=2, command="c2", arguments={"text": "stop"}))
    assert names(acts) == ["delivered", "Tell"]
    assert names(ladder.step(1, h.SdkDid("c2", "r1", "obeyed"))) == ["obeyed"]


def test_a_process_that_ends_under_a_pause_says_so() -> None:
    ladder = unit(sdk=True)
    ladder.step(0, order("pause", "r1"))
    acts = ladder.step(1, h.Died())
    assert names(acts) == ["failed"]
    assert ladder.wake_at_ns is None
