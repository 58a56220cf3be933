"""What an agent hands over, against the JSON schema of its pact (Draft 2020-12).

The schema is compiled once; nothing is ever fetched: a `$ref` leads to a place within the schema or
it is refused. Patterns are RE2's, so that no text can make one run for long; what RE2 does not know
(look-ahead, back references) is refused when the schema is compiled. Values are bounded in size and
depth, and the work of one check in the number of references followed.
"""

import json
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import msgspec
import re2

SCHEMA_CHARS_MAX = 256 * 1024
VALUES_MAX = 20_000
CHARS_MAX = 1_000_000
DEPTH_MAX = 64
OBJECTIONS_MAX = 20
_REFERENCES_MAX = 50_000
_REFERENCES_A_VALUE = 20
_MESSAGE_CHARS_MAX = 200
_SHOWN_CHARS_MAX = 80


class OutputError(ValueError):
    """A schema that is none. `place` is where in it, as `$.properties.name`."""

    def __init__(self, problem: str, place: str = "$") -> None:
        self.problem = problem
        self.place = place
        super().__init__(f"{place}: {problem}")


class _TooMuch(Exception):
    """A schema that sends the check around in circles."""


class Output:
    """A compiled schema. Pure; safe from any thread."""

    def __init__(self, schema: Any) -> None:
        self._validator = _validator_class()(schema, registry=_empty_registry())

    def objections(self, value: Any) -> list[str]:
        """What is wrong with a value, each with its place (`$.items[2].price: …`), at most 20;
        empty: nothing. A text that is not what the schema wants is read as JSON, once, since that
        is how agents hand over. Never raises."""
        found = self._objections(value)
        if found and isinstance(value, str) and len(value) <= CHARS_MAX:
            try:
                return self._objections(msgspec.json.decode(value))
            except (msgspec.DecodeError, RecursionError):
                return found
        return found

    def _objections(self, value: Any) -> list[str]:
        values, problem = measured(value)
        if problem:
            return [f"$: {problem}"]
        _WORK.left = min(_REFERENCES_MAX, 1000 + values * _REFERENCES_A_VALUE)
        found: list[str] = []
        try:
            for error in self._validator.iter_errors(value):
                if len(found) >= OBJECTIONS_MAX:
                    break
                found.append(f"{place_text(error.absolute_path)}: {_message(error)}")
        except (_TooMuch, RecursionError):
            found.append("$: cannot be checked: the schema refers to itself without end")
        except Exception as error:  # whatever the validator runs into is no yes
            found.append(f"$: cannot be checked ({type(error).__name__})")
        return found[:OBJECTIONS_MAX]


def compile_output(schema_json: str) -> Output:
    """Raises OutputError when the text is no JSON, or no schema that can be used."""
    return _compiled(schema_json)


@lru_cache(maxsize=64)
def _compiled(schema_json: str) -> Output:
    if len(schema_json) > SCHEMA_CHARS_MAX:
        raise OutputError(f"is longer than {SCHEMA_CHARS_MAX} characters")
    try:
        schema = json.loads(schema_json, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise OutputError(f"is no JSON: {error}") from error
    if not isinstance(schema, dict | bool):
        raise OutputError("is no schema: it must be an object")
    if problem := measured(schema)[1]:
        raise OutputError(problem)
    from jsonschema import Draft202012Validator, FormatChecker
    from jsonschema.exceptions import SchemaError

    if isinstance(schema, dict):
        _check_draft(schema.pop("$schema", _DRAFT))
    _Inspection(schema).look(schema, "$")
    try:
        Draft202012Validator.check_schema(schema, format_checker=FormatChecker(()))
    except SchemaError as error:
        raise OutputError(_message(error), place_text(error.absolute_path)) from error
    return Output(schema)


def place_text(path: Any) -> str:
    """`$.items[2].price`."""
    return "$" + "".join(f"[{s}]" if isinstance(s, int) else f".{str(s)[:80]}" for s in path)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {double!r} stands twice")
    return found


_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_BY_NAME = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
)
_DATA = frozenset({"const", "enum", "default", "examples"})


