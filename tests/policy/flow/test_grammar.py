"""Flow rules as they are written: what they mean, and where they are wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkrein.policy.conditions.types import DYN, Kind
from checkrein.policy.flow.compiling import compile_flow
from checkrein.policy.flow.grammar import (
    BuiltinRule,
    Condition,
    Derives,
    FlowError,
    Property,
    WrittenRule,
    parse,
)
from checkrein.policy.types import ToolRule

TOOLS = {"send_email": ToolRule(), "read_customer": ToolRule(), "pay": ToolRule()}


def names_of(tool: str) -> dict[str, Kind]:
    fields = {"to": Kind("string"), "body": Kind("string"), "cents": Kind("int")}
    return {"args": Kind("map", fields=fields), "tool": Kind("string")}


def test_a_built_in_rule() -> None:
    assert parse("learned", 0) == BuiltinRule("learned", "", ())
    rule = parse("deny directive for send_*, pay", 0)
    assert isinstance(rule, BuiltinRule)
    assert rule.verdict == "deny"
    assert [each.text for each in rule.tools] == ["send_*", "pay"]


def test_a_written_rule() -> None:
    rule = parse(
        "ask pay, send_email when args.to derives from read_* or untrusted and args is not internal"
        " && ( args.cents > (1 + 2) && args.body != ')' )",
        0,
    )
    assert isinstance(rule, WrittenRule)
    derives, inside, condition = rule.clauses
    assert isinstance(derives, Derives)
    assert [each.text for each in derives.sources] == ["read_*", "untrusted"]
    assert isinstance(inside, Property)
    assert (inside.name, inside.negated) == ("internal", True)
    assert isinstance(condition, Condition)
    assert condition.text == "args.cents > (1 + 2) && args.body != ')'"


@pytest.mark.parametrize(
    ("text", "line", "column", "part"),
    [
        ("", 1, 1, "expected"),
        ("permit pay when args.to is external", 1, 1, "`deny` or `ask`"),
        ("deny pay", 1, 9, "`when`"),
        ("deny pay when args.to", 1, 22, "`is`"),
        ("deny pay when args.to is strange", 1, 26, "`external`"),
        ("deny pay when args.to derives read_customer", 1, 31, "`from`"),
        ("deny pay when args.to is external and (args.cents > 1", 1, 54, "`)`"),
        ("deny pay\n  when args.to is external x", 2, 28, "`and`"),
        ("deny payy when args.to is external", 1, 6, "no tool `payy`"),
        ("deny pay when args derive from read_custmer", 1, 32, "did you mean `read_customer`"),
        ("deny pay when args.iban is external", 1, 15, "no argument `iban`"),
        ("deny pay when (args.iban == 'x')", 1, 21, "iban"),
        ("deny pay when (args.cents +)", 1, 28, ""),
        ("deny pay when (\n args.cents == 'x')", 2, 13, ""),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, line: int, column: int, part: str) -> None:
    with pytest.raises(FlowError) as caught:
        compile_flow(["learned", text], TOOLS, [], names_of)
    error = caught.value
    assert error.index == 1
    assert part in error.problem
    assert (error.line, error.column) == (line, column)


def test_a_rule_has_a_bound() -> None:
    with pytest.raises(FlowError, match="2000"):
        parse("deny pay when " + "(" * 3_000, 0)
    with pytest.raises(FlowError):
        parse("deny pay when " + "(" * 1_900, 0)


@given(st.text(max_size=80) | st.text("deny ask when args.to()is \"'&,*", max_size=60))
def test_any_text_is_a_rule_or_an_error(text: str) -> None:
    try:
        compile_flow([text], {}, [], lambda tool: {"args": DYN})
    except FlowError as error:
        problem = error
    else:
        return
    assert problem.line >= 1
    assert problem.column >= 1
