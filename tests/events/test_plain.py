"""Any object becomes plain data, within the bounds, without an exception."""

import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import time
import uuid
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkrein.events.limits import DEPTH_MAX, TEXT_BYTES_MAX
from checkrein.events.plain import plain


def check(value: Any) -> Any:
    """Plain data all the way down, that both of our encoders take; returns it."""
    result = plain(value)
    text = json.dumps(result, allow_nan=False)
    assert json.loads(text) == result
    text.encode()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(result)) == result
    assert len(text) < 8 * 1024 * 1024
    return result


def nested(depth: int, inner: Any = 1) -> Any:
    value = inner
    for _ in range(depth):
        value = [value]
    return value


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: Any


class Model(pydantic.BaseModel):
    name: str
    when: datetime.date | None = None


class Record(msgspec.Struct):
    a: int


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Liar(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no")


class Thief:
    """Claims every attribute, raises on any use."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError(name)


def test_small_plain_values_come_back_themselves() -> None:
    value = {"query": "refund", "limit": 3, "deep": {"a": [1, 2.5, None, True, "é"]}}
    assert plain(value) is value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        ({1: "a", None: 2, False: 3}, {"1": "a", "null": 2, "false": 3}),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        ([1.0, math.nan], [1.0, "NaN"]),
        (2**64, "18446744073709551616"),
        (b"ab", {"base64": "YWI=", "original_length": 2}),
        ("a\udc80b", "a\\udc80b"),
        ({"k\udc80": 1}, {"k\\udc80": 1}),
        (Colour.RED, "red"),
        (Point(1, {2}), {"x": 1, "y": [2]}),
        (Model(name="n", when=datetime.date(2026, 1, 2)), {"name": "n", "when": "2026-01-02"}),
        (Record(1), {"a": 1}),
        (decimal.Decimal("1.50"), "1.50"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (Liar(a=1), {"a": 1}),
    ],
)
def test_forms(value: Any, expected: Any) -> None:
    assert check(value) == expected


def test_an_object_whose_repr_raises_is_named() -> None:
    result = check({"rude": Rude(), "thief": Thief(), "kind": Rude})
    assert "repr raises builtins.RuntimeError" in result["rude"]["repr"]
    assert result["kind"].endswith("Rude")


def test_cycles_are_named() -> None:
    value: dict[str, Any] = {"a": 1}
    value["self"] = [value]
    assert check(value) == {"a": 1, "self": [{"cycle": "builtins.dict"}]}


@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, 10_000])
def test_depth_is_cut(depth: int) -> None:
    result = check(nested(depth))
    for _ in range(DEPTH_MAX):
        (result,) = result
    assert result == {"cut": "", "object": "builtins.list"}


def test_depth_within_the_bound_is_kept() -> None:
    assert check(nested(DEPTH_MAX)) == nested(DEPTH_MAX)


@pytest.mark.parametrize("unit", ["x", "é", "\udc80"])
def test_ten_megabytes_of_text_are_cut_at_their_head(unit: str) -> None:
    text = unit * (10 * 1024 * 1024 // len(unit.encode("utf-8", "surrogatepass")))
    result = check({"body": text})["body"]
    assert len(result["cut"].encode()) <= TEXT_BYTES_MAX
    assert text.startswith(result["cut"]) or unit == "\udc80"
    assert len(result["sha256"]) == 64


def test_large_bytes_are_cut() -> None:
    result = check(bytes(10 * 1024 * 1024))
    assert result["original_length"] == 10 * 1024 * 1024
    assert len(result["cut"]) <= TEXT_BYTES_MAX


def test_shared_parts_do_not_multiply() -> None:
    value: Any = ["x" * 100]
    for _ in range(40):
        value = [value, value, value]
    began = time.monotonic()
    check(value)
    assert time.monotonic() - began < 5


def test_the_same_huge_text_again_and_again_is_quick() -> None:
    began = time.monotonic()
    result = check(["x" * 10_000_000] * 10_000)
    assert "sha256" in result[0]
    assert "sha256" not in result[-1]
    assert time.monotonic() - began < 5


def test_many_items_are_cut_and_counted() -> None:
    result = check(list(range(1_000_000)))
    assert result[:3] == [0, 1, 2]
    assert result[-1] == {"cut": "", "original_length": 1_000_000}
    assert len(result) <= 20_001


def test_a_huge_integer_is_quick() -> None:
    result = check(1 << 4_000_000)
    assert result["cut"].startswith("0x1000")


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.characters(categories=["Cs"]) | st.decimals() | st.datetimes() | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner)
    | st.dictionaries(st.text() | st.integers() | st.none() | st.booleans(), inner)
    | st.builds(Point, st.integers(), inner),
    max_leaves=40,
)  # fmt: skip


@given(_anything)
def test_any_value(value: Any) -> None:
    result = check(value)
    assert plain(result) == result
