"""Conditions that cannot be true, or cannot be false."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkrein.policy.conditions.compiling import (
    compile_condition,
    constancy,
    kind_of_schema,
    standard_names,
)
from checkrein.policy.conditions.types import EvaluationError

NAMES = standard_names(
    kind_of_schema(
        {
            "type": "object",
            "properties": {
                "n": {"type": "integer", "minimum": 0, "maximum": 100},
                "currency": {"enum": ["USD", "EUR"]},
                "d": {"type": "number"},
                "flag": {"type": "boolean"},
                "t": {"type": "string"},
                "list": {"type": "array"},
                "any": {},
            },
        }
    )
)


@pytest.mark.parametrize("text", [
    "args.n > 5 && args.n < 3",
    "args.n > 5 && args.n < 6",
    "args.any > 5 && args.any < 3",
    "args.n > 200",
    "args.n < 0",
    "args.currency == 'GBP'",
    "args.currency in ['GBP', 'CHF']",
    "args.currency != 'USD' && args.currency != 'EUR'",
    "args.t == 'a' && args.t == 'b'",
    "args.any == 1 && args.any == 'b'",
    "args.flag && !args.flag",
    "args.flag == true && args.flag == false",
    "args.t in ['a', 'b'] && args.t != 'a' && !(args.t in ['b'])",
    "size(args.list) < 0",
    "args.list.size() == 2 && args.list.size() > 3",
    "has(args.n) && !has(args.n)",
    "!has(args.n) && args.n == 1",
    "args.d > args.n && args.d <= args.n",
    "args.d < args.d",
    "args.t.matches('a') && !args.t.matches('a')",
    "args.list.exists(x, x == 1) && !args.list.exists(x, x == 1)",
    "confidence < 0.5 and confidence > 0.7",
    "args.n == 5 ? args.n > 6 : args.n == 5",
    "1 > 2",
    "1 / 0 == 1",
    "args.n == 2.5",
    "args['n'] > 7 && args.n < 7",
    "(args.t == 'a' || args.t == 'b') && (args.t == 'c' || args.t == 'd')",
])  # fmt: skip
def test_it_cannot_be_true(text: str) -> None:
    assert constancy(compile_condition(text, NAMES)) == "false"


@pytest.mark.parametrize("text", [
    "true",
    "args.n > 5 || args.n <= 5",
    "args.n != 1 || args.n != 2",
    "args.t == 'a' || args.t != 'a'",
    "args.flag || !args.flag",
    "!(args.n > 5 && args.n < 3)",
    "args.d == args.d",
    "size(args.list) >= 0",
    "args.n > 5 ? true : args.n < 6",
    "args.flag == true || args.flag == false",
])  # fmt: skip
def test_it_cannot_be_false(text: str) -> None:
    assert constancy(compile_condition(text, NAMES)) == "true"


@pytest.mark.parametrize("text", [
    "args.n > 5 && args.n < 7",
    "args.d > 5.0 && args.d < 6.0",
    "args.n <= 100",
    "args.currency in ['USD', 'EUR']",
    "args.n == 5 || args.flag",
    "args.any == 5 || args.any == 'x'",
    "has(args.n) && args.n > 1",
    "args.list.exists(x, x == 1) && !args.list.exists(x, x == 2)",
    "args.t.startsWith('a') && args.t.endsWith('b')",
    "args.t == args.currency",
    " && ".join(f"(args.t != '{n}' || args.d != {n}.0)" for n in range(40)),
    " && ".join(f"(args.t == '{n}' || args.d == {n}.0 || args.flag)" for n in range(40)),
])  # fmt: skip
def test_it_can_be_both(text: str) -> None:
    assert constancy(compile_condition(text, NAMES)) == ""


def test_many_tests_in_a_row_are_looked_at_all() -> None:
    many = " && ".join(f"args.any != {number}" for number in range(200))
    assert constancy(compile_condition(f"{many} && args.n > 2", NAMES)) == ""
    assert constancy(compile_condition(f"{many} && args.n > 2 && args.any == 77", NAMES)) == "false"
    assert constancy(compile_condition(f"!({many}) || args.any != 77", NAMES)) == "true"


def test_a_constant_that_takes_long_is_evaluated_once() -> None:
    ones = f"[{', '.join('1' * 60)}]"
    slow = f"{ones}.all(a, {ones}.all(b, a + b < 3))"
    either = " && ".join(f"({slow} || args.any == {number})" for number in range(5))
    begun = time.perf_counter()
    assert constancy(compile_condition(either, NAMES)) == "true"
    assert time.perf_counter() - begun < 3


_ATOM = st.one_of(
    st.builds(
        "args.{} {} {}".format,
        st.sampled_from(["a", "b"]),
        st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
        st.sampled_from(["0", "1", "2", "0.5", "1.5"]),
    ),
    st.builds("args.a in [{}, {}]".format, st.integers(0, 2), st.integers(0, 2)),
    st.sampled_from(["has(args.a)", "has(args.c)", "args.f", "args.f == true", "args.a < args.b"]),
)
_TEXT = st.recursive(
    _ATOM,
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!({})".format, inner),
        st.builds("({} ? {} : {})".format, inner, inner, inner),
    ),
    max_leaves=8,
)
_SOME = [{}, *({"a": a, "b": b, "f": f} for a in range(-1, 4) for b in (-1, 0.5, 1, 3) for f in (
    True, False))]  # fmt: skip


@given(_TEXT)
@settings(max_examples=500, deadline=None)
def test_what_it_says_holds_for_every_call(text: str) -> None:
    condition = compile_condition(text)
    answer = constancy(condition)
    for args in _SOME:
        assert _value(condition, args) != {"true": False, "false": True}.get(answer, "never")


def _value(condition: Any, args: dict[str, Any]) -> bool | None:
    try:
        return bool(condition({"args": args}))
    except EvaluationError:
        return None
