"""What is remembered is bounded, and what had to be let go is taken the strict way."""

import sys
from typing import Any

import pytest
from tests.policy.sequences.acting import SECOND_NS, Agent

from checkrein.policy.sequences.operands import matches
from checkrein.policy.sequences.reading import read_rule
from checkrein.policy.sequences.tracks import (
    ENTRIES_MAX,
    KEYED_ENTRIES_MAX,
    KEYS_MAX,
    OPEN_MAX,
    Window,
)

RULES = (
    "deny pay unless formerly check(args.k == call.args.k) since edit(args.k == call.args.k)",
    "deny pay if once pay(args.k == call.args.k) within 1h",
    "ask pay if count pay within 24h > 1000000",
    "ask pay if sum args.n of pay(args.k == call.args.k) within 24h > 1000000",
    "deny pay unless count check(args.k == call.args.k) >= 1",
    "deny pay if edit since check within 1h",
)


def size_bytes(value: Any, seen: set[int]) -> int:
    """Of everything that hangs on a state; what the rules hold in common is not its own."""
    if id(value) in seen or type(value).__name__ in ("Track", "RLock", "type"):
        return 0
    seen.add(id(value))
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        return size + sum(size_bytes(k, seen) + size_bytes(v, seen) for k, v in value.items())
    if isinstance(value, str | bytes | int | float):
        return size
    if hasattr(value, "__iter__"):
        return size + sum(size_bytes(each, seen) for each in value)
    slots = [name for each in type(value).__mro__ for name in getattr(each, "__slots__", ())]
    return size + sum(size_bytes(getattr(value, name, None), seen) for name in slots)


def test_state_does_not_grow_with_what_happens() -> None:
    agent = Agent(*RULES)
    sizes = []
    for number in range(100_000):
        agent.now_ns += SECOND_NS
        tool = ("check", "edit", "pay", "pay")[number % 4]
        deed = agent.begins(tool, k=f"order-{number % 5000}", n=1)
        if number % 50:  # every fiftieth never comes back
            agent.ends(deed)
        if number in (24_999, 49_999, 99_999):
            sizes.append(size_bytes(agent.state, set()))
    assert agent.state.in_flight <= OPEN_MAX
    assert all(len(slot.by_key) <= KEYS_MAX + OPEN_MAX for slot in agent.state.slots if slot)
    assert sizes[0] > 100_000, "it measures something"
    assert sizes[2] < sizes[1] * 1.1
    assert sizes[2] < 6_000_000


def test_plans_for_tools_without_end_are_bounded() -> None:
    agent = Agent("deny * if count * > 1000000")
    for number in range(10_000):
        assert agent.uses(f"tool{number}") == "allow"
    assert len(agent.rules._plans) <= 4096


def test_once_denies_when_it_may_have_forgotten() -> None:
    agent = Agent("deny pay if once pay(args.k == call.args.k)")
    for number in range(KEYS_MAX):
        agent.did("pay", k=number)
    assert agent.asks("pay", k=-1) is None, "all are remembered"
    agent.did("pay", k=KEYS_MAX)
    found = agent.asks("pay", k=-1)
    assert found is not None
    assert "too many different values to remember them all" in found.reason
    found = agent.asks("pay", k=5)
    assert found is not None
    assert "too many" not in found.reason, "this one is remembered"


def test_once_within_denies_only_as_long_as_it_may_matter() -> None:
    agent = Agent("deny pay if once pay(args.k == call.args.k) within 10m")
    for number in range(KEYS_MAX + 1):
        agent.did("pay", k=number)
    assert agent.asks("pay", k=-1)
    agent.waits(601)
    assert agent.asks("pay", k=-1) is None


def test_formerly_denies_what_it_has_forgotten() -> None:
    agent = Agent("deny pay unless formerly check(args.k == call.args.k)")
    for number in range(KEYS_MAX + 1):
        agent.did("check", k=number)
    assert agent.asks("pay", k=1) is None
    found = agent.asks("pay", k=0)
    assert found is not None
    assert found.advice == "RETRYABLE"
    assert "too many different values" in found.reason
    agent.did("check", k=0)
    assert agent.asks("pay", k=0) is None


