"""A purse spends what was leased to it, asks in time, and gives back."""

from typing import Any

import pytest

from checkrein.policy import ledger as module
from checkrein.policy.accounts import (
    NANO,
    NOTHING,
    UNKNOWN,
    Account,
    Amounts,
    Bound,
    Claim,
    Grant,
    Short,
    bounds_of,
    nano,
    shares,
)
from checkrein.policy.ledger import AHEAD_MAX, CLOSE_NS, IDLE_NS, Purse
from checkrein.policy.types import Budgets, Place, Shared

MONEY = Bound(Account("agent", "test", "bot", "2026-11-21"), (None, None, 10**9))
BOT = Bound(Account("hour", "test", "bot", "2026-11-21T06"), (100, None, None))
ROOM = Bound(Account("room", "test", "desk", "2026-11-21"), (None, 1000, None))
ONE = Amounts(tool_calls=1)


def grant(purse: Purse, granted: int, line: str = "", **more: Any) -> None:
    purse.hear([Grant(line or f"{purse.id}.1", Amounts(tool_calls=granted), **more)])


def reserve(purse: Purse, call: str = "c", amounts: Amounts = ONE, **more: Any) -> Short | None:
    return purse.reserve(call, (BOT,), amounts, more.pop("now_ns", 0), **more)


def only(purse: Purse, every: bool = False) -> Claim:
    _, (found,) = purse.claims(every)
    return found


def test_nothing_is_reserved_before_it_is_leased() -> None:
    purse = Purse("p")
    short = reserve(purse)
    assert short is not None
    assert (short.name, short.need, short.over, short.said) == ("hour.tool_calls", 1, False, None)
    assert purse.wants_asking
    assert only(purse).need == ONE
    grant(purse, 1)
    assert reserve(purse) is None
    assert reserve(purse, "d") is not None


def test_a_call_needs_every_account_and_takes_all_or_nothing() -> None:
    purse = Purse("p")
    amounts = Amounts(1, 50, 0)
    assert purse.reserve("c", (BOT, ROOM), amounts, 0) is not None
    _, claims = purse.claims()
    assert {one.account.scope for one in claims} == {"hour", "room"}
    purse.hear([Grant("p.1", Amounts(5, 0, 0))])
    assert purse.reserve("c", (BOT, ROOM), amounts, 0) is not None
    assert purse.reserve("d", (BOT,), Amounts(5, 0, 0), 0) is None, "nothing was taken by halves"
    purse.settle("d", NOTHING)
    purse.hear([Grant("p.2", Amounts(0, 50, 0))])
    assert purse.reserve("c", (BOT, ROOM), amounts, 0) is None


def test_what_is_settled_is_used_and_what_is_not_known_costs_what_was_reserved() -> None:
    purse = Purse("p")
    reserve(purse, "a", Amounts(tool_calls=10))
    grant(purse, 20)
    for call, actual in (("a", (4, 7, None)), ("b", UNKNOWN)):
        assert reserve(purse, call, Amounts(10, 0, 3)) is None
        purse.settle(call, actual)
        purse.settle(call, actual)
    assert only(purse, every=True).used == Amounts(14, 7, 6)


def test_an_old_answer_does_no_harm() -> None:
    purse = Purse("p")
    reserve(purse)
    grant(purse, 5)
    grant(purse, 1)
    purse.hear([Grant("another.1", Amounts(9, 9, 9))])
    assert reserve(purse, amounts=Amounts(tool_calls=5)) is None


def test_it_asks_before_it_is_empty_and_twice_as_much_each_time() -> None:
    purse = Purse("p")
    reserve(purse)
    granted, blocked, asked = 0, 0, 0
    calls = 0
    while calls < 2_000:
        if reserve(purse, str(calls)) is None:
            purse.settle(str(calls), ONE)
            calls += 1
        else:
            blocked += 1
        if purse.wants_asking:
            asked += 1
            _, claims = purse.claims()
            granted = claims[0].want.tool_calls
            assert claims[0].want.tool_calls - claims[0].used.tool_calls <= AHEAD_MAX + 2
            grant(purse, granted)
    assert blocked <= 2
    assert asked <= 2_000 / (AHEAD_MAX / 2) + 10


def test_what_is_not_bounded_is_not_scarce() -> None:
    purse = Purse("p")
    cost = Amounts(1, 100, 1000)
    purse.reserve("c", (MONEY,), cost, 0)
    for number in range(6):
        _, (claim,) = purse.claims()
        purse.hear([Grant("p.1", Amounts(0, 0, claim.want.nano_usd))])
        calls = 0
        while not purse.wants_asking:
            assert purse.reserve(f"{number}/{calls}", (MONEY,), cost, 0) is None
            purse.settle(f"{number}/{calls}", cost)
            calls += 1
    assert calls > 10


