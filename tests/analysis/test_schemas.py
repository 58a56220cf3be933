"""Schemas of tools in the forms that files have them."""

import pytest

from checkrein.analysis.following import with_schemas
from checkrein.analysis.schemas import by_schema, schema_lookup
from checkrein.policy.pact import load

PAY = {"type": "object", "properties": {"to": {"type": "string"}}}


@pytest.mark.parametrize(
    "said",
    [
        {"pay": {"parameters": PAY}},
        {"pay": {"input_schema": PAY}},
        {"pay": PAY},
        [{"name": "pay", "parameters": PAY}],
        [{"type": "function", "function": {"name": "pay", "parameters": PAY}}],
    ],
)
def test_forms_of_one_schema(said: object) -> None:
    assert by_schema(said) == {"": {"pay": PAY}}
    assert schema_lookup(by_schema(said))({"tool_schema": "any"}) == {"pay": PAY}


def test_schemas_by_name_and_by_caller() -> None:
    found = by_schema({"bank": {"pay": {"parameters": PAY}}, "mail": {"user": {"pay": PAY}}})
    lookup = schema_lookup(found)
    assert lookup({"tool_schema": "bank"}) == {"pay": PAY}
    assert lookup({"domain": "mail"}) == {"pay": PAY}
    assert lookup({"tool_schema": "else"}) == {}


def test_what_is_no_schema_is_refused() -> None:
    with pytest.raises(ValueError, match="a map of names"):
        by_schema("tools")


def test_a_pact_that_allows_any_tool_still_does() -> None:
    pact = with_schemas(load("pact: p\n"), {"pay": PAY})
    assert set(pact.tools or ()) == {"pay", "*"}
    own = with_schemas(
        load("pact: p\ntools:\n  pay: {arguments: {n: integer}}\n  x: {}\n"), {"pay": PAY}
    )
    assert own.tools is not None
    assert "integer" in own.tools["pay"].arguments, "what the pact says itself stays"
    assert set(own.tools) == {"pay", "x"}
