"""Kinds: of the variables that every condition has, of a tool's JSON schema, and how they join."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from checkrein.policy.conditions.types import DYN, Kind, KindName

BOOL: Final = Kind("bool")
INT: Final = Kind("int")
DOUBLE: Final = Kind("double")
STRING: Final = Kind("string")
BYTES: Final = Kind("bytes")
NULL: Final = Kind("null")
LIST: Final = Kind("list")
MAP: Final = Kind("map")
TIMESTAMP: Final = Kind("timestamp")
DURATION: Final = Kind("duration")
TYPE: Final = Kind("type")

_SCHEMA_TYPES: Final[dict[str, KindName]] = {
    "boolean": "bool", "integer": "int", "number": "double", "string": "string",
    "null": "null", "array": "list", "object": "map",
}  # fmt: skip
_TEXTS: Final = (
    "tool", "kind", "agent", "room", "environment", "run_id", "task_id", "task_type", "goal",
    "model",
)  # fmt: skip
_SPENT: Final = Kind(
    "map",
    fields={"steps": INT, "tool_calls": INT, "tokens": INT, "usd": DOUBLE, "wall_s": DOUBLE},
)
_DEPTH_MAX = 16
_KINDS_MAX = 2000
_VALUES_MAX = 200


def standard_names(args: Kind = DYN) -> dict[str, Kind]:
    """The variables of every condition (see `types`), for a tool whose arguments are `args`."""
    names = {"args": MAP if args.name == "dyn" else args}
    names |= dict.fromkeys(_TEXTS, STRING)
    return names | {"step": INT, "spent": _SPENT, "confidence": DOUBLE}


def kind_of_schema(schema: Mapping[str, Any]) -> Kind:
    """What a JSON schema says of a value. Never raises: what it does not understand, or what is too
    deep or too large, is `dyn`.

    `integer` is int, `number` double; of `anyOf` and `oneOf` what all have in common, `null` among
    them left out (a condition may compare anything with null). A schema with `properties` lists all
    fields there are, unless its `additionalProperties` or `patternProperties` say otherwise: tools
    seldom close their schemas, and a misspelt field is the commonest mistake in a condition.
    """
    return _Reader(schema).kind(schema, 0)


class _Reader:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = _KINDS_MAX

    def kind(self, schema: Any, depth: int) -> Kind:
        self._left -= 1
        if not isinstance(schema, Mapping) or depth > _DEPTH_MAX or self._left < 0:
            return DYN
        if "$ref" in schema:
            return self.kind(self._referred(schema["$ref"]), depth + 1)
        for word in ("anyOf", "oneOf"):
            if isinstance(schema.get(word), Sequence) and schema[word]:
                return self._any_of(schema[word], depth)
        parts = schema.get("allOf")
        if isinstance(parts, Sequence) and parts:
            rest = {key: value for key, value in schema.items() if key != "allOf"}
            return self._all_of([*parts, rest] if "properties" in rest else parts, depth)
        return self._plain(schema, depth)

    def _referred(self, reference: Any) -> Any:
        """Of `#/$defs/Name`; references to other documents are not followed."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        found = self._root
        for part in reference[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def _any_of(self, parts: Sequence[Any], depth: int) -> Kind:
        kinds = [self.kind(part, depth + 1) for part in parts]
        some = [kind for kind in kinds if kind.name != "null"]
        if not some:
            return NULL
        kind = some[0]
        for other in some[1:]:
            kind = union(kind, other)
        return kind if len(some) == len(kinds) else _unbound(kind)

    def _all_of(self, parts: Sequence[Any], depth: int) -> Kind:
        kinds = [self.kind(part, depth + 1) for part in parts]
        known = [kind for kind in kinds if kind.name != "dyn"]
        if len(known) == 1:
            return known[0]
        if not known or any(kind.name != "map" for kind in known):
            return DYN
        fields: dict[str, Kind] = {}
        for kind in known:
            fields |= kind.fields or {}
        needed = {
            name for kind in known for name in (kind.fields or {}) if name not in kind.optional
        }
        is_open = any(kind.open or kind.fields is None for kind in known)
        return Kind("map", fields=fields, optional=frozenset(set(fields) - needed), open=is_open)

    def _plain(self, schema: Mapping[str, Any], depth: int) -> Kind:
        values, names = _values(schema), schema.get("type")
        if isinstance(names, str):
            name = _SCHEMA_TYPES.get(names)
            kind = Kind(name) if name else DYN
        elif isinstance(names, Sequence) and names:
            branches = [{**schema, "type": each} for each in names if isinstance(each, str)]
            return self._any_of(branches, depth)
        elif values:
            kind = _of_values(values)
        else:
            kind = MAP if "properties" in schema else DYN
        match kind.name:
            case "map":
                return self._map(schema, depth)
            case "list":
                return Kind("list", items=self.kind(schema.get("items"), depth + 1))
            case "int" | "double":
                least, most = _bounds(schema, kind.name == "int")
                return Kind(kind.name, values=values, least=least, most=most)
            case "string" | "bool":
                return Kind(kind.name, values=values)
            case _:
                return kind

    def _map(self, schema: Mapping[str, Any], depth: int) -> Kind:
        listed, more = schema.get("properties"), schema.get("additionalProperties")
        if not isinstance(listed, Mapping) or not listed:
            if more is False and "patternProperties" not in schema:
                return Kind("map", fields={})
            return Kind("map", items=self.kind(more, depth + 1))
        fields = {str(name): self.kind(each, depth + 1) for name, each in listed.items()}
        required = schema.get("required")
        needed = set(required) if isinstance(required, list) and _texts(required) else set()
        is_open = (more is not None and more is not False) or "patternProperties" in schema
        others = self.kind(more, depth + 1) if isinstance(more, Mapping) else None
        missing = frozenset(set(fields) - needed)
        return Kind("map", items=others, fields=fields, optional=missing, open=is_open)


def _texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _values(schema: Mapping[str, Any]) -> tuple[str | int | float | bool, ...] | None:
    """Of `enum` or `const`, when all are plain and null is not among them."""
    given = schema["enum"] if "enum" in schema else [schema["const"]] if "const" in schema else None
    if not isinstance(given, list) or not 0 < len(given) <= _VALUES_MAX:
        return None
    if not all(isinstance(value, str | int | float | bool) for value in given):
        return None
    return tuple(given)


def _of_values(values: Sequence[Any]) -> Kind:
    names = {type(value) for value in values}
    if names <= {int, float}:
        return INT if names == {int} else DOUBLE
    return {str: STRING, bool: BOOL}.get(names.pop(), DYN) if len(names) == 1 else DYN


def _bounds(schema: Mapping[str, Any], whole: bool) -> tuple[float | None, float | None]:
    least, most = _number(schema.get("minimum")), _number(schema.get("maximum"))
    if whole:
        over, under = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        if type(over) is int:
            least = over + 1 if least is None else max(least, over + 1)
        if type(under) is int:
            most = under - 1 if most is None else min(most, under - 1)
    return least, most


def _number(value: Any) -> float | None:
    return value if type(value) in (int, float) else None


def _unbound(kind: Kind) -> Kind:
    """Without what only `constancy` reads: null is possible too."""
    return msgspec.structs.replace(kind, values=None, least=None, most=None)


def union(left: Kind, right: Kind) -> Kind:
    """The kind of a value that is of the one or of the other: `dyn` when they differ (of int and
    double, double: a schema that allows both means a number)."""
    if {left.name, right.name} == {"int", "double"}:
        return DOUBLE
    return join(left, right)


def join(left: Kind, right: Kind) -> Kind:
    """As `union`, but int and double stay apart: of an expression both are possible."""
    if left.name != right.name:
        return DYN
    match left.name:
        case "list":
            return Kind("list", items=join(left.items or DYN, right.items or DYN))
        case "map" if left == right:
            return left
        case "map":
            return MAP
        case name:
            return left if left == right else Kind(name)


def name_of(kind: Kind) -> str:
    """For messages, as a person would say it."""
    return {
        "int": "whole number", "double": "number", "string": "text", "dyn": "value",
        "bool": "true-or-false",
    }.get(kind.name, kind.name)  # fmt: skip