def test_over_says_whether_waiting_can_help() -> None:
    purse = Purse("p")
    reserve(purse)
    grant(purse, 0, spent=Amounts(tool_calls=60), charged=Amounts(tool_calls=100), short=True)
    short = reserve(purse)
    assert short is not None
    assert not short.over, "others hold 40, and may give back"
    grant(purse, 0, spent=Amounts(tool_calls=100), charged=Amounts(tool_calls=100), short=True)
    short = reserve(purse)
    assert short is not None
    assert short.over
    raised = Amounts(tool_calls=7)
    grant(purse, 0, spent=Amounts(tool_calls=100), charged=Amounts(tool_calls=100), raised=raised)
    short = reserve(purse)
    assert short is not None
    assert (short.over, short.limit) == (False, 107)


def test_while_others_wait_the_rest_goes_back_with_every_settlement() -> None:
    purse = Purse("p")
    reserve(purse)
    grant(purse, 50)
    assert reserve(purse, amounts=Amounts(tool_calls=10)) is None
    grant(purse, 50, short=True)
    claim = only(purse)
    assert claim.returned.tool_calls == 40
    purse.settle("c", (3, 0, 0))
    claim = only(purse)
    assert (claim.used.tool_calls, claim.returned.tool_calls) == (3, 47)


def test_a_recall_gives_back_what_is_not_reserved() -> None:
    purse = Purse("p")
    reserve(purse)
    grant(purse, 50)
    assert reserve(purse, amounts=Amounts(tool_calls=10)) is None
    purse.recall({"p.1", "another"})
    assert purse.wants_asking
    assert only(purse).returned.tool_calls == 40
    assert reserve(purse, "d") is not None


def test_idle_lines_give_back_and_are_closed_in_the_end() -> None:
    purse = Purse("p")
    reserve(purse)
    grant(purse, 50)
    purse.tidy(IDLE_NS - 1)
    assert only(purse, every=True).returned == NOTHING
    assert reserve(purse) is None
    purse.given_up([BOT])
    purse.tidy(IDLE_NS)
    assert only(purse, every=True).returned == NOTHING, "a call is under way"
    purse.settle("c", ONE)
    purse.tidy(IDLE_NS)
    assert only(purse).returned.tool_calls == 49
    purse.tidy(CLOSE_NS)
    closing = only(purse)
    assert closing.close
    assert only(purse) == closing, "until it is heard"
    purse.hear([Grant("p.1", closed=True)])
    assert not purse.holds
    reserve(purse)
    assert only(purse).line == "p.2"


def test_at_the_end_calls_under_way_cost_what_they_reserved() -> None:
    purse = Purse("p")
    reserve(purse)
    grant(purse, 50)
    assert reserve(purse, amounts=Amounts(tool_calls=10)) is None
    purse.close()
    closing = only(purse)
    assert (closing.used.tool_calls, closing.close) == (10, True)


def test_alone_the_limit_is_the_processs_own() -> None:
    purse = Purse("p")
    for number in range(100):
        assert reserve(purse, str(number), alone=True) is None
    short = reserve(purse, "last", alone=True)
    assert short is not None
    assert only(purse).used == NOTHING


def test_two_pacts_of_one_account_are_two_lines() -> None:
    purse = Purse("p")
    stricter = Bound(BOT.account, (5, None, None))
    reserve(purse)
    purse.reserve("d", (stricter,), ONE, 0)
    _, claims = purse.claims()
    assert [(one.line, one.ceiling[0]) for one in claims] == [("p.1", 100), ("p.2", 5)]


def test_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINES_MAX", 2)
    purse = Purse("p")
    for number in range(4):
        bound = Bound(Account("task", "", str(number), ""), (1, None, None))
        purse.reserve(str(number), (bound,), ONE, number)
    _, claims = purse.claims()
    assert sum(not one.close for one in claims) == 2


def test_the_accounts_of_a_run() -> None:
    budgets = Budgets(
        task=Shared(tokens=5), agent=Shared(usd=1.5), room=Shared(tool_calls=3), hour=Shared(usd=1)
    )
    place = Place(agent="bot", room="desk", environment="test", task_id="t")
    at = 1_795_240_800 * NANO  # 2026-11-21 06:00 UTC
    found = {bound.account.scope: bound for bound in bounds_of(budgets, place, at)}
    assert found["hour"].account == Account("hour", "test", "bot", "2026-11-21T06")
    assert found["agent"].account == Account("agent", "test", "bot", "2026-11-21")
    assert found["room"].account == Account("room", "test", "desk", "2026-11-21")
    assert found["task"].account == Account("task", "test", "t", "")
    assert found["agent"].ceiling == (None, None, 1_500_000_000)
    roomless = bounds_of(budgets, Place(agent="bot"), at)
    assert {bound.account.scope for bound in roomless} == {"hour", "agent"}
    assert shares(budgets)
    assert not shares(Budgets(usd=3.0))
    assert bounds_of(Budgets(), place, at) == ()


def test_money_is_rounded_up() -> None:
    assert nano(1e-12) == 1
    assert nano(0.0) == 0
