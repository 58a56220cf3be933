"""What a tool's arguments must look like: its JSON schema, compiled to one quick check.

The keywords that tools' schemas use are compiled here (`type`, `properties`, `required`,
`additionalProperties`, `items`, `enum`, `const`, bounds, `pattern` by RE2, `anyOf`, `$ref` within
the schema); a schema that uses any other is checked by the `jsonschema` library as a whole. As the
libraries that run tools do, a number written as text passes for a number, and a whole number for a
text where a text is wanted: they convert it, so to refuse it would stop what works.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from checkrein.policy.nearest import did_you_mean

Check = Callable[[Any, str], str]
"""`check(value, where)`: what is wrong with it, or ""."""

DEPTH_MAX = 32
SCHEMA_NODES_MAX = 5000
_NOTES = frozenset({
    "title", "description", "default", "examples", "$defs", "definitions", "$schema", "$id",
    "format", "deprecated", "readOnly", "writeOnly", "$comment",
})  # fmt: skip
_KNOWN = frozenset({
    "type", "properties", "required", "additionalProperties", "items", "enum", "const", "minimum",
    "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems",
    "maxItems", "pattern", "anyOf", "$ref", "nullable",
})  # fmt: skip
_WORDS = {
    "string": "string", "text": "string", "integer": "integer", "int": "integer",
    "number": "number", "float": "number", "boolean": "boolean", "bool": "boolean",
    "object": "object", "map": "object", "array": "array", "list": "array",
}  # fmt: skip


class SchemaError(ValueError):
    """A schema that cannot be used; the message says why."""


def shorthand(said: Mapping[str, Any]) -> dict[str, Any]:
    """`{order: string, note: optional string}` as a JSON schema; a JSON schema stays as it is.
    Raises SchemaError. `string?` says the same as `optional string`, where YAML allows it."""
    if "properties" in said or said.get("type") == "object" or "$ref" in said:
        return dict(said)
    properties: dict[str, Any] = {}
    required = []
    for name, word in said.items():
        if isinstance(word, dict):
            properties[name] = word
            required.append(name)
            continue
        text = str(word)
        kind = text.removeprefix("optional ").removesuffix("?").strip()
        if kind == "any":
            properties[name] = {}
        elif kind not in _WORDS:
            raise SchemaError(
                f"argument `{name}` is of type {text!r}{did_you_mean(kind, _WORDS)}; "
                "write string, integer, number, boolean, object, array or any, `optional` before "
                "it when it may be missing"
            )
        else:
            properties[name] = {"type": _WORDS[kind]}
        if kind == text:
            required.append(name)
    return {
        "type": "object", "properties": properties, "required": required,
        "additionalProperties": False,
    }  # fmt: skip


def compile_arguments(schema: Mapping[str, Any]) -> Check:
    """The check of a whole call's arguments. Raises SchemaError."""
    try:
        _count(schema)
        return _Compiler(schema).check_of(schema, 0)
    except _Foreign:
        return _library_check(schema)
    except (AttributeError, TypeError, RecursionError) as error:
        raise SchemaError(f"this is no JSON schema: {error}") from None


class _Foreign(Exception):
    """The schema uses a keyword that is not compiled here."""


def _count(schema: Any) -> None:
    open_values, seen = [(schema, 0)], 0
    while open_values:
        value, depth = open_values.pop()
        seen += 1
        if seen > SCHEMA_NODES_MAX or depth > DEPTH_MAX * 4:
            raise SchemaError("the schema is too large or too deep")
        children = (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        )
        open_values.extend((child, depth + 1) for child in children)


