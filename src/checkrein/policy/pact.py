"""Reading a pact: YAML in, `Pact` out, everything wrong refused with its place.

`extends` names the pact that fills in what this one does not say (`default` when it names none).
Lists of tools and of models replace the parent's as a whole, so that what is allowed stands in one
place; budgets and loops are filled in key by key.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from checkrein.policy import units
from checkrein.policy.nearest import did_you_mean
from checkrein.policy.pact_text import PactError, Part, parse
from checkrein.policy.types import Pact, ToolKind, ToolRule

__all__ = ["PactError", "default_pact", "load", "merge", "version_of"]

_LATER = ("sequence", "flow", "escalate", "output", "redact")
_TOOL_LATER = ("allow", "ask", "once_per")
_TOP = (
    "pact", "job", "owner", "extends", "models", "tools", "budgets", "warn_at", "loops", "unclear",
    "lost_contact",
)  # fmt: skip
_KINDS = ("read", "compensable", "irreversible")


def version_of(pact: Pact) -> str:
    """The first 12 hex digits of the SHA-256 of the pact's canonical form: sorted JSON of all its
    values, the version itself left empty."""
    plain = msgspec.structs.replace(pact, version="")
    form = msgspec.json.encode(plain, order="deterministic")
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
    pact = msgspec.structs.replace(parent, **values)
    return msgspec.structs.replace(pact, version=version_of(pact))


def load(text: str, source: str = "", known: Mapping[str, Pact] | None = None) -> Pact:
    """The pact that a text declares. `known` are the pacts it may extend besides `default`.

    Raises PactError, whose message begins with `source:line:column`: for text that is not YAML,
    unknown or repeated keys, values of a wrong kind, and rules this version cannot enforce.
    """
    parts = parse(text, source).known_entries(_TOP, _LATER)
    said: dict[str, Any] = {}
    for name, part in parts.items():
        said[name] = _VALUES[name](part)
    if "pact" not in said:
        raise PactError("`pact` is missing: the name of the pact, for example `pact: my-agent`",
                        source, 1, 1)  # fmt: skip
    parents = {"default": default_pact(), **(known or {})}
    extends = said.setdefault("extends", "default")
    if extends not in parents:
        parts["extends"].refuse(
            f"`extends` names `{extends}`, which is not known{did_you_mean(extends, parents)}; "
            f"known: {', '.join(sorted(parents))}"
        )
    return merge(parents[extends], said)


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


def _tools(part: Part) -> dict[str, ToolRule]:
    return {name: _tool(rule) for name, (_, rule) in part.entries().items()}


def _tool(part: Part) -> ToolRule:
    if part.empty:
        return ToolRule()
    entries = part.known_entries(("kind", "timeout", "undo"), _TOOL_LATER)
    kind = cast(ToolKind, entries["kind"].one_of(_KINDS)) if "kind" in entries else None
    undo = _name(entries["undo"]) if "undo" in entries else ""
    if undo and kind in ("read", "irreversible"):
        entries["undo"].refuse(f"`{entries['undo'].where}`: a tool of kind {kind} has no undo")
    timeout = entries["timeout"].value(units.duration_s) if "timeout" in entries else None
    return ToolRule(kind=kind, timeout_s=timeout, undo=undo)


def _budgets(part: Part) -> dict[str, Any]:
    entries = part.known_entries(("steps", "tool_calls", "tokens", "usd", "wall"))
    found: dict[str, Any] = {
        name: entries[name].value(units.whole)
        for name in ("steps", "tool_calls", "tokens")
        if name in entries
    }
    if "usd" in entries:
        found["usd"] = entries["usd"].value(units.money)
    if "wall" in entries:
        found["wall_s"] = entries["wall"].value(units.duration_s)
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
    "tools": _tools,
    "budgets": _budgets,
    "warn_at": lambda part: part.value(units.fraction),
    "loops": _loops,
    "unclear": lambda part: part.one_of(("deny", "ask", "allow")),
    "lost_contact": lambda part: part.one_of(("continue", "pause", "halt")),
}
