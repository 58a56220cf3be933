"""The events as a JSON Schema, for those who read or write them in other languages."""

from typing import Any

import msgspec

from checkrein.events.types import TYPES, Event

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of any event of this version: one definition a type, chosen by `type`.

    Fields that it does not name are allowed everywhere: readers keep what they do not know.
    """
    schema = msgspec.json.schema(Event)
    return {
        "$schema": DIALECT,
        "title": "Checkrein event",
        "description": f"One of {len(TYPES)} types of events, told apart by `type`.",
        **schema,
    }