def _check_draft(name: Any) -> None:
    if str(name).rstrip("#") != _DRAFT:
        raise OutputError(f"only Draft 2020-12 is known: {_DRAFT}", "$.$schema")


class _Inspection:
    """Looks for references and patterns wherever a schema can stand, and where references lead."""

    def __init__(self, whole: Any) -> None:
        self._whole = whole
        self._seen: set[int] = set()
        self._keywords: set[str] = set()

    def look(self, schema: Any, place: str) -> None:
        """Raises OutputError."""
        if not isinstance(schema, dict | list) or id(schema) in self._seen:
            return
        self._seen.add(id(schema))
        if isinstance(schema, list):
            for number, item in enumerate(schema):
                self.look(item, f"{place}[{number}]")
            return
        self._keywords.update(schema)
        if {"unevaluatedProperties", "patternProperties"} <= self._keywords:
            raise OutputError(
                "`unevaluatedProperties` does not go with `patternProperties`: "
                "write `additionalProperties`", place,
            )  # fmt: skip
        for name, item in schema.items():
            self._keyword(name, item, f"{place}.{name}")

    def _keyword(self, name: str, item: Any, here: str) -> None:
        if name in ("$ref", "$dynamicRef"):
            self._reference(item, here)
        elif name in ("$id", "$schema", "$vocabulary"):
            raise OutputError(f"`{name}` is not allowed: references lead within the schema", here)
        elif name == "pattern":
            _regex(item, here)
        elif name in _BY_NAME and isinstance(item, dict):
            for key, below in item.items():
                if name == "patternProperties":
                    _regex(key, here)
                self.look(below, f"{here}.{key}")
        elif name not in _DATA:
            self.look(item, here)

    def _reference(self, target: Any, place: str) -> None:
        if not isinstance(target, str) or not target.startswith("#"):
            raise OutputError(f"{target!r:.80} leads out of the schema: nothing is fetched", place)
        if not target.startswith("#/"):
            return
        at = self._whole
        for step in unquote(target[2:]).split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(at, list) and key.isdecimal() and int(key) < len(at):
                at = at[int(key)]
            elif isinstance(at, dict) and key in at:
                at = at[key]
            else:
                raise OutputError(f"{target!r:.80} leads nowhere", place)
        self.look(at, place)


def _regex(pattern: Any, place: str) -> Any:
    try:
        return _pattern(pattern)
    except (re2.error, TypeError, UnicodeEncodeError) as error:
        raise OutputError(
            f"{pattern!r:.80} is no pattern that RE2 knows (it has no look-around and no back "
            "references)", place,
        ) from error  # fmt: skip


