"""What each word of the language looks at, and what a refusal tells the agent."""

from typing import Any

import pytest
from tests.policy.sequences.acting import Agent

HOUR = 3600


def test_formerly_wants_a_success_in_time() -> None:
    agent = Agent("deny refund unless formerly verify_customer within 30m")
    found = agent.asks("refund")
    assert found is not None
    assert (found.kind, found.rule, found.advice) == ("deny", "sequence[0]", "RETRYABLE")
    assert "`verify_customer` must have succeeded within 30m first, and has not" in found.reason
    agent.did("verify_customer", ok=False)
    assert agent.asks("refund")
    begun = agent.begins("verify_customer")
    assert agent.asks("refund"), "in flight is not yet"
    agent.ends(begun)
    assert agent.asks("refund") is None
    agent.waits(30 * 60)
    assert agent.asks("refund") is None, "exactly 30m is within"
    agent.waits(0.001)
    found = agent.asks("refund")
    assert found is not None
    assert "that was 30m ago" in found.reason
    assert found.inputs == {"formerly verify_customer within 30m": pytest.approx(1800.001)}


def test_formerly_since_wants_it_after_the_last_of_the_other() -> None:
    agent = Agent("deny deploy unless formerly run_tests since edit_file")
    assert agent.asks("deploy")
    agent.did("run_tests")
    assert agent.asks("deploy") is None, "nothing was edited since"
    agent.did("edit_file", ok=False)
    assert agent.asks("deploy"), "a failed edit may have edited"
    agent.did("run_tests")
    assert agent.asks("deploy") is None
    edit = agent.begins("edit_file")
    found = agent.asks("deploy")
    assert found is not None
    assert "`edit_file` has not come back, or was called, since it did" in found.reason
    tests = agent.begins("run_tests")
    agent.ends(edit)
    agent.ends(tests)
    assert agent.asks("deploy"), "the tests began before the edit was over"
    agent.did("run_tests")
    assert agent.asks("deploy") is None


def test_what_is_tested_while_it_is_edited_is_not_tested() -> None:
    agent = Agent("deny deploy unless formerly run_tests since edit_file")
    edit = agent.begins("edit_file")
    agent.did("run_tests")
    assert agent.asks("deploy")
    agent.ends(edit)
    assert agent.asks("deploy")


def test_a_window_ends_behind_its_last_nanosecond() -> None:
    agent = Agent("deny a if count b within 10m >= 1")
    agent.did("b")
    agent.waits(600)
    assert agent.asks("a")
    agent.now_ns += 1
    assert agent.asks("a") is None


def test_bare_since_is_lifted_by_a_success_only() -> None:
    agent = Agent("deny deploy if edit_file since run_tests")
    assert agent.asks("deploy") is None
    agent.did("edit_file", ok=False)
    found = agent.asks("deploy")
    assert found is not None
    assert found.advice == "RETRYABLE"
    agent.did("run_tests", ok=False)
    assert agent.asks("deploy")
    agent.did("run_tests")
    assert agent.asks("deploy") is None
    tests = agent.begins("run_tests")
    agent.did("edit_file")
    agent.ends(tests)
    assert agent.asks("deploy"), "the tests began before the edit"


def test_never_before_and_once() -> None:
    agent = Agent("deny delete_* if never before backup", "deny notify if once notify")
    assert agent.uses("delete_user") == "deny"
    assert agent.uses("list_user") == "allow"
    agent.did("backup", ok=False)
    assert agent.uses("delete_user") == "deny"
    agent.did("backup")
    assert agent.uses("delete_user") == "allow"
    assert agent.uses("notify", ok=False) == "allow"
    found = agent.asks("notify")
    assert found is not None
    assert found.advice == "ESCALATE"
    assert "`notify` was called" in found.reason


def test_once_counts_calls_in_flight_and_forgets_in_time() -> None:
    agent = Agent("deny notify if once notify within 10m")
    agent.begins("notify")
    found = agent.asks("notify")
    assert found is not None
    assert found.advice == "WAIT"
    agent.waits(601)
    assert agent.asks("notify") is None


