from typing import Any

import pytest

from checkrein.policy.arguments import compile_arguments
from checkrein.policy.limits import in_words, limited, tightened
from checkrein.policy.pact import load
from checkrein.policy.types import ToolRule

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "cents": {"type": "integer", "maximum": 100_000},
        "currency": {"type": "string", "enum": ["USD", "EUR"]},
        "to": {"type": "string"},
        "note": {"type": "string"},
        "deep": {"type": "object", "properties": {"level": {"type": "integer"}}},
    },
    "required": ["cents"],
}


def of(allow: str, schema: Any = None) -> Any:
    return limited(SCHEMA if schema is None else schema, [ToolRule(allow=allow)])["properties"]


@pytest.mark.parametrize(
    ("allow", "name", "limits"),
    [
        ("args.cents <= 5000", "cents", {"maximum": 5000}),
        ("args.cents <= 500000", "cents", {"maximum": 100_000}),
        ("5 < args.cents", "cents", {"exclusiveMinimum": 5, "maximum": 100_000}),
        ("args.cents >= -5 && args.cents < 7", "cents", {"minimum": -5, "exclusiveMaximum": 7}),
        ('args.currency == "USD"', "currency", {"const": "USD", "enum": ["USD"]}),
        ('args.currency in ["USD", "GBP"]', "currency", {"enum": ["USD"]}),
        ('args.to == "a" || args.to == "b"', "to", {"enum": ["a", "b"]}),
        ('args.to.matches("^[a-z]+$")', "to", {"pattern": "^[a-z]+$"}),
        ('args.to.startsWith("a.b")', "to", {"pattern": "^a\\.b"}),
        ('args.to.endsWith("@x.org")', "to", {"pattern": "@x\\.org$"}),
        ("size(args.note) <= 80", "note", {"maxLength": 80}),
        ('args["cents"] <= 5', "cents", {"maximum": 5}),
        ("args.new <= 5", "new", {"maximum": 5}),
    ],
)
def test_what_a_schema_can_say_is_said(allow: str, name: str, limits: Any) -> None:
    found = of(allow)[name]
    assert {key: found.get(key) for key in limits} == limits


@pytest.mark.parametrize(
    "allow",
    [
        'args.cents <= 5 || args.to == "a"',  # either may hold
        "args.cents * 2 <= 5",
        "!(args.cents > 5)",
        "args.cents != 5",
        'args.to.matches("(?i)a")',  # no pattern of JSON schema
        "spent.usd < 5",
        "args.cents <= args.most",
        "step > 3 ? args.cents < 5 : args.cents < 7",
    ],
)
def test_what_it_cannot_say_is_left_to_the_guard(allow: str) -> None:
    assert of(allow) == SCHEMA["properties"]


def test_what_must_be_compared_must_be_there_and_depth_is_followed() -> None:
    found = limited(SCHEMA, [ToolRule(allow="args.deep.level < 3 && has(args.to)")])
    assert found["required"] == ["cents", "deep", "to"]
    assert found["properties"]["deep"]["properties"]["level"]["exclusiveMaximum"] == 3
    assert found["properties"]["deep"]["required"] == ["level"]
    assert SCHEMA["required"] == ["cents"], "the tool's own schema stays as it is"


def test_limits_go_beside_a_reference_and_a_second_pattern() -> None:
    schema = {"$ref": "#/$defs/Money"}
    assert tightened(schema, {"maximum": 5}) == {**schema, "allOf": [{"maximum": 5}]}
    both = tightened({"type": "string", "pattern": "^a"}, {"pattern": "b$"})
    assert both == {"type": "string", "pattern": "^a", "allOf": [{"pattern": "b$"}]}


def test_declared_arguments_close_the_schema() -> None:
    pact = load(
        "pact: a\njob: test\ntools:\n  pay:\n    arguments: {cents: integer, to: optional string}\n"
    )
    assert pact.tools is not None
    found = limited(SCHEMA, [pact.tools["pay"]])
    assert set(found["properties"]) == {"cents", "to"}
    assert found["additionalProperties"] is False
    assert found["properties"]["cents"]["maximum"] == 100_000


def test_a_schema_never_refuses_what_the_condition_allows() -> None:
    allow = 'args.currency == "USD" && args.cents <= 5000 && args.to.startsWith("a+b")'
    check = compile_arguments(limited(SCHEMA, [ToolRule(allow=allow)]))
    assert check({"currency": "USD", "cents": 5000, "to": "a+bc"}, "args") == ""
    assert "at most 5000" in check({"currency": "USD", "cents": 5001, "to": "a+bc"}, "args")


@pytest.mark.parametrize("schema", [None, [], "x", {"$ref": "#/x"}, {"properties": []}, {}])
def test_a_schema_that_is_none_raises_nothing(schema: Any) -> None:
    assert isinstance(limited(schema, [ToolRule(allow="args.a.b < 3")]), dict)


def test_the_rest_is_said_in_words() -> None:
    rule = ToolRule(allow="args.a <\n 5", ask="args.a > 2", once_per="args.order")
    assert in_words([rule, rule]) == (
        "allowed only if args.a < 5; a person is asked first if args.a > 2; "
        "once for each args.order"
    )