@lru_cache(maxsize=512)
def _pattern(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 22
    return re2.compile(pattern, options)


def measured(value: Any) -> tuple[int, str]:
    """How many values there are in one, and why it is too much to check (empty: it is not). Shared
    and endless parts count as often as they are met."""
    values = chars = 0
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        values += 1
        if isinstance(item, str):
            chars += len(item)
        elif isinstance(item, dict):
            stack += [(below, depth + 1) for below in item.values()]
            if not all(isinstance(key, str) for key in item):
                return values, "has a key that is no text"
            chars += sum(map(len, item))
        elif isinstance(item, list | tuple):
            stack += [(below, depth + 1) for below in item]
        elif isinstance(item, int) and not -(10**1000) < item < 10**1000:
            return values, "contains a number that is too large to be checked"
        if depth > DEPTH_MAX:
            return values, f"is deeper than {DEPTH_MAX} levels, too deep to be checked"
        if values > VALUES_MAX or len(stack) > VALUES_MAX:
            return values, f"has more than {VALUES_MAX} values, too many to be checked"
        if chars > CHARS_MAX:
            return values, f"has more than {CHARS_MAX} characters, too many to be checked"
    return values, ""


def _message(error: Any) -> str:
    """The validator's words, with a short form of the value they are about."""
    message = str(error.message)
    whole = repr(error.instance)
    if len(whole) > _SHOWN_CHARS_MAX:
        message = message.replace(whole, whole[:_SHOWN_CHARS_MAX] + "…")
    if len(message) > _MESSAGE_CHARS_MAX:
        message = message[:_MESSAGE_CHARS_MAX] + "…"
    return message


# ------------------------------------------------------- the validator, with what it must not do

_WORK = threading.local()


@lru_cache(maxsize=1)
def _empty_registry() -> Any:
    """It knows no schema and no way to fetch one."""
    from referencing import Registry

    return Registry()


@lru_cache(maxsize=1)
def _validator_class() -> Any:
    """Draft 2020-12, with RE2 for every pattern and bounds for what can take long."""
    from jsonschema import Draft202012Validator, validators

    draft = Draft202012Validator.VALIDATORS
    checker = Draft202012Validator.TYPE_CHECKER.redefine(
        "array", lambda _, value: isinstance(value, list | tuple)
    )
    extend: Any = validators.extend
    return extend(
        Draft202012Validator,
        {
            "pattern": _check_pattern,
            "patternProperties": _check_pattern_properties,
            "additionalProperties": _check_additional_properties,
            "unevaluatedProperties": _counted(draft["unevaluatedProperties"]),
            "unevaluatedItems": _counted(draft["unevaluatedItems"]),
            "uniqueItems": _check_unique_items,
            "$ref": _counted(draft["$ref"]),
            "$dynamicRef": _counted(draft["$dynamicRef"]),
        },
        type_checker=checker,
    )


def _counted(check: Any) -> Any:
    def counted(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[Any]:
        _WORK.left -= 1
        if _WORK.left < 0:
            raise _TooMuch
        yield from check(validator, rule, instance, schema) or ()

    return counted


def _check_pattern(validator: Any, rule: str, instance: Any, schema: Any) -> Iterator[Any]:
    if validator.is_type(instance, "string") and not _found(rule, instance):
        yield _error(f"{instance!r} does not match {rule!r}")


def _check_pattern_properties(
    validator: Any, rule: dict[str, Any], instance: Any, schema: Any
) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, below in rule.items():
        for name, value in instance.items():
            if _found(pattern, name):
                yield from validator.descend(value, below, path=name, schema_path=pattern)


def _check_additional_properties(
    validator: Any, rule: Any, instance: Any, schema: Any
) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extra = [name for name in instance if name not in known]
    extra = [name for name in extra if not any(_found(p, name) for p in patterns)]
    if isinstance(rule, dict):
        for name in extra:
            yield from validator.descend(instance[name], rule, path=name)
    elif rule is False and extra:
        names = ", ".join(f"{str(name)[:40]!r}" for name in extra[:5])
        yield _error(f"has what the schema does not name: {names}")


def _check_unique_items(validator: Any, rule: bool, instance: Any, schema: Any) -> Iterator[Any]:
    if rule and validator.is_type(instance, "array"):
        seen: set[Any] = set()
        for item in instance:
            form = _hashable(item)
            if form in seen:
                yield _error(f"has the same item twice: {item!r:.80}")
                return
            seen.add(form)


def _hashable(value: Any) -> Any:
    """Equal for what JSON Schema calls equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict):
        return ("{", frozenset((name, _hashable(item)) for name, item in value.items()))
    if isinstance(value, list | tuple):
        return ("[", tuple(_hashable(item) for item in value))
    if isinstance(value, bool):
        return ("?", value)
    return value


def _found(pattern: str, text: Any) -> bool:
    if not isinstance(text, str):
        return False
    try:
        return _pattern(pattern).search(text) is not None
    except UnicodeEncodeError:  # half of a letter: RE2 reads UTF-8
        return False


def _error(message: str) -> Any:
    from jsonschema.exceptions import ValidationError

    return ValidationError(message)
