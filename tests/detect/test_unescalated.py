"""Calls about which somebody should have been told, and nobody was."""

from typing import Any

import pytest

from checkrein.detect.types import Context, Observation
from checkrein.detect.unescalated import Unescalated
from checkrein.events.types import Base, EscalationRaised, ToolArguments, ToolInvoked
from checkrein.policy.pact import load
from tests.detect.made import Run

PACT = load(
    """
pact: p
tools:
  refund: {kind: compensable}
escalate:
  - {when: args.cents > 4000 or confidence < 0.5, to: oncall, within: 5m}
""",
    "the test's pact",
)


def call(run: Run, cents: Any, call_id: str, tool: str = "refund") -> list[Base]:
    arguments = {"cents": cents}
    return [
        ToolArguments(**run.common(), call_id=call_id, tool=tool, arguments=arguments),
        ToolInvoked(**run.common(), call_id=call_id, tool=tool),
    ]


def raised(run: Run, to: str = "oncall") -> Base:
    return EscalationRaised(**run.common(), escalation_id=f"e{run.seq}", to=to, why="refund")


def seen(*events: Base, pact: Any = PACT) -> list[Observation]:
    detector = Unescalated()
    state = detector.start()
    found: list[Observation] = []
    for event in events:
        found += detector.observe(state, event, Context(pact=pact, now_ns=event.ts))
    return found


def test_a_call_that_was_not_told_of_is_a_breach() -> None:
    run = Run()
    (found,) = seen(*call(run, 5000, "c1"))
    assert found.level == "breach"
    assert "`refund` was called where the pact says `args.cents > 4000" in found.why
    assert "oncall was not told" in found.why


def test_one_that_was_is_none() -> None:
    run = Run()
    before = raised(run)
    assert seen(before, *call(run, 5000, "c1"), *call(run, 5000, "c2")) == []
    assert seen(*call(run, 4000, "c1")) == []


def test_each_different_call_owes_its_own() -> None:
    run = Run()
    events = [raised(run), *call(run, 5000, "c1"), *call(run, 6000, "c2")]
    assert len(seen(*events)) == 1
    assert len(seen(*events, raised(run), *call(run, 7000, "c3"))) == 1


def test_an_escalation_to_somebody_else_does_not_count() -> None:
    run = Run()
    assert len(seen(raised(run, "lead"), *call(run, 5000, "c1"))) == 1


@pytest.mark.parametrize("cents", ["many", None, [1]])
def test_what_the_condition_cannot_read_says_nothing(cents: Any) -> None:
    assert seen(*call(Run(), cents, "c1")) == []


def test_without_duties_nothing_is_owed() -> None:
    pact = load("pact: q\n", "the test's pact")
    assert seen(*call(Run(), 5000, "c1"), pact=pact) == []


def test_what_is_kept_is_bounded() -> None:
    run, detector = Run(), Unescalated()
    state = detector.start()
    for n in range(2_000):
        for event in (raised(run), *call(run, 5000 + n, f"c{n}")):
            detector.observe(state, event, Context(pact=PACT, now_ns=event.ts))
        first, _ = call(run, 9000 + n, f"open{n}")
        detector.observe(state, first, Context(pact=PACT, now_ns=first.ts))
    assert len(state.open) <= 64
    assert len(state.owed["oncall"]) <= 512
