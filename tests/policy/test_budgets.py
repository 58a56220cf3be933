"""Calls at once do not each believe that what is left is theirs."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from checkrein.policy import budgets as module
from checkrein.policy.budgets import Reservations, Spent
from checkrein.policy.types import Budgets


def test_what_is_reserved_counts_until_it_is_settled() -> None:
    reserved, spent = Reservations(), Spent()
    limits = Budgets(tokens=100, usd=1.0)
    assert reserved.over(limits, spent) == ""
    reserved.reserve("a", 99, 0.5)
    assert reserved.over(limits, spent) == ""
    reserved.reserve("b", 1, 0.1)
    assert reserved.over(limits, spent) == "tokens"
    reserved.settle("a")
    spent.tokens += 40
    assert reserved.over(limits, spent) == ""
    reserved.reserve("c", 1, 0.9)
    assert reserved.over(limits, spent) == "usd"
    reserved.settle("b")
    reserved.settle("c")
    assert (reserved.tokens, reserved.usd, len(reserved)) == (0, 0.0, 0)


def test_the_same_call_twice_reserves_and_settles_once() -> None:
    reserved = Reservations()
    reserved.reserve("a", 10, 0.1)
    reserved.reserve("a", 20, 0.2)
    assert reserved.tokens == 20
    reserved.settle("a")
    reserved.settle("a")
    reserved.settle("never seen")
    assert (reserved.tokens, reserved.usd) == (0, 0.0)


def test_calls_that_never_come_back_make_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESERVATIONS_MAX", 4)
    reserved = Reservations()
    for number in range(10):
        reserved.reserve(f"c{number}", 1, 0.0)
    assert len(reserved) == 4 + 1  # four by name, and one for all before them
    assert reserved.tokens == 10
    for number in range(10):
        reserved.settle(f"c{number}")
    assert reserved.tokens == 10 - 4


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 200))
def test_calls_at_once_go_over_by_less_than_one(sizes: list[int], limit: int) -> None:
    reserved, spent, limits = Reservations(), Spent(), Budgets(tokens=limit)
    begun: list[int] = []
    for number, size in enumerate(sizes):
        if reserved.over(limits, spent) or spent.tokens >= limit:
            break
        reserved.reserve(str(number), size, 0.0)
        begun.append(size)
    assert sum(begun[:-1]) < limit


class Schedules(RuleBasedStateMachine):
    """Any schedule of calls: what is spent in the end is over the limit by less than one call."""

    def __init__(self) -> None:
        super().__init__()
        self.reserved, self.spent = Reservations(), Spent()
        self.limits = Budgets(tokens=300)
        self.flying: dict[str, int] = {}
        self.count = 0
        self.largest = 0

    @rule(size=st.integers(1, 120))
    def begin(self, size: int) -> None:
        if self.spent.tokens >= 300 or self.reserved.over(self.limits, self.spent):
            return
        self.count += 1
        self.flying[str(self.count)] = size
        self.largest = max(self.largest, size)
        self.reserved.reserve(str(self.count), size, 0.0)

    @rule(chance=st.randoms(use_true_random=False))
    def end(self, chance: Random) -> None:
        if self.flying:
            call = chance.choice(sorted(self.flying))
            self.spent.tokens += chance.randint(0, self.flying.pop(call))
            self.reserved.settle(call)

    @invariant()
    def holds(self) -> None:
        assert self.reserved.tokens == sum(self.flying.values())
        assert self.spent.tokens + self.reserved.tokens < 300 + max(1, self.largest)


TestSchedules = Schedules.TestCase
