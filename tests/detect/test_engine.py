"""The engine: one signal for one thing, halts for the right reasons, bounds, and failures."""

from typing import Any

import msgspec
import pytest

from checkrein.detect.base import Observations, PerRun
from checkrein.detect.catalogue import detectors
from checkrein.detect.engine import ENDED_MAX, Engine
from checkrein.detect.types import Context
from checkrein.events.types import StepStart
from checkrein.policy.pact import default_pact, load
from checkrein.policy.types import Pact
from tests.detect.loops import Made
from tests.detect.made import SECOND_NS, Run, Watched, halts, signals


class _None(msgspec.Struct):
    pass


class Broken(PerRun):
    name = "broken"
    state_type = _None
    handles = (StepStart,)
    ticks = True

    def observe(self, state: Any, event: Any, context: Context) -> Observations:
        raise KeyError("oops")

    def tick(self, state: Any, context: Context) -> Observations:
        raise ValueError("again")


def default_for(agent: str, environment: str, version: str, at_ns: int) -> Pact:
    return default_pact()


def test_two_different_breaches_within_ten_minutes_ask_for_one_halt() -> None:
    run, seen = Run(), Watched()
    seen.see(run.starts(), run.refused("tools", "tools.pact", "wire"))
    assert not halts(seen.said)
    for number in range(6):
        seen.see(run.calls(Made("get", {"n": number}, f"503 {number}", failed=True)))
    (halt,) = halts(seen.said)
    assert "two breaches: scope" in halt.reason
    assert "tool-failure" in halt.reason
    assert len(halt.signal_ids) == 2
    seen.see([run.refused("loops", "loops.same_call", "x", "TERMINAL")])
    assert len(halts(seen.said)) == 1, "asked once"


def test_breaches_far_apart_do_not_add_up() -> None:
    run, seen = Run(), Watched()
    seen.see(run.starts(), run.refused("tools", "tools.pact", "wire"))
    run.ts += 601 * SECOND_NS
    for number in range(6):
        seen.see(run.calls(Made("get", {"n": number}, f"503 {number}", failed=True)))
    assert not halts(seen.said)


def test_a_detector_that_errs_is_named_and_takes_nothing_down() -> None:
    told: list[tuple[str, str]] = []
    engine = Engine((Broken(), *detectors()), default_for, lambda *said: told.append(said))
    run = Run()
    engine.observe(run.steps())
    engine.tick(run.ts)
    found = engine.observe(run.refused("tools", "tools.pact", "wire"))
    assert [each.detector for each in signals(found)] == ["scope"]
    assert [name for name, _ in told] == ["broken", "broken"]
    assert "KeyError: 'oops'" in told[0][1]
    assert engine.error_count == 2


def test_runs_are_bounded_and_forgetting_is_said() -> None:
    told: list[tuple[str, str]] = []
    engine = Engine(detectors(), default_for, lambda *said: told.append(said), runs_max=50)
    for number in range(1, 201):
        run = Run(number)
        engine.observe(run.starts())
        engine.observe(run.steps())
    assert len(engine.runs) == 50
    assert engine.evicted_count == 150
    assert "more than 50 runs" in told[0][1]


def test_keys_of_a_detector_are_bounded() -> None:
    engine = Engine(detectors(), default_for, keys_max=10)
    for number in range(1, 40):
        run = Run(number, agent=f"agent-{number}")
        engine.observe(run.hears_model(10))
    assert all(len(states) <= 10 for states in engine._states.values())
    assert engine.evicted_count


def test_ended_runs_leave_nothing_but_a_bounded_memory() -> None:
    engine = Engine(detectors(), default_for)
    for number in range(1, ENDED_MAX + 100):
        run = Run(number)
        for event in (run.starts(), *run.calls(Made("a", {}, "x" * 200)), run.ends()):
            engine.observe(event)
    assert len(engine.runs) == ENDED_MAX
    per_run = [each.name for each in detectors() if each.per_run]
    assert all(not engine._states[name] for name in per_run)


def test_what_comes_after_the_end_opens_nothing() -> None:
    run, seen = Run(), Watched()
    seen.see(run.starts(), run.ends())
    seen.see(run.refused("tools", "tools.pact", "wire"), run.beats())
    assert not signals(seen.said, "scope")


def test_a_pact_that_comes_late_is_taken_up() -> None:
    strict = load("pact: strict\ntools: {search: }")
    run, seen = Run(), Watched()
    seen.see(run.starts(pact="strict", pact_version=strict.version))
    seen.engine.pact_changed("bot", "test", load("pact: other\ntools: {}"))
    seen.see(run.calls(Made("wire", {}, "x")))
    assert not seen.said
    seen.engine.pact_changed("bot", "test", strict)
    seen.see(run.calls(Made("wire", {}, "y")))
    assert [each.detector for each in signals(seen.said)] == ["unknown-tool"]


def test_a_signal_heard_again_is_not_said_again_and_still_counts() -> None:
    run, first, second = Run(), Watched(), Watched()
    events = [run.starts(), run.refused("tools", "tools.pact", "wire")]
    (signal,) = signals(first.see(*events))
    second.see(events[0])
    assert second.engine.heard(signal) == []
    assert not second.see(events[1])
    failing = [run.calls(Made("get", {"n": n}, f"503 {n}", failed=True)) for n in range(6)]
    assert halts(second.see(*failing)), "the breach it was told of counts"


def test_a_runaway_that_was_said_before_a_restart_is_halted_after_it() -> None:
    run, first, second = Run(), Watched(), Watched()
    events = [run.starts(), run.refused("budgets", "budgets.steps", "x", "TERMINAL")]
    (signal,) = signals(first.see(*events))
    second.see(events[0])
    assert [halt.run_id for halt in second.engine.heard(signal)] == [run.run_id]  # type: ignore[union-attr]


def test_a_snapshot_of_another_kind_is_refused() -> None:
    engine = Engine(detectors(), default_for)
    with pytest.raises(ValueError, match="not a snapshot"):
        engine.restore(b"\xc1nonsense")


def test_a_detector_whose_state_changed_starts_anew_and_says_so() -> None:
    run, seen = Run(), Watched()
    seen.see(run.starts(), run.steps(), run.asks_model())
    kept = msgspec.msgpack.decode(seen.engine.snapshot())
    kept["states"]["budget"] = [[run.run_id, {"spent": "of another form"}]]
    told: list[str] = []
    engine = Engine(detectors(), default_for, lambda name, _: told.append(name))
    engine.restore(msgspec.msgpack.encode(kept))
    assert told == ["budget"]
    assert run.run_id in engine._states["unfinished"]
    assert not engine._states["budget"]
