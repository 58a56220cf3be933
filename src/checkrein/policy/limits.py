"""A tool's input schema with the pact's limits merged into it, so that a model knows what it may
ask for before it asks.

What is merged is only what a JSON schema can say: comparisons of one argument with a constant that
must hold for the call to be allowed, and the pact's own declaration of the arguments. The guard
judges every call all the same; the schema never refuses what the guard would allow.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from checkrein.policy.arguments import SchemaError
from checkrein.policy.conditions import nodes as n
from checkrein.policy.conditions.types import ConditionError
from checkrein.policy.types import ToolRule

Schema = dict[str, Any]
Path = tuple[str, ...]
DEPTH_MAX = 16
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "=="}
_BOUNDS = {
    "<": "exclusiveMaximum", "<=": "maximum", ">": "exclusiveMinimum", ">=": "minimum",
}  # fmt: skip
_LOWER = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems"})
_UPPER = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems"})
_OTHER_DIALECT = ("(?", "\\A", "\\z", "\\p", "\\P", "\\C", "\\Q", "[[:")
"""What RE2 reads and the regular expressions of JSON schema do not."""


def limited(schema: Any, rules: Iterable[ToolRule]) -> Schema:
    """The schema with what these rules (of the pact, and of those it is within) demand merged in.
    The given schema is not changed. Never raises: what cannot be said is left out."""
    found: Schema = dict(schema) if isinstance(schema, Mapping) else {}
    found.setdefault("type", "object")
    for rule in rules:
        if rule.arguments:
            declared = _decoded(rule.arguments)
            if isinstance(declared, dict):
                found = _declared(found, declared, 0)
        for path, limits in _demands(rule.allow) if rule.allow else ():
            found = _at(found, path, limits)
    return found


def in_words(rules: Iterable[ToolRule]) -> str:
    """What the rules demand besides, for the tool's description; "" when nothing."""
    said = []
    for rule in rules:
        if rule.allow:
            said.append(f"allowed only if {' '.join(rule.allow.split())}")
        if rule.ask:
            said.append(f"a person is asked first if {' '.join(rule.ask.split())}")
        if rule.once_per:
            said.append(f"once for each {' '.join(rule.once_per.split())}")
    return "; ".join(dict.fromkeys(said))


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None


@lru_cache(maxsize=512)
def _demands(condition: str) -> tuple[tuple[Path, Schema], ...]:
    """What must hold of single arguments for the condition to hold."""
    from checkrein.policy.conditions.parsing import parse

    try:
        return tuple(_of(parse(condition)))
    except (ConditionError, SchemaError, RecursionError):
        return ()


def _of(node: n.Node) -> Iterator[tuple[Path, Schema]]:
    match node:
        case n.Logic(any=False, terms=terms):
            for term in terms:
                yield from _of(term)
        case n.Logic(any=True, terms=terms):
            found = _one_of(terms)
            if found is not None:
                yield found
        case n.Has(operand=operand, field=field):
            path = _path(operand)
            if path is not None:
                yield (*path, field), {}
        case n.Call(word=word, arguments=(left, right)):
            found = _compared(word, left, right)
            if found is not None:
                yield found
        case n.Select() if path := _path(node):
            yield path, {"const": True}
        case n.Not(operand=n.Select() as operand) if path := _path(operand):
            yield path, {"const": False}


def _compared(word: str, left: n.Node, right: n.Node) -> tuple[Path, Schema] | None:
    if isinstance(left, n.Literal) and word in _FLIPPED:
        word, left, right = _FLIPPED[word], right, left
    if isinstance(left, n.Call) and left.word == "size" and len(left.arguments) == 1:
        return _sized(word, left.arguments[0], right)
    path = _path(left)
    if not path:
        return None
    match word, right:
        case "==", n.Literal(value=str() | int() | float() | bool() as value):
            return path, {"const": value}
        case "<" | "<=" | ">" | ">=", n.Literal(value=int() | float() as value) if not isinstance(
            value, bool
        ):
            return path, {_BOUNDS[word]: value}
        case "in", n.ListOf(items=items) if items and all(_plain(item) for item in items):
            return path, {"enum": [item.value for item in items if isinstance(item, n.Literal)]}
        case "matches", n.Literal(value=str() as pattern):
            known = not any(sign in pattern for sign in _OTHER_DIALECT)
            return path, {"pattern": pattern} if known else {}
        case "startsWith", n.Literal(value=str() as text):
            return path, {"pattern": "^" + _quoted(text)}
        case "endsWith", n.Literal(value=str() as text):
            return path, {"pattern": _quoted(text) + "$"}
        case _:
            return None


def _sized(word: str, of: n.Node, right: n.Node) -> tuple[Path, Schema] | None:
    """`size(args.note) <= 80` of a text (JSON schema has another word for lists)."""
    path = _path(of)
    if not path or not isinstance(right, n.Literal) or type(right.value) is not int:
        return None
    match word:
        case "<" | "<=":
            most = right.value - (word == "<")
            return path, {"maxLength": most, "maxItems": most} if most >= 0 else {}
        case ">" | ">=":
            least = max(0, right.value + (word == ">"))
            return path, {"minLength": least, "minItems": least}
        case _:
            return None


