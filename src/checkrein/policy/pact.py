"""Reading a pact: YAML in, `Pact` out, everything wrong refused with its place.

`extends` names the pact that fills in what this one does not say (`default` when it names none).
Lists of tools and of models replace the parent's as a whole, so that what is allowed stands in one
place; budgets and loops are filled in key by key; rules under `sequence`, `flow`, `escalate` and
`redact` come on top of the parent's. `default` only fills in; a pact that extends another is also
*within* it: what the parent refuses is refused, whatever this one says, and no budget is larger.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from checkrein.policy import units
from checkrein.policy.budgets import narrowest
from checkrein.policy.nearest import did_you_mean
from checkrein.policy.pact_rules import duties, flow, routes, sequence, tools
from checkrein.policy.pact_text import PactError, Part, documents
from checkrein.policy.types import Pact, Shared

__all__ = ["PactError", "default_pact", "load", "merge", "pack", "version_of"]

_TOP = (
    "pact", "job", "owner", "extends", "models", "tools", "sequence", "flow", "budgets", "warn_at",
    "loops", "escalate", "approval", "internal", "output", "redact", "route", "unclear",
    "lost_contact",
)  # fmt: skip
_FIELDS = {"approval": "approval_s"}
_ADDED = ("sequence", "flow", "escalate", "redact", "internal")
DEPTH_MAX = 8
_NO_ROUTE = b'"route":[],'


def version_of(pact: Pact) -> str:
    """The first 12 hex digits of the SHA-256 of the pact's canonical form: sorted JSON of all its
    values, the version itself left empty."""
    plain = msgspec.structs.replace(pact, version="")
    form = msgspec.json.encode(plain, order="deterministic")
    form = form.replace(_NO_ROUTE, b"")  # it came later: pacts without it keep their versions
    return hashlib.sha256(form).hexdigest()[:12]


def default_pact() -> Pact:
    """What holds for an agent that has declared nothing: any tool and model, no budget, and the
    breaker for loops."""
    pact = Pact()
    return msgspec.structs.replace(pact, version=version_of(pact))


def merge(parent: Pact, said: Mapping[str, Any]) -> Pact:
    """The parent with what was said put over it, and a new version. `said` holds fields of Pact;
    `budgets` and `loops` may be maps of only the fields that were said."""
    values = dict(said)
    for name, inherited in (("budgets", parent.budgets), ("loops", parent.loops)):
        if isinstance(values.get(name), Mapping):
            values[name] = msgspec.structs.replace(inherited, **values[name])
    for name in _ADDED:
        if name in values:
            first = getattr(parent, name)
            values[name] = first + tuple(one for one in values[name] if one not in first)
    if parent.pact != "default":
        values["within"] = parent
        if "budgets" in values:
            values["budgets"] = narrowest(parent.budgets, values["budgets"])
    pact = msgspec.structs.replace(parent, **values)
    return msgspec.structs.replace(pact, version=version_of(pact))


def load(
    text: str,
    source: str = "",
    known: Mapping[str, Pact] | None = None,
    schemas: Mapping[str, Mapping[str, Any]] | None = None,
) -> Pact:
    """The pact that a text declares. `known` are the pacts it may extend besides `default` (or a
    `default` of the house's own); `schemas` the JSON schemas of tools' arguments, where they are
    known from elsewhere than the pact itself.

    Raises PactError, whose message begins with `source:line:column`: for text that is not YAML,
    unknown or repeated keys, values of a wrong kind, and conditions and rules that cannot hold.
    """
    whole = documents(text, source)
    root = whole[0]
    parts = root.known_entries(_TOP)
    if "pact" not in parts:
        raise PactError("`pact` is missing: the name of the pact, for example `pact: my-agent`",
                        source, 1, 1)  # fmt: skip
    said: dict[str, Any] = {"extends": "default"}
    for name, part in parts.items():
        if name in _VALUES:
            said[_FIELDS.get(name, name)] = _VALUES[name](part)
    parent = _parent(said["extends"], parts.get("extends"), known or {})
    if "budgets" in parts and parent.pact != "default":
        _not_above(parts["budgets"], parent, said["budgets"])
    if "tools" in parts:
        said["tools"] = tools(parts["tools"], schemas or {}, parent)
    known_tools = said.get("tools", parent.tools)
    if "sequence" in parts:
        said["sequence"] = sequence(parts["sequence"], known_tools)
    if "flow" in parts:
        inside = parent.internal + said.get("internal", ())
        said["flow"] = flow(parts["flow"], known_tools, inside)
    if "escalate" in parts:
        said["escalate"] = duties(parts["escalate"])
    if "route" in parts:
        said["route"] = routes(parts["route"])
    if "output" in parts:
        said["output"] = _output(parts["output"], _files(whole))
    return merge(parent, said)


def pack(text: str, read: Callable[[str], str], source: str = "") -> str:
    """The pact's text with the files it names packed into a second YAML document, so that it can
    travel. `read` gives a file's text. Raises PactError where a file cannot be read."""
    whole = documents(text, source)
    parts = whole[0].entries()
    if len(whole) > 1 or "output" not in parts:
        return text
    schema = parts["output"][1].known_entries(("schema",)).get("schema")
    if schema is None or schema.is_map:
        return text
    name = schema.text()
    try:
        content = read(name)
    except (OSError, ValueError) as error:
        schema.refuse(f"`{schema.where}`: {name} cannot be read: {error}")
    import yaml

    packed = yaml.safe_dump({"files": {name: content}}, sort_keys=True)
    return f"{text.rstrip()}\n---\n{packed}"


def _parent(name: str, part: Part | None, known: Mapping[str, Pact]) -> Pact:
    parents = {"default": default_pact(), **known}
    if name not in parents and part is not None:
        part.refuse(
            f"`extends` names `{name}`, which is not known{did_you_mean(name, parents)}; "
            f"known: {', '.join(sorted(parents))}"
        )
    parent = parents[name]
    depth, above = 1, parent.within
    while above is not None:
        depth, above = depth + 1, above.within
    if depth > DEPTH_MAX and part is not None:
        part.refuse(f"`extends` goes {depth} pacts deep; at most {DEPTH_MAX} are followed")
    return parent


def _not_above(part: Part, parent: Pact, said: Mapping[str, Any]) -> None:
    wanted = msgspec.structs.replace(parent.budgets, **said)
    lowest = narrowest(parent.budgets, wanted)
    for name, (_, entry) in part.entries().items():
        field = "wall_s" if name == "wall" else name
        if getattr(lowest, field) != getattr(wanted, field):
            entry.refuse(
                f"`{entry.where}` is {_shown(getattr(wanted, field))}: more than the pact "
                f"`{parent.pact}` allows, which this one extends: "
                f"{_shown(getattr(parent.budgets, field))}"
            )


def _shown(value: Any) -> str:
    if isinstance(value, Shared):
        said = msgspec.structs.asdict(value).items()
        return ", ".join(f"{name} {one:g}" for name, one in said if one is not None)
    return "no limit" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _files(whole: list[Part]) -> dict[str, str]:
    if len(whole) == 1:
        return {}
    if len(whole) > 2:
        whole[2].refuse("a pact is one document, and one more for the files packed with it")
    files = whole[1].known_entries(("files",)).get("files")
    if files is None:
        return {}
    return {name: str(part.plain()) for name, (_, part) in files.entries().items()}


def _output(part: Part, files: Mapping[str, str]) -> str:
    from checkrein.policy.output import OutputError, compile_output

    schema = part.known_entries(("schema",)).get("schema")
    if schema is None:
        part.refuse("`output` should be {schema: FILE} or {schema: {…}}")
    if schema.is_map:
        text = msgspec.json.encode(schema.plain(), order="deterministic").decode()
    else:
        name = schema.text()
        if name not in files:
            schema.refuse(
                f"`{schema.where}` names the file {name}, which is not packed with this pact: "
                "push the pact from the folder of the file, or write the schema here"
            )
        text = files[name]
    try:
        compile_output(text)
    except OutputError as error:
        schema.refuse(f"`{schema.where}`: {error}")
    return text


def _name(part: Part) -> str:
    text = part.text()
    if len(text) > 200:
        part.refuse(f"`{part.where}` is longer than 200 characters")
    return text


def _models(part: Part) -> tuple[str, ...]:
    found = tuple(_name(item) for item in part.items())
    if not found:
        part.refuse("`models` is empty: no model could be called. Leave it out to allow any")
    return found


def _internal(part: Part) -> tuple[str, ...]:
    return tuple(_name(item).lower() for item in part.items())


def _redact(part: Part) -> tuple[str, ...]:
    return tuple(item.one_of(("secrets", "pii")) for item in part.items())


def _budgets(part: Part) -> dict[str, Any]:
    entries = part.known_entries((
        "steps", "tool_calls", "tokens", "usd", "wall", "task", "agent", "room", "hour", "alert",
        "exhausted",
    ))  # fmt: skip
    found: dict[str, Any] = {}
    if "steps" in entries:
        found["steps"] = entries["steps"].value(units.whole)
    found.update(_amounts(entries))
    if "wall" in entries:
        found["wall_s"] = entries["wall"].value(units.duration_s)
    for name in ("task", "agent", "room", "hour"):
        if name in entries:
            shared = entries[name].known_entries(("tool_calls", "tokens", "usd"))
            found[name] = Shared(**_amounts(shared))
    if "alert" in entries:
        found["alert"] = entries["alert"].value(units.multiple)
    if "exhausted" in entries:
        found["exhausted"] = entries["exhausted"].one_of(("pause", "stop"))
    return found


def _amounts(entries: Mapping[str, Part]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: entries[name].value(units.whole)
        for name in ("tool_calls", "tokens")
        if name in entries
    }
    if "usd" in entries:
        found["usd"] = entries["usd"].value(units.money)
    return found


def _loops(part: Part) -> dict[str, Any]:
    entries = part.known_entries(("same_call", "similar_call", "no_progress"))
    found: dict[str, Any] = {}
    for name in ("same_call", "no_progress"):
        if name in entries:
            found[name] = entries[name].value(lambda text: units.whole(text, least=2))
    if "similar_call" in entries:
        count, window_s = entries["similar_call"].value(units.count_in)
        if count < 2:
            entries["similar_call"].refuse("`loops.similar_call` should be at least 2")
        found["similar_call"] = count
        if window_s is not None:
            found["similar_window_s"] = window_s
    for name in found:
        if name != "similar_window_s" and found[name] > LOOPS_MAX:
            entries[name].refuse(f"`loops.{name}` may be at most {LOOPS_MAX}")
    return found


LOOPS_MAX = 15
"""The loop check remembers 16 calls."""

_VALUES: dict[str, Callable[[Part], Any]] = {
    "pact": _name,
    "job": lambda part: part.text(),
    "owner": _name,
    "extends": _name,
    "models": _models,
    "budgets": _budgets,
    "warn_at": lambda part: part.value(units.fraction),
    "loops": _loops,
    "approval": lambda part: part.value(units.duration_s),
    "internal": _internal,
    "redact": _redact,
    "unclear": lambda part: part.one_of(("deny", "ask", "allow")),
    "lost_contact": lambda part: part.one_of(("continue", "pause", "halt")),
}
