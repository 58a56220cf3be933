"""A tool's arguments are checked against its schema before the call."""

from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkrein.policy.arguments import SchemaError, compile_arguments, shorthand

REFUND = shorthand(
    {"order": "string", "cents": "integer", "note": "optional string", "any": "any?"}
)


def check(schema: dict[str, Any], value: Any) -> str:
    return compile_arguments(schema)(value, "args")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"order": "A1", "cents": 5}, ""),
        ({"order": "A1", "cents": 5, "note": "x", "any": [1]}, ""),
        ({"order": "A1", "cents": "5"}, ""),
        ({"order": 17, "cents": 5.0}, ""),
        ({"order": "A1"}, "`args.cents` is missing"),
        ({"order": "A1", "cents": "five"}, "`args.cents` should be a whole number"),
        ({"order": "A1", "cents": 5.5}, "whole number"),
        ({"order": ["A1"], "cents": 5}, "`args.order` should be a text"),
        ({"order": "A1", "cents": True}, "whole number"),
        ({"order": "A1", "cents": 5, "notes": "x"}, "did you mean `note`?"),
        ([1], "should be a map"),
        (None, "should be a map"),
    ],
)
def test_a_call_is_checked_whole(value: Any, says: str) -> None:
    found = check(REFUND, value)
    assert (found == "") == (says == "")
    assert says in found


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string", "enum": ["r", "rw"]}, "r", "read"),
        ({"const": {"a": 1}}, {"a": 1}, {"a": 2}),
        ({"type": "integer", "minimum": 1, "maximum": 9}, 9, 10),
        ({"type": "number", "exclusiveMaximum": 2}, 1.9, 2),
        ({"type": "string", "minLength": 2, "maxLength": 3}, "abc", "abcd"),
        ({"type": "string", "pattern": "^[A-Z]+$"}, "AB", "ab"),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 2}, [1, 2], [1, 2, 3]),
        ({"type": "array", "items": {"type": "string"}}, ["a"], [["a"]]),
        ({"anyOf": [{"type": "null"}, {"type": "array"}]}, None, "x"),
        ({"type": ["string", "null"]}, None, []),
        ({"type": "boolean"}, "true", "maybe"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1}, {"a": "x"}),
        ({"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"}, 1, "x"),
        ({"type": "array", "uniqueItems": True}, [1, 2], [1, 1]),
        ({"not": {"type": "string"}}, 1, "x"),
        (False, None, 1),
    ],
)  # fmt: skip
def test_each_keyword_lets_pass_and_refuses(schema: Any, good: Any, bad: Any) -> None:
    whole = {"type": "object", "properties": {"x": schema}, "$defs": {"n": {"type": "integer"}}}
    assert check(whole, {"x": good} if schema is not False else {}) == ""
    assert check(whole, {"x": bad}) != ""


def test_a_schema_that_refers_to_itself_is_bounded() -> None:
    tree = {
        "$defs": {"tree": {"type": "object", "properties": {"in": {"$ref": "#/$defs/tree"}}}},
        "$ref": "#/$defs/tree",
    }
    value: dict[str, Any] = {}
    for _ in range(500):
        value = {"in": value}
    assert "too deeply" in check(tree, value)
    assert check(tree, {"in": {"in": {}}}) == ""


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "text"}, {"properties": {"x": 3}}, {"$ref": "https://example.com/a.json"},
        {"$ref": "#/nowhere"}, {"type": "string", "pattern": "(?=x)"}, {"pattern": "["},
    ],
)  # fmt: skip
def test_a_schema_that_cannot_be_used_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        compile_arguments(schema)


def test_shorthand_names_the_word_it_does_not_know() -> None:
    with pytest.raises(SchemaError, match="did you mean `string`"):
        shorthand({"order": "sting"})


simple = st.recursive(
    st.sampled_from([
        {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"},
        {"type": "null"}, {"enum": ["a", 1, None]}, {},
    ]),
    lambda inner: st.one_of(
        st.builds(lambda one: {"type": "array", "items": one}, inner),
        st.builds(lambda one, two: {"anyOf": [one, two]}, inner, inner),
        st.builds(
            lambda fields, more: {
                "type": "object", "properties": fields, "required": sorted(fields)[:1],
                "additionalProperties": more,
            },
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3), st.booleans(),
        ),
    ),
    max_leaves=6,
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["a", "b", "x y"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(simple, values)
def test_what_the_reference_accepts_is_never_refused(schema: dict[str, Any], value: Any) -> None:
    """Ours reads numbers in texts and texts in numbers as tools' libraries do, so it may accept
    more; it may never refuse what the standard accepts."""
    if jsonschema.Draft202012Validator(schema).is_valid(value):
        assert check(schema, value) == ""


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner:
    st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([
        "type", "properties", "required", "items", "enum", "anyOf", "$ref", "pattern", "minimum",
    ]), inner), max_leaves=20))  # fmt: skip
def test_any_schema_is_compiled_or_refused(said: Any) -> None:
    if not isinstance(said, dict):
        return
    try:
        found = compile_arguments(said)
    except SchemaError:
        return
    assert isinstance(found({"a": 1}, "args"), str)
    msgspec.json.encode(said)