def _one_of(terms: tuple[n.Node, ...]) -> tuple[Path, Schema] | None:
    """`args.a == 1 || args.a == 2`: one argument, and what it may be."""
    values: list[Any] = []
    paths = set()
    for term in terms:
        found = list(_of(term))
        if len(found) != 1:
            return None
        path, limits = found[0]
        paths.add(path)
        if "const" in limits:
            values.append(limits["const"])
        elif "enum" in limits:
            values.extend(limits["enum"])
        else:
            return None
    return (paths.pop(), {"enum": values}) if len(paths) == 1 else None


def _path(node: n.Node) -> Path | None:
    """`args.a.b`, `args["a"]`: the way to an argument; () is `args` itself."""
    match node:
        case n.Name(name="args"):
            return ()
        case n.Select(operand=operand, field=field):
            path = _path(operand)
            return None if path is None else (*path, field)
        case n.Call(word="[]", arguments=(operand, n.Literal(value=str() as field))):
            path = _path(operand)
            return None if path is None else (*path, field)
        case _:
            return None


def _plain(node: n.Node) -> bool:
    return isinstance(node, n.Literal) and isinstance(node.value, str | int | float | bool)


def _quoted(text: str) -> str:
    return "".join("\\" + each if each in "\\^$.|?*+()[]{}/-" else each for each in text)


def _at(schema: Schema, path: Path, limits: Schema) -> Schema:
    """The schema with limits on the argument at this path, which must be there."""
    if not path:
        return schema
    if len(path) > DEPTH_MAX or "$ref" in schema:
        return schema
    name, rest = path[0], path[1:]
    properties = dict(_map(schema.get("properties")))
    if name not in properties and schema.get("additionalProperties") is False:
        return schema
    given = properties.get(name)
    inner: Schema = dict(given) if isinstance(given, Mapping) else {}
    if rest:
        properties[name] = _at({"type": "object", **inner}, rest, limits)
    else:
        properties[name] = tightened(inner, limits)
    required = list(schema["required"]) if isinstance(schema.get("required"), list) else []
    if name not in required:
        required.append(name)
    return {**schema, "properties": properties, "required": required}


def tightened(schema: Schema, limits: Schema) -> Schema:
    """A value's schema with more limits: of two bounds the narrower, of two lists what is in both.
    What cannot be said in one place goes beside, under `allOf`."""
    if not limits:
        return schema
    if "$ref" in schema or "allOf" in schema:
        return {**schema, "allOf": [*(schema.get("allOf") or []), limits]}
    kind = schema.get("type")
    found, beside = dict(schema), {}
    for name, value in limits.items():
        if (name.endswith("Length") and kind == "array") or (
            name.endswith("Items") and kind == "string"
        ):
            continue
        before = schema.get(name)
        if name in _LOWER or name in _UPPER:
            number = isinstance(before, int | float) and not isinstance(before, bool)
            narrower = max if name in _LOWER else min
            found[name] = narrower(before, value) if number else value
        elif name == "enum" and isinstance(before, list):
            found[name] = [one for one in before if one in value]
        elif before is None:
            found[name] = value
        elif before != value:
            beside[name] = value
    if isinstance(found.get("enum"), list) and "const" in found and "const" not in beside:
        found["enum"] = [one for one in found["enum"] if one == found["const"]]
    return {**found, "allOf": [beside]} if beside else found


def _declared(schema: Schema, declared: Schema, depth: int) -> Schema:
    """What the pact declares of an object's fields, on top of what the tool says. Fields that the
    pact does not know, and does not leave open, are not shown."""
    if depth > DEPTH_MAX or "$ref" in schema or not isinstance(declared.get("properties"), dict):
        return schema
    said: Schema = declared["properties"]
    own = _map(schema.get("properties"))
    closed = declared.get("additionalProperties") is False
    properties: Schema = {
        name: value for name, value in own.items() if name in said or not closed
    }  # fmt: skip
    for name, rule in said.items():
        before = own.get(name)
        if not isinstance(rule, Mapping):
            continue
        if not isinstance(before, Mapping):
            if name in own or schema.get("additionalProperties") is not False:
                properties[name] = dict(rule)
            continue
        limits = {key: rule[key] for key in rule if key in _LIMITS}
        merged = tightened(dict(before), limits)
        properties[name] = _declared(merged, dict(rule), depth + 1)
    wanted = [*_texts(schema.get("required")), *_texts(declared.get("required"))]
    required = [name for name in dict.fromkeys(wanted) if name in properties]
    found = {**schema, "properties": properties, "required": required}
    return found | {"additionalProperties": False} if closed else found


_LIMITS = _LOWER | _UPPER | {"enum", "const", "pattern"}


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
