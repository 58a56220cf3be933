"""What conditions mean: values, errors, and the friendly reading of JSON's numbers."""

from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import pytest

from checkrein.policy.conditions.compiling import (
    Compiled,
    compile_condition,
    kind_of_schema,
    standard_names,
)
from checkrein.policy.conditions.types import EvaluationError, Kind

SCHEMA = {
    "type": "object",
    "properties": {
        "currency": {"type": "string"},
        "cents": {"type": "integer"},
        "price": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "urgent": {"type": "boolean"},
        "to": {"type": "string"},
        "any": {},
    },
    "required": ["currency"],
}
NAMES = standard_names(kind_of_schema(SCHEMA))
ARGS = {
    "currency": "USD", "cents": 400, "price": 5, "tags": ["a", "b"], "urgent": True,
    "to": "ann@example.com", "any": {"deep": [1, 2.5, None]},
}  # fmt: skip
FACTS: dict[str, Any] = {
    "args": ARGS, "tool": "refund", "confidence": 0.4, "step": 3, "goal": "a goal",
    "spent": {"steps": 3, "tool_calls": 2, "tokens": 10, "usd": 0.5, "wall_s": 2},
}  # fmt: skip


def value(text: str, facts: dict[str, Any] = FACTS, names: dict[str, Kind] = NAMES) -> Any:
    return compile_condition(text, names, "any")(facts)


def fails(text: str, facts: dict[str, Any] = FACTS) -> str:
    with pytest.raises(EvaluationError) as error:
        value(text, facts)
    return str(error.value)


@pytest.mark.parametrize("text", [
    'args.currency == "USD" && args.cents <= 5000',
    "args.cents > 4000 or confidence < 0.5",
    "not args.cents == 5 and args.urgent",
    "!(args.cents == 5)",
    'args["cents"] == 400',
    'args.currency in ["USD", "EUR"]',
    "args.cents in [1, 400.0, 7]",
    '"a" in args.tags',
    '"cents" in args',
    "has(args.cents) && !has(args.any.nope)",
    'args.to.endsWith("@example.com") && args.to.startsWith("ann") && args.to.contains("@")',
    'args.to.matches("^[a-z]+@example[.]com$") && !args.to.matches("bob")',
    "size(args.tags) == 2 && args.tags.size() == 2 && size(args.to) == 15",
    'args.tags.all(x, x < "c") && args.tags.exists(x, x == "b")',
    'args.tags.exists_one(x, x == "b")',
    'args.tags.filter(x, x != "a") == ["b"]',
    'args.tags.map(x, x + "!") == ["a!", "b!"]',
    'args.tags.map(x, x != "a", x + x) == ["bb"]',
    'args.tags.exists(x, args.tags.all(y, x != y || x == "b" || x == "a"))',
    "args.any.deep[1] == 2.5 && args.any.deep[2] == null",
    "{1: 2, 3: 4}[3] == 4 && {'a': {'b': 1}}.a.b == 1",
    "{'b': 1}.map(k, k) == ['b']",
    "7 / 2 == 3 && -7 / 2 == -3 && 7 / -2 == -3",
    "7 % 3 == 1 && -7 % 3 == -1 && 7 % -3 == 1",
    "1.0 / 0.0 > 1e308 && -1.0 / 0.0 < -1e308 && !(0.0 / 0.0 == 0.0 / 0.0)",
    "1 == 1.0 && 1 < 1.5 && 9007199254740993 > 9007199254740992.0",
    "-9223372036854775808 < 0 && 0x10 == 16 && 5u == 5",
    "step > 2 ? true : 1 / 0 == 1",
    "1 / 0 == 1 || true",
    "true || 1 / 0 == 1",
    "!(1 / 0 == 1 && false)",
    "[0, 2].exists(x, 4 / x == 2) && ![0, 2].all(x, 4 / x == 3)",
    "args.any.nope == 1 || true",
    r"'\u00e9\x41\101\n' == " + '"éAA\\n"',
    r"r'\d' == '\\d'",
    "'''a'b''' == 'a\\'b'",
    r"b'\xff' != b'é' && size(b'é') == 2",
    "int('12') == 12 && int(-1.9) == -1 && double('1.5') == 1.5 && string(12) == '12'",
    "string(1.5) == '1.5' && string(true) == 'true' && bool('true')",
    "type(args.cents) == int && type('') == string && type(null) == null_type && type(int) == type",
    "type([]) == list && type({}) == map && type(1.5) == double && type(b'') == bytes",
    "timestamp('2026-01-31T12:00:00Z') < timestamp('2026-01-31T12:00:00.5+00:00')",
    "timestamp('2026-01-31T12:00:00Z') - timestamp('2026-01-31T11:00:00Z') == duration('1h')",
    "timestamp('2026-01-31T12:00:00Z') + duration('-90m') == timestamp('2026-01-31T10:30:00Z')",
    "string(duration('1m30.5s')) == '90.5s' && duration('90s') == duration('1m') + duration('30s')",
    "timestamp('2026-02-01T01:02:03Z').getHours() == 1",
    "timestamp('2026-02-01T01:02:03Z').getDayOfWeek() == 0",
    "string(timestamp('0001-01-01T00:00:00Z')) == '0001-01-01T00:00:00Z'",
    "'ÀBc'.lowerAscii() == 'Àbc' && 'a'.upperAscii() == 'A' && ' a '.trim() == 'a'",
    "'a-b'.split('-') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b'",
    "'aa'.replace('a', 'b') == 'bb'",
    "spent.usd < 1 && spent.wall_s / 2.0 == 1.0",
    "args.urgent // a comment\n && true",
    "[1, 2,] == [1, 2] && {'a': 1,} == {'a': 1}",
])  # fmt: skip
def test_true(text: str) -> None:
    assert compile_condition(text, NAMES)(FACTS) is True


