"""The difference of two pacts, and what it means for the agent."""

import pytest

from checkrein.policy.pact import load
from checkrein.policy.pact_diff import diff_digest, differences
from checkrein.policy.types import Pact, ToolRule

BASE = Pact(tools={"a": ToolRule(kind="read"), "b": ToolRule()}, models=("m1",))


def said(before: Pact, after: Pact) -> list[tuple[str, str]]:
    return [(each.key, each.effect) for each in differences(before, after)]


def test_the_same_pact_has_no_difference() -> None:
    pact = load("pact: x\ntools: {a: {kind: read}}\nbudgets: {usd: 2}\n")
    assert differences(pact, pact) == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {"models": ("m1", "m2")}, [("models.m2", "allows")]),
        ({}, {"models": None}, [("models", "allows")]),
        ({}, {"tools": {"a": ToolRule(kind="read")}}, [("tools.b", "refuses")]),
        ({}, {"tools": None}, [("tools", "allows")]),
        ({"tools": None}, {}, [("tools", "refuses")]),
        ({}, {"tools": {**(BASE.tools or {}), "c": ToolRule()}}, [("tools.c", "allows")]),
        ({}, {"sequence": ("no a after b",)}, [("sequence[0]", "refuses")]),
        ({"flow": ("x",)}, {"flow": ()}, [("flow[0]", "allows")]),
        ({}, {"unclear": "allow"}, [("unclear", "allows")]),
        ({}, {"lost_contact": "halt"}, [("lost_contact", "refuses")]),
        ({}, {"job": "else"}, [("job", "changes")]),
    ],
)
def test_every_key_says_what_becomes_of_it(
    before: dict[str, object], after: dict[str, object], expected: list[tuple[str, str]]
) -> None:
    old = Pact(**{"tools": BASE.tools, "models": BASE.models, **before})  # type: ignore[arg-type] # a table of tests
    new = Pact(**{"tools": BASE.tools, "models": BASE.models, **after})  # type: ignore[arg-type] # as above
    assert said(old, new) == expected


@pytest.mark.parametrize(
    ("before", "after", "effect"),
    [
        (ToolRule(), ToolRule(allow="args.n < 3"), "refuses"),
        (ToolRule(allow="args.n < 3"), ToolRule(), "allows"),
        (ToolRule(allow="args.n < 3"), ToolRule(allow="args.n < 4"), "changes"),
        (ToolRule(), ToolRule(ask="args.n > 3"), "asks"),
        (ToolRule(ask="args.n > 3"), ToolRule(), "allows"),
        (ToolRule(), ToolRule(once_per="args.n"), "refuses"),
        (ToolRule(timeout_s=3), ToolRule(timeout_s=9), "allows"),
        (ToolRule(timeout_s=3), ToolRule(timeout_s=None), "allows"),
        (ToolRule(), ToolRule(set={"n": "3"}), "changes"),
    ],
)
def test_every_rule_of_a_tool_says_what_becomes_of_it(
    before: ToolRule, after: ToolRule, effect: str
) -> None:
    found = differences(Pact(tools={"t": before}), Pact(tools={"t": after}))
    assert [each.effect for each in found] == [effect]
    assert found[0].key.startswith("tools.t.")


def test_budgets_and_loops_go_by_their_size() -> None:
    old = load("pact: x\nbudgets: {usd: 2, steps: 3}\nloops: {same_call: 3}\n")
    new = load("pact: x\nbudgets: {usd: 3, tokens: 100}\nloops: {same_call: 2}\n")
    assert said(old, new) == [
        ("budgets.steps", "allows"), ("budgets.tokens", "refuses"), ("budgets.usd", "allows"),
        ("loops.same_call", "refuses"),
    ]  # fmt: skip
    assert str(differences(old, new)[2]) == "budgets.usd: `2.0` becomes `3.0`"


def test_the_digest_names_the_difference() -> None:
    one, two = load("pact: x\n"), load("pact: x\nunclear: ask\n")
    assert diff_digest(one, two) != diff_digest(two, one)
    assert diff_digest(one, two) == diff_digest(one, load("pact: x\nunclear: ask # why\n"))
