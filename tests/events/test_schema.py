"""The exported schema: a valid schema, that takes what we write and refuses what we would."""

import json
from typing import Any

import jsonschema
import pytest

from checkrein.events import codec
from checkrein.events.schema import json_schema
from checkrein.events.types import COMMON, TYPES, Base

_SAMPLES: dict[type, Any] = {str: "text", int: 1, float: 0.5, bool: True}
_PLACE: dict[str, Any] = {
    "recorder": "r", "seq": 1, "ts": 1, "environment": "", "room": "", "agent": "a",
    "run_id": "", "task_id": "0" * 32, "step": 0,
}  # fmt: skip
_REQUIRED: dict[str, dict[str, Any]] = {
    "run.end": {"status": "completed"},
    "scope.decision": {"action": {"kind": "tool"}, "verdict": "deny"},
    "approval.decided": {"decision": "approved"},
    "signal": {"level": "warn"},
    "incident": {"severity": "low"},
    "loss": {"count": 3},
}


def sample(kind: type[Base]) -> Base:
    """An event with the fields that its type asks for."""
    name = str(kind.__struct_config__.tag)
    fields: dict[str, Any] = dict(_PLACE)
    count = len(kind.__struct_defaults__)
    required = kind.__struct_fields__[: len(kind.__struct_fields__) - count]
    for field in required:
        if field not in COMMON:
            fields[field] = "x"
    return kind(**fields | _REQUIRED.get(name, {}))


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(json.dumps(json_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", sorted(TYPES))
def test_takes_every_type(name: str, validator: jsonschema.Draft202012Validator) -> None:
    event = json.loads(codec.to_json(sample(TYPES[name])))
    validator.validate(event)
    validator.validate(event | {"a_field_of_tomorrow": [1]})
    assert codec.from_fields(event) == sample(TYPES[name])


@pytest.mark.parametrize(
    "wrong", [{"type": "tool.exploded"}, {"seq": "1"}, {"agent": None}, {"status": "vanished"}]
)
def test_refuses(wrong: dict[str, Any], validator: jsonschema.Draft202012Validator) -> None:
    event = json.loads(codec.to_json(sample(TYPES["run.end"])))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(event | wrong)


def test_refuses_what_lacks_a_common_field(validator: jsonschema.Draft202012Validator) -> None:
    event = json.loads(codec.to_json(sample(TYPES["output"])))
    del event["recorder"]
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(event)
