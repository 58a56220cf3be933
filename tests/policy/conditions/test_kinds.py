"""A tool's JSON schema as a Kind."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkrein.policy.conditions.compiling import (
    compile_condition,
    constancy,
    kind_of_schema,
    standard_names,
)
from checkrein.policy.conditions.types import DYN, ConditionError, Kind


@pytest.mark.parametrize(("schema", "kind"), [
    ({"type": "string"}, Kind("string")),
    ({"type": "integer"}, Kind("int")),
    ({"type": "number"}, Kind("double")),
    ({"type": "boolean"}, Kind("bool")),
    ({"type": "null"}, Kind("null")),
    ({"type": "array"}, Kind("list", items=DYN)),
    ({"type": "array", "items": {"type": "string"}}, Kind("list", items=Kind("string"))),
    ({"type": "object"}, Kind("map", items=DYN)),
    ({"type": "object", "additionalProperties": {"type": "integer"}},
     Kind("map", items=Kind("int"))),
    ({"type": "object", "additionalProperties": False}, Kind("map", fields={})),
    ({"properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]},
     Kind("map", fields={"a": Kind("string"), "b": DYN}, optional=frozenset({"b"}))),
    ({"properties": {"a": {}}, "required": ["a"], "additionalProperties": True},
     Kind("map", fields={"a": DYN}, open=True)),
    ({"type": ["string", "null"]}, Kind("string")),
    ({"type": ["integer", "number"]}, Kind("double")),
    ({"type": ["integer", "string"]}, DYN),
    ({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, Kind("int")),
    ({"oneOf": [{"type": "string"}, {"type": "boolean"}]}, DYN),
    ({"allOf": [{"type": "string"}, {"description": "x"}]}, Kind("string")),
    ({"allOf": [{"properties": {"a": {"type": "string"}}}], "properties": {"b": {}}},
     Kind("map", fields={"a": Kind("string"), "b": DYN}, optional=frozenset({"a", "b"}))),
    ({"$ref": "#/$defs/Cents", "$defs": {"Cents": {"type": "integer"}}}, Kind("int")),
    ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}}, Kind("int")),
    ({"$ref": "https://elsewhere.example/x.json"}, DYN),
    ({"$ref": "#"}, DYN),
    ({"type": "integer", "minimum": 1, "exclusiveMaximum": 10}, Kind("int", least=1, most=9)),
    ({"type": "number", "exclusiveMinimum": 0}, Kind("double")),
    ({"enum": ["a", "b"]}, Kind("string", values=("a", "b"))),
    ({"const": 1}, Kind("int", values=(1,))),
    ({"enum": ["a", None]}, DYN),
    ({"enum": ["a", 1]}, DYN),
    ({"type": "string", "enum": ["a", None]}, Kind("string")),
    ({"type": "wrong"}, DYN),
    ({}, DYN),
])  # fmt: skip
def test_what_a_schema_becomes(schema: dict[str, Any], kind: Kind) -> None:
    assert kind_of_schema(schema) == kind


def test_a_schema_that_contains_itself_ends() -> None:
    tree: dict[str, Any] = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {
        "$ref": "#"}, "value": {"type": "integer"}}}  # fmt: skip
    names = standard_names(kind_of_schema(tree))
    compile_condition("args.left.right.left.value > 1", names)
    with pytest.raises(ConditionError, match="unknown field `valuee`"):
        compile_condition("args.left.right.left.valuee > 1", names)


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just("object"),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from([
            "type", "properties", "items", "required", "anyOf", "allOf", "oneOf", "enum", "const",
            "$ref", "minimum", "additionalProperties", "exclusiveMinimum", "patternProperties",
        ]),
        inner,
        max_size=4,
    ),
    max_leaves=15,
)  # fmt: skip


@given(_JSON)
def test_no_schema_is_too_odd(schema: Any) -> None:
    kind = kind_of_schema(schema)
    condition = compile_condition("has(args.x) || step > 1", standard_names(Kind("dyn")))
    assert isinstance(kind, Kind)
    assert constancy(condition) == ""


def test_fields_of_an_open_map_are_not_errors() -> None:
    schema = {"properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}}
    names = standard_names(kind_of_schema(schema))
    compile_condition("args.b == 'x' && args.a > 1", names)
    with pytest.raises(ConditionError, match="no `>` of a text"):
        compile_condition("args.a > 1 && args['b'] > 1", names)


def test_arguments_that_nothing_is_known_of_are_a_map() -> None:
    with pytest.raises(ConditionError, match="no `>` of a map"):
        compile_condition("args > 1")
    compile_condition("args.whatever > 1")
