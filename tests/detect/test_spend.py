"""An hour that costs a multiple of the usual one is told of, once."""

from typing import Any

import pytest

from checkrein.detect.spend import FLOOR_USD, HOURS_KEPT, HOURS_MIN, Spend
from checkrein.detect.types import Context, Observation
from checkrein.events.types import ModelResponse
from checkrein.policy.types import Budgets, Pact
from tests.detect.made import START_NS, Run

HOUR_NS = 3_600_000_000_000
FIRST_NS = START_NS // HOUR_NS * HOUR_NS


class Spender:
    def __init__(self, alert: float | None = None) -> None:
        self.run, self.detector = Run(), Spend()
        self.state = self.detector.start()
        self.pact = Pact(budgets=Budgets(alert=alert))

    def spends(
        self, hour: int, usd: float | None, calls: int = 1, **more: Any
    ) -> list[Observation]:
        found: list[Observation] = []
        for number in range(calls):
            common = self.run.common() | {"ts": FIRST_NS + hour * HOUR_NS + number}
            fields: dict[str, Any] = {"usd": None if usd is None else usd / calls} | more
            event = ModelResponse(**common, call_id="c", **({"model": "m"} | fields))
            context = Context(pact=self.pact, now_ns=event.ts)
            found += self.detector.observe(self.state, event, context)
        return found

    def usual(self, hours: int = HOURS_MIN, usd: float = 1.0) -> int:
        for hour in range(hours):
            assert not self.spends(hour, usd, calls=4)
        return hours


def test_three_times_the_usual_hour_is_told_once() -> None:
    agent = Spender()
    hour = agent.usual()
    assert not agent.spends(hour, 2.99, calls=10)
    (found,) = agent.spends(hour, 1.0, calls=5)
    assert (found.level, found.runaway, found.limit) == ("warn", False, 3.0)
    assert "1 of its usual hour (median of 8 hours)" in found.why
    assert found.run_id == agent.run.run_id
    assert not agent.spends(hour, 100.0, calls=3)
    (again,) = agent.spends(hour + 1, 4.0)
    assert again.subject != found.subject


@pytest.mark.parametrize(("alert", "usd", "told"), [(2.0, 2.5, 1), (10.0, 9.0, 0), (1.5, 1.4, 0)])
def test_the_pact_says_the_multiple(alert: float, usd: float, told: int) -> None:
    agent = Spender(alert)
    assert len(agent.spends(agent.usual(), usd)) == told


def test_nothing_is_expected_before_there_is_history() -> None:
    agent = Spender()
    hour = agent.usual(HOURS_MIN - 1)
    assert not agent.spends(hour, 1000.0)


def test_little_money_is_no_matter_unless_the_pact_says_so() -> None:
    agent = Spender()
    assert not agent.spends(agent.usual(usd=0.001), FLOOR_USD)
    agent = Spender(alert=3.0)
    assert agent.spends(agent.usual(usd=0.001), FLOOR_USD)


def test_one_dear_hour_does_not_make_the_next_usual() -> None:
    agent = Spender()
    hour = agent.usual()
    agent.spends(hour, 50.0)
    assert agent.spends(hour + 1, 5.0)


def test_idle_hours_and_late_events_do_not_count() -> None:
    agent = Spender()
    agent.usual()
    assert agent.spends(500, 4.0)
    assert not agent.spends(3, 1000.0)
    assert agent.state.usd == 4.0


def test_calls_without_a_price_and_failed_ones_do_not_count() -> None:
    agent = Spender()
    agent.spends(0, None)
    agent.spends(0, None, error="refused")
    assert agent.state.hour == -1
    agent.spends(
        0, None, provider="openai", model="gpt-4o-mini", input_tokens=1000, output_tokens=1000
    )
    assert agent.state.usd > 0


def test_the_history_is_bounded() -> None:
    agent = Spender()
    agent.usual(HOURS_KEPT + 20)
    assert len(agent.state.before) == HOURS_KEPT