def test_count_takes_in_the_call_judged() -> None:
    agent = Agent("ask send_email if count send_email within 1h >= 3")
    assert [agent.uses("send_email") for _ in range(4)] == ["allow", "allow", "ask", "ask"]
    agent.waits(HOUR + 1)
    assert agent.uses("send_email") == "allow"
    agent.begins("send_email")
    found = agent.asks("send_email")
    assert found is not None
    assert found.advice == "WAIT"
    assert found.inputs == {"count send_email within 1h": 3, "limit": 3}


def test_sum_takes_in_the_call_judged_and_those_in_flight() -> None:
    agent = Agent("deny transfer if sum args.cents of transfer within 24h > 50000")
    assert agent.uses("transfer", cents=30_000) == "allow"
    agent.begins("transfer", cents=15_000)
    assert agent.asks("transfer", cents=5_000) is None
    found = agent.asks("transfer", cents=5_001)
    assert found is not None
    assert found.advice == "WAIT"
    assert found.inputs == {"sum args.cents of transfer within 24h": 50_001, "limit": 50_000}
    alone = agent.asks("transfer", cents=60_000)
    assert alone is not None
    assert alone.advice == "ESCALATE", "no waiting makes room for it"
    agent.waits(24 * HOUR + 1)
    assert agent.asks("transfer", cents=50_000) is None


def test_sums_of_money_are_exact() -> None:
    agent = Agent("deny pay if sum args.usd of pay > 0.3")
    assert [agent.uses("pay", usd=0.1) for _ in range(4)] == ["allow"] * 3 + ["deny"]


@pytest.mark.parametrize("bad", [{}, {"cents": "100"}, {"cents": True}, {"cents": float("nan")},
                                 {"cents": float("inf")}, {"cents": 10**40}])  # fmt: skip
def test_an_amount_that_is_none_denies(bad: dict[str, Any]) -> None:
    agent = Agent("ask transfer if sum args.cents of transfer|pay > 500")
    found = agent.asks("transfer", **bad)
    assert found is not None
    assert (found.kind, found.rule, found.advice) == ("deny", "sequence[0]", "ESCALATE")
    assert "is no amount" in found.reason
    agent.did("pay", **bad)
    found = agent.asks("transfer", cents=1)
    assert found is not None
    assert found.kind == "deny"
    assert "whose amount nobody knows" in found.reason


def test_a_count_that_lifts_looks_at_successes_before() -> None:
    agent = Agent("deny merge unless count approve >= 2")
    agent.did("approve")
    agent.did("approve", ok=False)
    agent.begins("approve")
    found = agent.asks("merge")
    assert found is not None
    assert found.advice == "RETRYABLE"
    agent.did("approve")
    assert agent.asks("merge") is None


def test_steer_says_what_to_do() -> None:
    agent = Agent('steer search if count search >= 3 say "you have searched enough; conclude"')
    assert [agent.uses("search") for _ in range(4)] == ["allow", "allow", "steer", "steer"]
    found = agent.asks("search")
    assert found is not None
    assert (found.guidance, found.advice) == ("you have searched enough; conclude", "")


def test_conditions_of_both_calls() -> None:
    agent = Agent(
        "deny refund(args.cents > 100) unless "
        "formerly approve_refund(args.order == call.args.order && args.yes) within 1h in task"
    )
    assert agent.asks("refund", cents=100, order="a") is None
    assert agent.asks("refund", cents=101, order="a")
    agent.did("approve_refund", order="a", yes=False)
    assert agent.asks("refund", cents=101, order="a")
    agent.did("approve_refund", order="a", yes=True)
    assert agent.asks("refund", cents=101, order="a") is None
    assert agent.asks("refund", cents=101, order="b")
    found = agent.asks("refund", cents=101)
    assert found is not None
    assert "has no answer for this call" in found.reason
    found = agent.asks("refund")
    assert found is not None
    assert found.kind == "deny"


