"""Whatever the text: a condition or a ConditionError; whatever the facts: a value or an
EvaluationError; and soon."""

import inspect
import sys
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from checkrein.policy.conditions.compiling import compile_condition, constancy
from checkrein.policy.conditions.types import Condition, ConditionError, EvaluationError

COMPILE_S_MAX = 3.0
"""Wide, for a busy machine: what takes exponential or quadratic time takes minutes."""
TOKENS = [
    "args", "args.x", "step", "spent.usd", "x", "size", "has", "all", "exists", "map", "matches",
    "int", "timestamp", "true", "null", "1", "0", "2.5", "9223372036854775807", '"a"', "'b'",
    'r"c"', 'b"d"', "'''", '"', "+", "-", "*", "/", "%", "&&", "||", "and", "or", "not", "!", "==",
    "!=", "<", "<=", ">", ">=", "in", "?", ":", "(", ")", "[", "]", "{", "}", ",", ".", "\n", "//",
    ".all(x,", ".map(x,", ".matches('", "((", "))", "\\", "=", "&", "|", "`", "#", "é", "\x00",
]  # fmt: skip
PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
PAIRS = [
    ("(", ")"), ("[", "]"), ("!", ""), ("-", ""), ("not ", ""), ("{'a': ", "}"),
    ("size([", "])"), ("[1].all(x, ", ")"), ("true ? (", ") : 1"), ("x.x[", "]"), ("", ".x"),
    ("", " + 1"), ("1 + ", ""), ("", "[0]"), ("string(", ")"), ("'", ""), ('"""', ""),
    ("true && ", ""), ("", " || false"), ("true ? 1 : ", ""), ("//", ""),
]  # fmt: skip
FACTS = {"args": {"x": [1, 2]}, "step": 1, "spent": {"usd": 0.5}}


def survives(text: str, facts: dict[str, Any]) -> None:
    begun = time.perf_counter()
    made = compiled(text)
    assert time.perf_counter() - begun < COMPILE_S_MAX
    if isinstance(made, ConditionError):
        assert 1 <= made.line <= text.count("\n") + 1
        assert 1 <= made.column <= max(len(line) for line in text.split("\n")) + 1
        assert made.problem
    else:
        constancy(made)
        with suppress(EvaluationError):
            made(facts)


def compiled(text: str) -> Condition | ConditionError:
    try:
        return compile_condition(text, result="any")
    except ConditionError as error:
        return error


@given(st.text(max_size=60))
@settings(max_examples=400, deadline=None)
def test_random_text(text: str) -> None:
    survives(text, FACTS)


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_random_bytes(data: bytes) -> None:
    survives(data.decode("latin-1"), FACTS)
    survives(data.decode("utf-8", "surrogateescape"), FACTS)


@given(st.lists(st.sampled_from(TOKENS), max_size=40), st.sampled_from(["", " "]), PLAIN)
@settings(max_examples=1500, deadline=None)
@example(["args.x", ".all(x,"] * 20, "", 1)
@example(["'''"] * 40, "", 1)
def test_soups_of_tokens(tokens: list[str], between: str, given_x: Any) -> None:
    survives(between.join(tokens), {**FACTS, "args": {"x": given_x}})


@given(
    st.sampled_from(PAIRS),
    st.integers(1, 4_200),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_deep_nesting(pair: tuple[str, str], depth: int) -> None:
    survives(pair[0] * depth + "1" + pair[1] * depth, FACTS)
    survives(pair[0] * depth, FACTS)


@given(st.text("ab()[]{}*+?|^$.\\-0123456789,dwpLi:", max_size=40), st.text(max_size=20))
@settings(max_examples=300, deadline=None)
def test_patterns(pattern: str, text: str) -> None:
    quoted = pattern.replace("\\", "\\\\")
    survives(f"args.x.matches('{quoted}')", {"args": {"x": text * 50}})


def test_a_pattern_that_would_hang_another_engine() -> None:
    condition = compile_condition(r"args.x.matches('^(a+)+$')")
    begun = time.perf_counter()
    assert condition({"args": {"x": "a" * 100_000 + "b"}}) is False
    assert time.perf_counter() - begun < COMPILE_S_MAX


def test_a_pattern_that_outgrows_its_memory_still_matches() -> None:
    condition = compile_condition("args.x.matches('[ab]*a[ab]{500}$')")
    text = "".join("ab"[(n * n * 7 + n // 3) % 2] for n in range(20_000)) + "a" + "b" * 500
    assert condition({"args": {"x": text}}) is True


def test_comprehensions_within_comprehensions_end() -> None:
    text = "args.x" + ".map(x, args.x" * 20 + ".map(x, 1)" + ")" * 20
    begun = time.perf_counter()
    survives(f"size({text}) > 0", {"args": {"x": list(range(1_000))}})
    survives(f"{text}.all(y, y == args.x) || true", {"args": {"x": list(range(1_000))}})
    assert time.perf_counter() - begun < COMPILE_S_MAX


@given(st.sampled_from(PAIRS), st.integers(1, 64))
@settings(max_examples=300, deadline=None)
def test_nesting_that_is_just_allowed(pair: tuple[str, str], depth: int) -> None:
    for inner in ("1", "true", "args.x", "x"):
        survives(pair[0] * depth + inner + pair[1] * depth, FACTS)


def test_what_is_small_to_write_and_large_to_walk() -> None:
    text = "[1]" + ".map(x, [x, x])" * 55
    begun = time.perf_counter()
    for whole in (f"{text} == {text}", f"{text} in [{text}]", f"size({text}) == 1", text):
        survives(whole, FACTS)
    assert time.perf_counter() - begun < COMPILE_S_MAX
    with pytest.raises(EvaluationError, match="too much"):
        compile_condition(text, result="any")(FACTS)


def test_with_the_stack_nearly_full() -> None:
    def deeper(left: int) -> None:
        if left:
            deeper(left - 1)
        else:
            survives("size([[[[args.x.all(x, x == [1, 2, 3] || x in [[[1]]])]]]]) == 1", FACTS)

    frames = len(inspect.stack(0))
    for left in range(0, 200, 7):
        deeper(sys.getrecursionlimit() - frames - 30 - left)
