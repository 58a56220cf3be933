"""Loops are found by what they do not bring; what only repeats is left alone."""

from random import Random

import pytest
from tests.detect.loops import LOOPS, NOT_LOOPS, Class, Made

from checkrein.policy import loop
from checkrein.policy.guard import RunGuard
from checkrein.policy.likeness import is_empty, masked, near, words
from checkrein.policy.pact import default_pact
from checkrein.policy.types import Action, Loops

SEEDS = range(20)


def refused_at(made: Class, seed: int) -> int | None:
    """The number of the first call, from 1, that the guard refuses."""
    guard = RunGuard(default_pact())
    for number, each in enumerate(made(Random(seed)), 1):
        action = Action(kind="tool", name=each.tool, arguments=each.arguments, call_id=str(number))
        if guard.judge(action, number * 10**9).kind == "deny":
            return number
        guard.returned(action, each.result, "failed" if each.failed else "", number * 10**9)
    return None


@pytest.mark.parametrize("name", LOOPS)
def test_every_kind_of_loop_is_refused_soon(name: str) -> None:
    at = [refused_at(LOOPS[name], seed) for seed in SEEDS]
    latest = 9 if "cycle" in name else 5
    assert all(number is not None and number <= latest for number in at), at


@pytest.mark.parametrize("name", ["exact", "volatile", "failing"])
def test_the_fourth_equal_call_is_the_refused_one(name: str) -> None:
    assert {refused_at(LOOPS[name], seed) for seed in SEEDS} == {4}


@pytest.mark.parametrize("name", NOT_LOOPS)
def test_what_only_looks_like_a_loop_is_left_alone(name: str) -> None:
    assert [refused_at(NOT_LOOPS[name], seed) for seed in SEEDS] == [None] * len(SEEDS)


def test_near_duplicates_outside_the_window_do_not_count() -> None:
    loops = Loops()
    state = loop.LoopState()
    gap_ns = round((loops.similar_window_s + 1) * 1e9)
    for number in range(4):
        call = loop.call_of(
            "search", {"q": f"late refund policy {'abcd'[number]}"}, number * gap_ns
        )
        assert loop.standing(state, call, loops).similar <= 1
        loop.returned(state, call, "the very same long answer " * 4, failed=False)


def test_state_stays_within_its_bound() -> None:
    state = loop.LoopState()
    for number in range(2000):
        call = loop.call_of("t", {"n": number}, number)
        loop.returned(state, call, f"a result with the number {number} in it", failed=False)
    assert len(state.ring) == loop.RING
    assert len(state.seen) == loop.SEEN_MAX


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ({"q": "refund policy for late delivery"}, {"q": "late delivery refund policies"}, True),
        ({"q": "refund policy for late delivery"}, {"q": "late delivery refunds policy"}, True),
        ({"id": "ORD-1001"}, {"id": "ORD-1002"}, False),
        ({"q": "x", "page": 2}, {"q": "x", "page": 3}, False),
        ({"q": "x", "page": 2}, {"page": 2.0, "q": "X"}, True),
        ({"path": "src/a.py"}, {"path": "src/b.py"}, False),
        ({}, {}, True),
    ],
)
def test_near(one: dict[str, object], other: dict[str, object], alike: bool) -> None:
    first, second = (words(loop.call_of("t", each, 0).text) for each in (one, other))
    assert near(first, second) is alike


def test_what_changes_by_itself_is_masked() -> None:
    one = masked(b'{"a":1,"at":"2026-11-21t10:00:00z","request_id":"x1","took":"12 ms"}')
    other = masked(b'{"a":1,"at":"2026-11-22t23:10:59z","request_id":"zz","took":"7 ms"}')
    assert one == other
    assert one != masked(b'{"a":2,"at":"2026-11-21t10:00:00z","request_id":"x1","took":"12 ms"}')


@pytest.mark.parametrize(
    ("text", "empty"),
    [(b"[]", True), (b'"no results found"', True), (b'"file x not found"', True),
     (b'"ok"', False), (b"null", False), (b'"none"', False), (b'"now 3 items"', False)],
)  # fmt: skip
def test_what_counts_as_nothing_found(text: bytes, empty: bool) -> None:
    assert is_empty(text) is empty


def test_refused_calls_do_not_feed_the_loop() -> None:
    guard = RunGuard(default_pact())
    made = Made("search", {"q": "x"}, "the very same long answer, which is not news at all")
    for number in range(10):
        action = Action(kind="tool", name=made.tool, arguments=made.arguments, call_id=str(number))
        if guard.judge(action, number + 1).kind == "allow":
            guard.returned(action, made.result, "", number + 1)
    assert len(guard.loops.ring) == 3