def test_past_calls_without_the_field_match_on_the_strict_side() -> None:
    limit = Agent("deny pay if once pay(args.order == call.args.order)")
    limit.did("pay")
    assert limit.asks("pay", order=1), "which order that was for, nobody knows"
    lifted = Agent("deny pay unless formerly check(args.order == call.args.order)")
    lifted.did("check")
    assert lifted.asks("pay", order=1)
    tested = Agent("deny pay if count pay(args.cents > 5) >= 2")
    tested.did("pay")
    assert tested.asks("pay", cents=6)
    assert tested.asks("pay", cents=5) is None, "this one is not of those counted"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [(1, 1.0, True), (1, True, False), (1, "1", False), ([1, {"a": 2}], [1.0, {"a": 2}], True),
     ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True), ("x" * 500, "x" * 500, True),
     ("x" * 500, "x" * 501, False), (None, None, True), (None, False, False),
     (10**50, 10**50, True)],
)  # fmt: skip
def test_which_values_are_the_same(one: object, other: object, same: bool) -> None:
    agent = Agent("deny pay if once pay(args.order == call.args.order)")
    agent.did("pay", order=one)
    assert (agent.asks("pay", order=other) is not None) is same


def test_combinations() -> None:
    agent = Agent("deny ship if (not formerly pack or count ship > 2) and not once override")
    assert agent.uses("ship") == "deny"
    agent.did("pack")
    assert [agent.uses("ship") for _ in range(3)] == ["allow", "allow", "deny"]
    found = agent.asks("ship")
    assert found is not None
    assert "`count ship` is 3" in found.reason
    assert "`override` has not been called" in found.reason
    assert "pack" not in found.reason, "that part is fulfilled"
    assert found.advice == "RETRYABLE"
    agent.did("override")
    assert agent.uses("ship") == "allow"


def test_the_strictest_rule_decides() -> None:
    agent = Agent(
        'steer pay if count pay >= 1 say "careful"', "ask pay if count pay >= 2",
        "deny pay if count pay >= 3",
    )  # fmt: skip
    kinds = []
    for _ in range(4):
        found = agent.asks("pay")
        kinds.append((found.kind, found.rule) if found else None)
        agent.did("pay")
    assert kinds == [
        ("steer", "sequence[0]"), ("ask", "sequence[1]"), ("deny", "sequence[2]"),
        ("deny", "sequence[2]"),
    ]  # fmt: skip


def test_tools_by_pattern_alternative_and_kind() -> None:
    agent = Agent("deny kind:compensable|irreversible unless formerly confirm|approve_*")
    assert agent.asks("get", kind="read") is None
    assert agent.asks("pay", kind="irreversible")
    assert agent.asks("pay", kind="compensable")
    assert agent.asks("pay", kind=None), "a kind that nobody knows is the worst"
    agent.did("approve_all")
    assert agent.asks("pay", kind="irreversible") is None
    kinds = Agent("deny pay unless formerly kind:read", "deny send if once kind:irreversible")
    kinds.did("get", kind=None)
    assert kinds.asks("pay"), "nobody knows that it read"
    assert kinds.asks("send"), "nobody knows that it did not"


def test_the_past_of_a_task_is_shared_by_its_runs() -> None:
    first = Agent("deny pay if once pay in task", "deny send if once send")
    first.task = first.rules.new_state()
    second = Agent(task=first, run_id="other")
    assert first.uses("pay") == "allow"
    assert second.uses("pay") == "deny"
    assert first.uses("send") == "allow"
    assert second.uses("send") == "allow"


def test_equal_call_ids_of_two_runs_are_two_calls() -> None:
    first = Agent("deny pay unless formerly check in task")
    first.task = first.rules.new_state()
    second = Agent(task=first, run_id="other")
    mine, theirs = first.begins("check"), second.begins("check")
    assert mine.call_id == theirs.call_id
    second.ends(theirs, ok=False)
    assert first.asks("pay")
    first.ends(mine)
    assert first.asks("pay") is None
    assert second.asks("pay") is None


def test_a_clock_that_steps_back_stands_still() -> None:
    agent = Agent("deny notify if once notify within 10m")
    agent.did("notify")
    agent.now_ns = 0
    assert agent.asks("notify")