def test_a_count_by_key_adds_what_it_may_have_forgotten() -> None:
    agent = Agent("deny pay if count pay(args.k == call.args.k) > 3")
    for _ in range(2):
        agent.did("pay", k="often")
    for number in range(KEYS_MAX):
        agent.did("pay", k=number)
    assert agent.uses("pay", k="new") == "allow", "up to two are forgotten, and this is the third"
    found = agent.asks("pay", k="often")
    assert found is None
    agent.did("pay", k="often")
    found = agent.asks("pay", k="often")
    assert found is not None
    assert "up to 2 more" in found.reason


def test_what_is_in_flight_under_a_key_is_not_forgotten() -> None:
    agent = Agent(
        "deny ship unless formerly test(args.k == call.args.k) since edit(args.k == call.args.k)"
    )
    agent.begins("edit", k="mine")
    for number in range(KEYS_MAX + 10):
        agent.did("edit", k=number)
    agent.did("test", k="mine")
    assert agent.asks("ship", k="mine")
    agent.did("test", k="other")
    assert agent.asks("ship", k="other") is None, "whatever of it was forgotten had come back"


def test_calls_in_flight_beyond_the_bound_have_failed() -> None:
    agent = Agent("deny pay unless formerly check")
    deeds = [agent.begins("check") for _ in range(OPEN_MAX + 5)]
    assert agent.state.in_flight == OPEN_MAX
    agent.ends(deeds[0])
    assert agent.asks("pay")
    agent.ends(deeds[-1])
    assert agent.asks("pay") is None


def test_an_end_that_nobody_awaits_undoes() -> None:
    agent = Agent("deny ship unless formerly test since edit")
    agent.did("test")
    assert agent.asks("ship") is None
    agent.ends(agent.deed("edit"), ok=True)
    assert agent.asks("ship")


@pytest.mark.parametrize("late", [True, False])
def test_windows_are_exact_up_to_their_bound_and_strict_beyond(late: bool) -> None:
    span_ns = 1000 * SECOND_NS
    window = Window(span_ns, late, ENTRIES_MAX)
    times: list[int] = []
    now_ns = 0
    for number in range(30_000):
        now_ns += SECOND_NS // 20
        window.add(now_ns, 1, now_ns)
        times.append(now_ns)
        assert window.size <= ENTRIES_MAX
        if number % 500 == 0 or number < 50:
            exact = sum(1 for at in times if at >= now_ns - span_ns)
            slack = 20 * 1000 // (ENTRIES_MAX // 2) + 1
            if number < ENTRIES_MAX - 1:
                assert window.total == exact
            elif late:
                assert exact <= window.total <= exact + slack
            else:
                assert exact - slack <= window.total <= exact
    now_ns += span_ns + span_ns // 1000
    assert window.expire(now_ns) == 0
    window.add(now_ns, 1, now_ns)
    window.add(now_ns + 1, 1, now_ns + 1)
    assert window.size == 2, "once it is empty it is exact again"


def test_windows_under_keys_hold_less() -> None:
    agent = Agent("ask pay if count pay(args.k == call.args.k) within 24h > 1000000")
    for _ in range(3 * KEYED_ENTRIES_MAX):
        agent.waits(0.1)
        agent.did("pay", k=1)
    slot = agent.state.slots[0]
    assert slot is not None
    assert slot.by_key[1,].more.size <= KEYED_ENTRIES_MAX
    assert slot.by_key[1,].more.total == 3 * KEYED_ENTRIES_MAX


def test_globs_take_no_time_without_end() -> None:
    rule = read_rule(f"deny {'*a' * 60}b if once x")
    assert not matches(rule.tools, "a" * 2000, None, True)