@pytest.mark.parametrize(("text", "problem"), [
    ("1 / 0 == 1", "division by zero"),
    ("1 % 0 == 1", "division by zero"),
    ("9223372036854775807 + 1 > 0", "64 bits"),
    ("-9223372036854775808 / -1 > 0", "64 bits"),
    ("-(-9223372036854775808) > 0", "64 bits"),
    ("3037000500 * 3037000500 > 0", "64 bits"),
    ("args.any.nope == 1", "no field `nope`"),
    ("args.any.deep.x == 1", "no field `x` in a list"),
    ("args.tags[2] == 'a'", "no element 2 in a list of 2"),
    ("args.tags[-1] == 'a'", "no element -1"),
    ("args.any.deep[0] < 'a'", "no order of int and string"),
    ("args.any.deep + 1 == 2", "no `+` of list and int"),
    ("args.any || args.any", "a map where true or false should be"),
    ("int('x') == 1", "no whole number"),
    ("int(1e30) == 1", "64 bits"),
    ("{'a': 1}['b'] == 1", "no key"),
    ("1 / 0 == 1 || false", "division by zero"),
    ("true && 1 / 0 == 1", "division by zero"),
    ("bool('yes')", "neither true nor false"),
    ("timestamp('yesterday') == timestamp(0)", "no timestamp"),
    ("timestamp('2026-02-30T00:00:00Z') == timestamp(0)", "day"),
    ("duration('5') == duration('5s')", "no duration"),
])  # fmt: skip
def test_no_value(text: str, problem: str) -> None:
    assert problem in fails(text)


def test_json_gives_whole_numbers_where_doubles_are_declared() -> None:
    assert value("args.price / 2.0") == 2.5
    assert value("args.price / args.price * 0.5") == 0.5
    assert value("args.price > 4.5 && args.price == 5.0") is True
    assert value("(-args.price) / 2.0") == -2.5


def test_and_doubles_where_whole_numbers_are_declared() -> None:
    facts = {"args": {"cents": 400.0}}
    assert value("args.cents <= 400 && args.cents + 1 == 401", facts) is True


def test_a_dyn_number_and_a_double_are_added() -> None:
    facts = {"args": {"any": 5}}
    assert value("args.any * 1.5", facts) == 7.5
    assert value("args.any / 2", facts) == 2


@pytest.mark.parametrize("lie", ["400", True, None, [400], {"a": 1}, Decimal(400), object()])
def test_an_argument_that_is_not_what_its_schema_says(lie: Any) -> None:
    assert fails("args.cents <= 5000", {"args": {"cents": lie}})
    assert fails("args.cents > args.cents", {"args": {"cents": lie}})
    assert fails("args.cents + 1 > 0", {"args": {"cents": lie}})


def test_true_is_not_one() -> None:
    assert value("args.any == 1", {"args": {"any": True}}) is False
    assert value("args.any in [1, 2]", {"args": {"any": True}}) is False
    assert value("args.cents == 1", {"args": {"cents": True}}) is False
    assert value("args.any == true", {"args": {"any": 1}}) is False


@pytest.mark.parametrize("text", [
    'args.to != "/etc/passwd"', 'args.to == "x" || true == false', 'args.to in ["/etc/passwd"]',
    'args.to.startsWith("/")', '!args.to.contains("passwd")', '!args.to.matches("passwd")',
    "args.any != args.to",
])  # fmt: skip
def test_a_value_of_a_foreign_class_is_an_error_and_not_a_difference(text: str) -> None:
    path = PurePosixPath("/etc/passwd")
    assert fails(text, {"args": {"to": path, "any": path}})


def test_a_missing_variable_is_an_error_only_where_it_is_read() -> None:
    assert fails("confidence < 0.5", {"args": {}}) == "`confidence` is not known here"
    assert value("true || confidence < 0.5", {"args": {}}) is True


def test_a_result_that_should_be_a_bool_is_one() -> None:
    condition = compile_condition("args.any", NAMES)
    assert condition({"args": {"any": False}}) is False
    with pytest.raises(EvaluationError, match="a string where"):
        condition({"args": {"any": "yes"}})


def test_steps_and_sizes_are_bounded() -> None:
    long = {"args": {"any": list(range(3_000)), "to": "x" * 600_000}}
    assert "too much" in fails("args.any.all(x, args.any.all(y, x + y >= 0))", long)
    assert "characters" in fails("args.to + args.to == ''", long)
    assert "too much" in fails("args.any.all(x, !args.to.contains('y'))", long)
    doubled = "['x']" + ".map(x, x + x)" * 21
    assert "characters" in fails(f"size({doubled}) == 1", long)


def test_deep_facts_end_in_an_error() -> None:
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    other: Any = 1
    for _ in range(5_000):
        other = [other]
    assert "recursion" in fails("args.any == args.to", {"args": {"any": deep, "to": other}}).lower()


def test_what_a_condition_says_of_itself() -> None:
    condition = compile_condition("args.cents > 1 && step == 1 && [1].all(x, x == 1)", NAMES)
    assert condition.names == {"args", "step"}
    assert condition.kind.name == "bool"
    assert condition.text.startswith("args.cents")


def test_the_same_text_is_compiled_once() -> None:
    first = compile_condition("args.cents > 41", NAMES)
    assert compile_condition("args.cents > 41", dict(NAMES)) is first
    assert compile_condition("args.cents > 41") is not first
    assert isinstance(first, Compiled)
