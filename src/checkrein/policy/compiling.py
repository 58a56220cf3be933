"""What the names in a tool's conditions are: the standard ones, and its arguments as typed by its
schema."""

from collections.abc import Mapping
from functools import lru_cache

import msgspec

from checkrein.policy.conditions.types import Kind


@lru_cache(maxsize=512)
def names_for(schema: str) -> Mapping[str, Kind]:
    """`schema`: a tool's JSON schema as JSON text; empty when nobody has said, and then every
    argument may be anything."""
    from checkrein.policy.conditions.compiling import kind_of_schema, standard_names

    return standard_names(kind_of_schema(msgspec.json.decode(schema))) if schema else (
        standard_names()
    )  # fmt: skip