class _Compiler:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._references: dict[str, Check] = {}

    def check_of(self, schema: Any, depth: int) -> Check:
        if schema is True or schema == {}:
            return _anything
        if schema is False:
            return lambda value, where: f"`{where}` may not be given"
        if not isinstance(schema, Mapping):
            raise SchemaError(f"a schema should be a map, not {type(schema).__name__}")
        if set(schema) - _KNOWN - _NOTES:
            raise _Foreign
        if depth > DEPTH_MAX:
            raise SchemaError("the schema is nested too deeply")
        checks: list[Check] = []
        if "$ref" in schema:
            checks.append(self._reference(str(schema["$ref"]), depth))
        if "anyOf" in schema:
            checks.append(_any_of([self.check_of(one, depth + 1) for one in schema["anyOf"]]))
        if "enum" in schema:
            checks.append(_enum(list(schema["enum"])))
        if "const" in schema:
            checks.append(_enum([schema["const"]]))
        if "type" in schema:
            checks.append(self._typed(schema, depth))
        else:
            checks.extend(_bounds(schema))
            if "properties" in schema or "required" in schema:
                checks.append(self._object(schema, depth, only_objects=True))
        if len(checks) == 1:
            return checks[0]
        return _all(checks) if checks else _anything

    def _reference(self, reference: str, depth: int) -> Check:
        if not reference.startswith("#/"):
            raise SchemaError(f"`$ref` {reference!r} leads out of the schema")
        known = self._references.get(reference)
        if known is not None:
            return known
        target: Any = self._root
        for part in reference[2:].split("/"):
            part = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, Mapping) or part not in target:
                raise SchemaError(f"`$ref` {reference!r} leads nowhere")
            target = target[part]

        def through(value: Any, where: str) -> str:  # a schema may refer to itself
            if where.count(".") + where.count("[") > DEPTH_MAX:
                return f"`{where}` is nested too deeply"
            return self._references[reference + "!"](value, where)

        self._references[reference] = through
        self._references[reference + "!"] = self.check_of(target, depth + 1)
        return through

    def _typed(self, schema: Mapping[str, Any], depth: int) -> Check:
        said = schema["type"]
        names = [str(name) for name in said] if isinstance(said, list) else [str(said)]
        if schema.get("nullable"):
            names.append("null")
        checks: list[Check] = []
        for name in names:
            match name:
                case "object":
                    checks.append(self._object(schema, depth, only_objects=False))
                case "array":
                    checks.append(self._array(schema, depth))
                case "string" | "integer" | "number" | "boolean" | "null":
                    checks.append(_all([_SIMPLE[name], *_bounds(schema)]))
                case _:
                    raise SchemaError(f"`type` {name!r} is none of JSON schema's")
        return checks[0] if len(checks) == 1 else _any_of(checks)

    def _array(self, schema: Mapping[str, Any], depth: int) -> Check:
        items = schema.get("items", True)
        if isinstance(items, list):
            raise _Foreign
        item, least, most = (
            self.check_of(items, depth + 1), schema.get("minItems"), schema.get("maxItems"),
        )  # fmt: skip

        def check(value: Any, where: str) -> str:
            if not isinstance(value, list | tuple):
                return f"`{where}` should be a list, and is {_shown(value)}"
            if least is not None and len(value) < least:
                return f"`{where}` has {len(value)} items, at least {least} are needed"
            if most is not None and len(value) > most:
                return f"`{where}` has {len(value)} items, at most {most} may be given"
            if item is not _anything:
                for index, one in enumerate(value):
                    problem = item(one, f"{where}[{index}]")
                    if problem:
                        return problem
            return ""

        return check

    def _object(self, schema: Mapping[str, Any], depth: int, only_objects: bool) -> Check:
        fields = {
            str(name): self.check_of(one, depth + 1)
            for name, one in schema.get("properties", {}).items()
        }
        required = tuple(str(name) for name in schema.get("required", ()))
        more = schema.get("additionalProperties", True)
        other = self.check_of(more, depth + 1) if isinstance(more, Mapping) else None

        def check(value: Any, where: str) -> str:
            if not isinstance(value, dict):
                return "" if only_objects else f"`{where}` should be a map, and is {_shown(value)}"
            for name in required:
                if name not in value:
                    return f"`{where}.{name}` is missing"
            for name, one in value.items():
                field = fields.get(name)
                if field is None:
                    if more is False:
                        return (
                            f"`{where}.{name}` is not an argument{did_you_mean(str(name), fields)}"
                        )
                    field = other
                if field is not None:
                    problem = field(one, f"{where}.{name}")
                    if problem:
                        return problem
            return ""

        return check


def _anything(value: Any, where: str) -> str:
    return ""


def _all(checks: list[Check]) -> Check:
    def check(value: Any, where: str) -> str:
        for one in checks:
            problem = one(value, where)
            if problem:
                return problem
        return ""

    return check


