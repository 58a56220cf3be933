"""Ways past the gateway become signals."""

import pytest

from checkrein.detect.catalogue import detectors
from checkrein.detect.engine import Engine
from checkrein.events.refusals import bypass
from checkrein.events.types import ScopeDecision, Signal
from checkrein.policy.pact import default_pact
from tests.detect.made import Run


@pytest.fixture
def engine() -> Engine:
    return Engine(detectors(), lambda *about: default_pact())


def seen(engine: Engine, run: Run, kind: str, to: str, refused: bool) -> list[tuple[str, ...]]:
    event = ScopeDecision(**run.common(), **bypass(kind, to, 12, f"it went to {to}", refused))
    return [
        (each.detector, each.level, each.subject, each.why)
        for each in engine.observe(event)
        if isinstance(each, Signal)
    ]


def test_what_went_past_is_a_breach_and_is_told_once(engine: Engine) -> None:
    run = Run()
    told = ("bypass", "breach", "connection 192.0.2.1:443", "it went to 192.0.2.1:443")
    assert seen(engine, run, "connection", "192.0.2.1:443", False) == [told]
    assert seen(engine, run, "connection", "192.0.2.1:443", False) == []
    assert [one[2] for one in seen(engine, run, "datagram", "192.0.2.1:53", False)] == [
        "datagram 192.0.2.1:53"
    ]


@pytest.mark.parametrize(
    ("kind", "refused"), [("connection", True), ("name service", False), ("cpu", False)]
)
def test_what_was_not_let_through_or_is_only_strange_warns(
    engine: Engine, kind: str, refused: bool
) -> None:
    assert [one[:2] for one in seen(engine, Run(), kind, "x", refused)] == [("bypass", "warn")]


def test_other_decisions_are_none_of_its_business(engine: Engine) -> None:
    event = ScopeDecision(
        **Run().common(), call_id="", action={"kind": "tool", "name": "x", "arguments": None},
        verdict="deny", rule="tools", guard="tools",
    )  # fmt: skip
    told = [each for each in engine.observe(event) if isinstance(each, Signal)]
    assert {each.detector for each in told} == {"scope"}
