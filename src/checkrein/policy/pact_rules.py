"""The parts of a pact that are rules: tools with their conditions and scopes, `sequence`, `flow`,
`escalate`, `route`. Each text is compiled here once, so that what is wrong with it is said with its
place; the guard compiles it again for its own use.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from checkrein.policy import units
from checkrein.policy.arguments import SchemaError, compile_arguments, shorthand
from checkrein.policy.compiling import names_for
from checkrein.policy.conditions.types import ConditionError, Kind
from checkrein.policy.pact_text import Part
from checkrein.policy.rulebook import is_pattern
from checkrein.policy.scopes.types import ScopeError, ScopeKind, ScopeRule
from checkrein.policy.types import Duty, Pact, Route, Source, Steer, ToolKind, ToolRule

_KINDS = ("read", "compensable", "irreversible")
_SOURCES = ("trusted", "untrusted", "private")
_SCOPES = ("paths", "tables", "hosts", "repos")
_TOOL = (
    "kind", "timeout", "undo", "arguments", "allow", "ask", "once_per", "set", "steer", *_SCOPES,
    "source", "external",
)  # fmt: skip

Names = Mapping[str, Kind]


def tools(
    part: Part, schemas: Mapping[str, Mapping[str, Any]], parent: Pact
) -> dict[str, ToolRule]:
    """`tools:`. A name may be a pattern (`search_*`). Raises PactError."""
    found = {}
    for name, (_, rule) in part.entries().items():
        found[name] = _tool(name, rule, schemas.get(name), parent)
    return found


def _tool(name: str, part: Part, schema: Mapping[str, Any] | None, parent: Pact) -> ToolRule:
    if part.empty:
        return ToolRule(arguments=_json(schema))
    entries = part.known_entries(_TOOL)
    kind = cast(ToolKind, entries["kind"].one_of(_KINDS)) if "kind" in entries else None
    undo = entries["undo"].text() if "undo" in entries else ""
    if undo and kind in ("read", "irreversible"):
        entries["undo"].refuse(f"`{entries['undo'].where}`: a tool of kind {kind} has no undo")
    if len(undo) > 200:
        entries["undo"].refuse(f"`{entries['undo'].where}` is longer than 200 characters")
    said = _arguments(entries["arguments"]) if "arguments" in entries else _json(schema)
    return ToolRule(
        kind=kind,
        undo=undo,
        timeout_s=entries["timeout"].value(units.duration_s) if "timeout" in entries else None,
        arguments=said,
        allow=condition(entries["allow"], said) if "allow" in entries else "",
        ask=condition(entries["ask"], said) if "ask" in entries else "",
        once_per=_expression(entries["once_per"], said) if "once_per" in entries else "",
        set=_set(entries["set"], said) if "set" in entries else {},
        steer=_steer(entries["steer"], said) if "steer" in entries else (),
        scopes=_scopes(entries),
        source=_source(entries["source"]) if "source" in entries else (),
        external=_truth(entries["external"]) if "external" in entries else None,
    )


def _arguments(part: Part) -> str:
    said = part.plain()
    try:
        if not isinstance(said, dict):
            raise SchemaError("write {name: string, count: optional integer} or a JSON schema")
        schema = shorthand(said)
        compile_arguments(schema)
    except SchemaError as error:
        part.refuse(f"`{part.where}`: {error}")
    return _json(schema)


def _json(schema: Mapping[str, Any] | None) -> str:
    if schema is None:
        return ""
    return msgspec.json.encode(schema, order="deterministic").decode()


def condition(part: Part, schema: str) -> str:
    """The text of a condition that compiles over arguments of this schema (JSON text, "": nobody
    has said), and that can be true as well as false."""
    from checkrein.policy.conditions.compiling import compile_condition, constancy

    text = part.text()
    try:
        compiled = compile_condition(text, names_for(schema))
    except ConditionError as error:
        part.refuse_within(f"`{part.where}`: {error.problem}", error.line, error.column)
    always = constancy(compiled)
    if always and text not in ("true", "false"):  # said outright, it is meant
        other = "false" if always == "true" else "true"
        part.refuse(
            f"`{part.where}` is {always} for every call: a condition that cannot be {other} "
            "decides nothing. Leave it out, or mend it"
        )
    return text


def _expression(part: Part, schema: str) -> str:
    from checkrein.policy.conditions.compiling import compile_condition

    text = part.text()
    try:
        compile_condition(text, names_for(schema), "any")
    except ConditionError as error:
        part.refuse_within(f"`{part.where}`: {error.problem}", error.line, error.column)
    return text


def _set(part: Part, schema: str) -> dict[str, str]:
    return {name: _expression(one, schema) for name, (_, one) in part.entries().items()}


def _steer(part: Part, schema: str) -> tuple[Steer, ...]:
    found = []
    for item in part.items():
        entries = item.known_entries(("when", "say"))
        for needed in ("when", "say"):
            if needed not in entries:
                item.refuse(f"`{item.where}` should be {{when: CONDITION, say: TEXT}}")
        found.append(Steer(when=condition(entries["when"], schema), say=entries["say"].text()))
    return tuple(found)


def _truth(part: Part) -> bool:
    return part.one_of(("true", "false")) == "true"


def _source(part: Part) -> tuple[Source, ...]:
    items = part.items() if part.is_list else [part]
    return tuple(cast(Source, item.one_of(_SOURCES)) for item in items)


def _scopes(entries: Mapping[str, Part]) -> tuple[ScopeRule, ...]:
    found: list[ScopeRule] = []
    for name in _SCOPES:
        if name not in entries:
            continue
        part, kind = entries[name], cast(ScopeKind, name)
        by_argument = part.is_map and not (
            kind == "tables" and set(part.entries()) <= {"read", "write"}
        )
        if by_argument:
            for argument, (_, patterns) in part.entries().items():
                found.append(_scope(kind, argument.removeprefix("args."), patterns))
        else:
            found.append(_scope(kind, "", part))
    return tuple(found)


def _scope(kind: ScopeKind, argument: str, part: Part) -> ScopeRule:
    from checkrein.policy.scopes.compiling import compile_scope

    write: tuple[str, ...] = ()
    if kind == "tables" and part.is_map:
        entries = part.known_entries(("read", "write"))
        patterns = _texts(entries["read"]) if "read" in entries else ()
        write = _texts(entries["write"]) if "write" in entries else ()
    else:
        patterns = _texts(part)
    rule = ScopeRule(
        kind=kind, argument=argument, write=write,
        allow=tuple(text for text in patterns if not text.startswith("!")),
        deny=tuple(text[1:] for text in patterns if text.startswith("!")),
    )  # fmt: skip
    try:
        compile_scope(rule)
    except ScopeError as error:
        part.refuse(f"`{part.where}`: {error}")
    return rule


def _texts(part: Part) -> tuple[str, ...]:
    return tuple(item.text() for item in part.items())


def sequence(part: Part, known: Mapping[str, ToolRule] | None) -> tuple[str, ...]:
    """`sequence:`, each line a rule. Raises PactError."""
    from checkrein.policy.sequences.compiling import compile_sequences
    from checkrein.policy.sequences.types import SequenceError

    items = part.items()
    texts = tuple(item.text() for item in items)
    try:
        compile_sequences(texts, _names_of(known))
    except SequenceError as error:
        items[error.index].refuse_within(
            f"`{items[error.index].where}`: {error.problem}", error.line, error.column
        )
    if known is not None and not any(is_pattern(name) for name in known):
        from checkrein.policy.sequences.reach import unknown

        for index, why in unknown(texts, {name: rule.kind for name, rule in known.items()}):
            items[index].refuse(f"`{items[index].where}`: {why}")
    return texts


def flow(
    part: Part, known: Mapping[str, ToolRule] | None, internal: tuple[str, ...]
) -> tuple[str, ...]:
    """`flow:`, each line a rule or the name of a built-in one. Raises PactError."""
    from checkrein.policy.flow.compiling import compile_flow
    from checkrein.policy.flow.grammar import FlowError

    items = part.items()
    texts = tuple(item.text() for item in items)
    try:
        compile_flow(texts, known or {}, internal, _names_of(known))
    except FlowError as error:
        items[error.index].refuse_within(
            f"`{items[error.index].where}`: {error.problem}", error.line, error.column
        )
    return texts


def _names_of(known: Mapping[str, ToolRule] | None) -> Callable[[str], Names]:
    def names_of(tool: str) -> Names:
        rule = known.get(tool) if known else None
        return names_for(rule.arguments if rule is not None else "")

    return names_of


def duties(part: Part) -> tuple[Duty, ...]:
    """`escalate:`. Raises PactError."""
    found = []
    for item in part.items():
        entries = item.known_entries(("when", "to", "within", "hold"))
        for needed in ("when", "to", "within"):
            if needed not in entries:
                item.refuse(f"`{item.where}` should say {needed}: {{when, to, within}}")
        found.append(Duty(
            when=condition(entries["when"], ""), to=entries["to"].text(),
            within_s=entries["within"].value(units.duration_s),
            hold=_truth(entries["hold"]) if "hold" in entries else False,
        ))  # fmt: skip
    return tuple(found)


def routes(part: Part) -> tuple[Route, ...]:
    """`route:`. Raises PactError."""
    found = []
    for item in part.items():
        entries = item.known_entries(("when", "model", "upstream"))
        if "when" not in entries or not {"model", "upstream"} & set(entries):
            item.refuse(f"`{item.where}` should be {{when: CONDITION, model: NAME}}")
        found.append(Route(
            when=condition(entries["when"], ""), model=_routed(entries, "model"),
            upstream=_routed(entries, "upstream"),
        ))  # fmt: skip
    return tuple(found)


def _routed(entries: Mapping[str, Part], name: str) -> str:
    if name not in entries:
        return ""
    text = entries[name].text()
    if not text or len(text) > 200 or "*" in text:
        entries[name].refuse(f"`{entries[name].where}` takes one name, of at most 200 characters")
    return text