def _any_of(checks: list[Check]) -> Check:
    def check(value: Any, where: str) -> str:
        problem = f"`{where}` may be nothing at all"
        for one in checks:
            found = one(value, where)
            if not found:
                return ""
            problem = found
        return problem

    return check


def _enum(values: list[Any]) -> Check:
    keys = {msgspec.json.encode(value, order="deterministic") for value in values}
    shown = ", ".join(_shown(value) for value in values[:10])

    def check(value: Any, where: str) -> str:
        try:
            if msgspec.json.encode(value, order="deterministic") in keys:
                return ""
        except (TypeError, ValueError):
            pass
        return f"`{where}` is {_shown(value)}; it may be {shown}"

    return check


def _string(value: Any, where: str) -> str:
    if isinstance(value, str) or type(value) in (int, float):
        return ""
    return f"`{where}` should be a text, and is {_shown(value)}"


def _integer(value: Any, where: str) -> str:
    if type(value) is int:
        return ""
    number = _number_in(value)
    if number is not None and number.is_integer():
        return ""
    return f"`{where}` should be a whole number, and is {_shown(value)}"


def _number(value: Any, where: str) -> str:
    if type(value) is int or type(value) is float:
        return ""
    if _number_in(value) is not None:
        return ""
    return f"`{where}` should be a number, and is {_shown(value)}"


def _boolean(value: Any, where: str) -> str:
    if isinstance(value, bool) or str(value).lower() in ("true", "false"):
        return ""
    return f"`{where}` should be true or false, and is {_shown(value)}"


def _null(value: Any, where: str) -> str:
    return "" if value is None else f"`{where}` should be nothing, and is {_shown(value)}"


_SIMPLE: dict[str, Check] = {
    "string": _string, "integer": _integer, "number": _number, "boolean": _boolean, "null": _null,
}  # fmt: skip


def _number_in(value: Any) -> float | None:
    """The number that a value is or says, as a tool's library would read it."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _bounds(schema: Mapping[str, Any]) -> list[Check]:
    checks: list[Check] = []
    for name, word, wrong in (
        ("minimum", "at least", lambda number, bound: number < bound),
        ("maximum", "at most", lambda number, bound: number > bound),
        ("exclusiveMinimum", "more than", lambda number, bound: number <= bound),
        ("exclusiveMaximum", "less than", lambda number, bound: number >= bound),
    ):
        bound = schema.get(name)
        if isinstance(bound, int | float) and not isinstance(bound, bool):
            checks.append(_bound(bound, word, wrong))
    for name, word, wrong in (
        ("minLength", "at least", lambda count, bound: count < bound),
        ("maxLength", "at most", lambda count, bound: count > bound),
    ):
        bound = schema.get(name)
        if isinstance(bound, int):
            checks.append(_length(bound, word, wrong))
    if "pattern" in schema:
        checks.append(_pattern(str(schema["pattern"])))
    return checks


def _bound(bound: float, word: str, wrong: Callable[[float, float], bool]) -> Check:
    def check(value: Any, where: str) -> str:
        number = _number_in(value)
        if number is not None and wrong(number, bound):
            return f"`{where}` is {_shown(value)}, it should be {word} {bound:g}"
        return ""

    return check


def _length(bound: int, word: str, wrong: Callable[[float, float], bool]) -> Check:
    def check(value: Any, where: str) -> str:
        if isinstance(value, str) and wrong(len(value), bound):
            return f"`{where}` has {len(value)} characters, it should have {word} {bound}"
        return ""

    return check


def _pattern(text: str) -> Check:
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        pattern = re2.compile(text, options)
    except re2.error as error:
        raise SchemaError(f"`pattern` {text!r} is no regular expression of RE2: {error}") from None

    def check(value: Any, where: str) -> str:
        if isinstance(value, str) and not pattern.search(value):
            return f"`{where}` is {_shown(value)}, which does not match {text!r}"
        return ""

    return check


def _library_check(schema: Mapping[str, Any]) -> Check:
    from checkrein.policy.output import OutputError, compile_output

    try:
        output = compile_output(msgspec.json.encode(schema).decode())
    except OutputError as error:
        raise SchemaError(str(error)) from None

    def check(value: Any, where: str) -> str:
        found = output.objections(value)
        return f"`{where}`: {found[0]}" if found else ""

    return check


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
