"""Texts that are no conditions: what is said of them, and where."""

import pytest

from checkrein.policy.conditions.compiling import (
    compile_condition,
    kind_of_schema,
    standard_names,
)
from checkrein.policy.conditions.types import ConditionError

NAMES = standard_names(
    kind_of_schema(
        {
            "type": "object",
            "properties": {
                "currency": {"type": "string"},
                "cents": {"type": "integer"},
                "price": {"type": "number"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "item": {"type": "object", "properties": {"name": {"type": "string"}}},
            },
        }
    )
)


@pytest.mark.parametrize(("text", "line", "column", "problem"), [
    ("", 1, 1, "empty"),
    ("  \n ", 1, 1, "empty"),
    ("x" * 5_000, 1, 1, "too long: 5000 bytes, at most 4096"),
    ("args.currencyy == 'USD'", 1, 6, "unknown field `currencyy` (did you mean `currency`?)"),
    ("args['currencyy'] == 'USD'", 1, 6, "unknown field `currencyy` (did you mean `currency`?)"),
    ("has(args.currencyy)", 1, 10, "unknown field `currencyy`"),
    ("args.item.namee == 'x'", 1, 11, "unknown field `namee` (did you mean `name`?)"),
    ("true &&\n  arg.cents > 1", 2, 3, "unknown name `arg` (did you mean `args`"),
    ("args.tags.all(x, y == 'a')", 1, 18, "unknown name `y`"),
    ("args.tags.exists(t, t > 1)", 1, 23, "no `>` of a text and a whole number"),
    ("args.cents > 'a'", 1, 12, "no `>` of a whole number and a text"),
    ("args.cents == 'a'", 1, 12, "a whole number and a text are never equal"),
    ("args.cents * 1.5 > 1.0", 1, 12, "write 2.0 for 2, or double(…)"),
    ("args.cents + args.currency == 1", 1, 12, "no `+` of a whole number and a text"),
    ("args.cents", 1, 6, "a whole number where true or false should be"),
    ("args.cents && true", 1, 6, "a whole number where true or false should be"),
    ("!args.currency", 1, 7, "a text where true or false should be"),
    ("args.cents.size() == 1", 1, 12, "no `size` of a whole number"),
    ("args.currency.x == 1", 1, 15, "a text has no field `x`"),
    ("args.currency[0] == 'U'", 1, 14, "a text has no elements"),
    ("args.tags['a'] == 'U'", 1, 11, "an element is found by a whole number"),
    ("args.cents.all(x, true)", 1, 12, "`all` is for lists and maps"),
    ("args.currency.matches(args.item.name)", 1, 33, "a pattern must be written out"),
    ("args.currency.matches('(')", 1, 23, "no pattern (RE2): missing )"),
    (r"args.currency.matches(r'(a)\1')", 1, 23, "no pattern (RE2): invalid escape"),
    ("args.currency.startWith('a')", 1, 15, "unknown method `startWith` (did you mean"),
    ("startsWith(args.currency, 'a')", 1, 1, "`startsWith` is written `x.startsWith(…)`"),
    ("args.currency.int() == 1", 1, 15, "`int` is written `int(x)`"),
    ("now() > 1", 1, 1, "unknown function `now`"),
    ("args.currency.startsWith() ", 1, 15, "`startsWith` takes 1 value"),
    ("args.tags.all(x)", 1, 11, "write `.all(x, …x…)`"),
    ("args.tags.all(1, true)", 1, 15, "is the name that stands for each element"),
    ("has(args)", 1, 1, "`has` takes one field"),
    ("true ? 1 : 'a'", 1, 6, "the two sides of `? :` differ"),
    ("args.cents = 5", 1, 12, "a single `=`: to compare, write `==`"),
    ("true & false", 1, 6, "write `&&` or `and`"),
    ("true | false", 1, 6, "write `||` or `or`"),
    ("args.currency == \"USD", 1, 18, "a text that is not closed"),
    ("args.cents >", 1, 13, "ends too early"),
    ("args.cents > 5)", 1, 15, "`)` cannot stand here"),
    ("args.cents > 5 args", 1, 16, "`args` cannot stand here"),
    ("args.cents > 5 # hm", 1, 16, "`#` cannot stand here"),
    ("args.cents > 5cents", 1, 14, "`5cents` cannot stand here"),
    (r"args.currency == 'a\q'", 1, 20, "unknown escape `\\q`"),
    (r"'\ud800' == ''", 1, 2, "there is no character"),
    ("9223372036854775808 > 1", 1, 1, "64 bits"),
    ("99999999999999999999999999999999 > 1", 1, 1, "64 bits"),
    ("{true: 1} == {}", 1, 2, "is no key"),
    ("{'a': 1, 'a': 2} == {}", 1, 10, "the key 'a' twice"),
    ("true == '\ud800'", 1, 10, "lone surrogate"),
    ("(" * 65 + "!" * 65 + "true" + ")" * 65, 1, 67, "nested too deeply"),
    ("1 + " * 100 + "1 > 0", 1, 255, "nested too deeply"),
    ("[" + ",".join("1" * 2_040) + "] == []", 1, 1, "too large"),
])  # fmt: skip
def test_the_problem_and_its_place(text: str, line: int, column: int, problem: str) -> None:
    with pytest.raises(ConditionError) as error:
        compile_condition(text, NAMES)
    assert problem in error.value.problem
    assert (error.value.line, error.value.column) == (line, column)


@pytest.mark.parametrize("text", ["timestamp(0)", "type(1)", "[duration('1s')]", "b'a'"])
def test_a_result_is_something_that_json_has(text: str) -> None:
    with pytest.raises(ConditionError, match="cannot be a result"):
        compile_condition(text, NAMES, "any")


def test_many_terms_in_a_row_are_not_deep() -> None:
    text = " && ".join(["args.cents > 1"] * 200)
    assert compile_condition(text, NAMES)({"args": {"cents": 2}}) is True
