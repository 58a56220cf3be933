"""What the buses refused becomes signals, here and nowhere else."""

import pytest

from checkrein.detect.catalogue import detectors
from checkrein.detect.engine import Engine
from checkrein.events.refusals import FALSE_ORDER, FORGERY, refused
from checkrein.events.types import RunEnd, ScopeDecision, Signal
from checkrein.policy.pact import default_pact
from tests.detect.made import Run


@pytest.fixture
def engine() -> Engine:
    return Engine(detectors(), lambda *about: default_pact())


def decision(run: Run, rule: str, tried: str) -> ScopeDecision:
    return refused(run.common(), rule, "bus", tried, f"may not {tried}")


def seen(engine: Engine, *events: ScopeDecision | RunEnd) -> list[tuple[str, str, str]]:
    return [
        (each.detector, each.level, each.subject)
        for event in events
        for each in engine.observe(event)
        if isinstance(each, Signal)
    ]


def test_each_kind_of_attempt_is_told_once_a_run(engine: Engine) -> None:
    run, other = Run(), Run(number=2)
    told = seen(
        engine,
        decision(run, FORGERY, "publish ev.x.1"),
        decision(run, FORGERY, "publish ev.x.1"),
        decision(run, FORGERY, "publish cmd.y"),
        decision(other, FORGERY, "publish ev.x.1"),
    )
    assert told == [
        ("forgery", "breach", "publish ev.x.1"),
        ("forgery", "breach", "publish cmd.y"),
        ("forgery", "breach", "publish ev.x.1"),
    ]


def test_the_end_of_a_run_hides_no_forgery(engine: Engine) -> None:
    run = Run()
    end = RunEnd(**run.common(), status="completed")
    told = seen(engine, end, decision(run, FORGERY, "publish ev.x.1"))
    assert told == [("forgery", "breach", "publish ev.x.1")]


def test_orders_that_cross_on_the_way_wake_nobody(engine: Engine) -> None:
    run = Run()
    tried = ("forged", "expired", "old epoch", "halted")
    told = seen(engine, *(decision(run, FALSE_ORDER, each) for each in tried))
    assert told == [
        ("false-order", "breach", "forged"),
        ("false-order", "breach", "expired"),
        ("false-order", "warn", "old epoch"),
        ("false-order", "warn", "halted"),
    ]


def test_whom_a_false_order_reaches_is_not_to_blame(engine: Engine) -> None:
    blaming = {each.name: each.blames for each in detectors()}
    assert blaming["forgery"]
    assert not blaming["false-order"]
