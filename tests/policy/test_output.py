"""What is handed over, against its schema: as the reference says, and bounded."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from checkrein.policy.output import OBJECTIONS_MAX, Output, OutputError, compile_output

REPLY = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "answer": {"type": "string", "minLength": 1, "pattern": "^[a-z ]+$"},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}, "uniqueItems": True},
    },
    "patternProperties": {"^x-": {"type": "integer"}},
    "additionalProperties": False,
    "required": ["answer"],
    "$defs": {"item": {"type": "object", "properties": {"price": {"type": "number"}}}},
}


def output(schema: Any) -> Output:
    return compile_output(json.dumps(schema))


def test_objections_name_the_place() -> None:
    reply = output(REPLY)
    assert reply.objections({"answer": "yes", "items": [{"price": 3}], "x-n": 1}) == []
    found = reply.objections({"answer": "No!", "items": [{"price": 1}, {"price": "3"}], "x-n": "a"})
    assert sorted(text.split(":")[0] for text in found) == [
        "$.answer", "$.items[1].price", "$.x-n",
    ]  # fmt: skip
    assert "'3' is not of type 'number'" in " ".join(found)
    assert "'answer' is a required property" in reply.objections({})[0]
    assert "'more'" in reply.objections({"answer": "a", "more": 1})[0]
    assert reply.objections(3)
    assert reply.objections({"answer": "a", "items": ({"price": 1},)}) == []


def test_a_text_is_read_as_json() -> None:
    reply = output(REPLY)
    assert reply.objections('{"answer": "yes"}') == []
    assert reply.objections('{"answer": "NO"}')[0].startswith("$.answer")
    assert "not of type 'object'" in reply.objections("yes")[0]
    assert output({"type": "string"}).objections('{"a": 1}') == []


def test_at_most_twenty_and_short() -> None:
    found = output({"items": {"type": "integer"}}).objections(["x" * 5000] * 150)
    assert len(found) == OBJECTIONS_MAX
    assert max(map(len, found)) < 300


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ('{"type": "thing"}', "$.type"),
        ('{"properties": {"a": {"minLength": -1}}}', "$.properties.a.minLength"),
        ('{"properties": {"a": {"pattern": "(?=x)"}}}', "$.properties.a.pattern"),
        ('{"patternProperties": {"(": {}}}', "$.patternProperties"),
        ('{"pattern": "(a)\\\\1"}', "$.pattern"),
        ('{"$ref": "https://evil.com/schema"}', "$.$ref"),
        ('{"$ref": "file:///etc/passwd"}', "$.$ref"),
        ('{"items": {"$ref": "other.json"}}', "$.items.$ref"),
        ('{"$ref": "#/$defs/none"}', "$.$ref"),
        ('{"$dynamicRef": "x"}', "$.$dynamicRef"),
        ('{"$id": "https://evil.com"}', "$.$id"),
        ('{"$schema": "http://json-schema.org/draft-07/schema#"}', "$.$schema"),
        ('{"items": {"$schema": "http://json-schema.org/draft-07/schema#"}}', "$.items.$schema"),
        ('{"examples": [{"$schema": "x"}], "$ref": "#/examples/0"}', "$.$ref.$schema"),
        ('{"unevaluatedProperties": false, "patternProperties": {"a": {}}}', "$"),
        ("{", "$"), ("[]", "$"), ("3", "$"), ('{"a": 1, "a": 2}', "$"), ("", "$"),
        ("[" * 100_000, "$"), ('{"items":' * 200 + "{}" + "}" * 200, "$"),
        ('{"const": "' + "x" * 300_000 + '"}', "$"),
    ],
)  # fmt: skip
def test_what_is_no_schema_is_refused(schema: str, place: str) -> None:
    with pytest.raises(OutputError) as caught:
        compile_output(schema)
    assert caught.value.place == place


def test_words_that_only_look_like_keywords_are_left_alone() -> None:
    schema = {
        "properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}, "$id": {}},
        "enum": [{"$ref": "x"}, {"pattern": "("}],
    }
    assert output(schema).objections({"$ref": "x"}) == []


BOMBS: dict[str, tuple[Any, Any]] = {
    "a pattern that backtracks": ({"pattern": "^(a+)+$"}, "a" * 500 + "!"),
    "pattern properties": ({"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
                           {"a" * 500 + "!": 1}),
    "endless reference": ({"$ref": "#"}, {}),
    "doubling references": (
        {"$ref": "#/$defs/d0", "$defs": {
            **{f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)},
            "d30": {"type": "string"}}}, 3),
    "doubling references, unevaluated": (
        {"$ref": "#/$defs/d0", "unevaluatedProperties": False, "$defs": {
            **{f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)},
            "d30": {"required": ["a"]}}}, {"a": 1, "b": 2}),
    "unique items of many kinds": ({"uniqueItems": True}, [[n,
    {"a": n}] for n in range(6000)] + [[1]] * 2),
    "many values": ({"type": "array", "items": {"type": "integer"}}, ["x"] * 30_000),
    "long text": ({"maxLength": 3}, "x" * 2_000_000),
    "deep": ({"type": "integer"}, json.loads("[" * 500 + "]" * 500)),
    "any of any of": ({"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}], "$defs": {
        "a": {"type": "object", "additionalProperties": {"anyOf": [{"$ref": "#/$defs/a"}] * 3}}}},
        json.loads('{"a":' * 30 + "3" + "}" * 30)),
    "a huge number": ({"multipleOf": 1e-300}, 10**900),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_objected_to_in_time(name: str) -> None:
    schema, value = BOMBS[name]
    compiled = output(schema)
    begun = time.perf_counter()
    found = compiled.objections(value)
    assert time.perf_counter() - begun < 5
    assert found
    assert sum(map(len, found)) < 10_000


def test_an_endless_value_is_objected_to() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert "deep" in output({}).objections(loop)[0]
    assert "no text" in output({}).objections({1: 2})[0]


def test_unique_items_tells_true_from_one() -> None:
    unique = output({"uniqueItems": True})
    assert unique.objections([1, True, "1", [1], [True], {"a": 1}, {"a": True}, None]) == []
    assert unique.objections([1, 1.0])
    assert unique.objections([{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}])


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*args: Any, **more: Any) -> Any:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "socket", refuse)
    for reference in ("http://localhost:1/x", "https://evil.com/x", "urn:x", "//evil.com/x"):
        with pytest.raises(OutputError):
            output({"allOf": [{"$ref": reference}]})


# ------------------------------------------------------------------ against the reference validator

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "ab", "x-a", "1.5"])
    | st.sampled_from([0.5, 1.0]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["a", "b", "x-a", "c"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
LEAVES = st.sampled_from([
    {"type": "string"}, {"type": "integer"}, {"type": ["array", "null"]}, {"minimum": 0},
    {"maxLength": 1}, {"pattern": "^a"}, {"const": 1}, {"enum": ["a", None, 1.0]}, True, False,
    {"uniqueItems": True}, {"minItems": 2}, {"required": ["a"]}, {"multipleOf": 0.5},
    {"minProperties": 1}, {"type": "boolean"}, {"$ref": "#/$defs/one"}, {"maxItems": 1},
])  # fmt: skip


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(lambda a, b: {"properties": {"a": a, "x-a": b}}, inner, inner),
        st.builds(
            lambda a, b: {"patternProperties": {"^x-": a}, "additionalProperties": b}, inner, inner
        ),
        st.builds(lambda a, b: {"prefixItems": [a], "items": b}, inner, inner),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
        st.builds(lambda a, b: {"oneOf": [a, b]}, inner, inner),
        st.builds(lambda a, b: {"allOf": [a], "not": b}, inner, inner),
        st.builds(lambda a, b: {"if": a, "then": b}, inner, inner),
        st.builds(lambda a: {"contains": a}, inner),
        st.builds(lambda a: {"propertyNames": a}, inner),
        st.builds(lambda a: {"dependentSchemas": {"a": a}}, inner),
    )


SCHEMAS = st.recursive(LEAVES, _larger, max_leaves=6).map(
    lambda schema: {"allOf": [schema], "$defs": {"one": {"type": "integer"}}}
)


@settings(max_examples=600, deadline=None)
@given(SCHEMAS, VALUES)
def test_agrees_with_the_reference(schema: Any, value: Any) -> None:
    reference = Draft202012Validator(schema).is_valid(value)
    assert (output(schema)._objections(value) == []) is reference


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=60) | SCHEMAS.map(json.dumps), VALUES | st.text() | st.binary() | st.floats()
)
def test_never_crashes(schema: str, value: Any) -> None:
    try:
        compiled = compile_output(schema)
    except OutputError:
        return
    assert all(isinstance(text, str) for text in compiled.objections(value))
