"""What changes when one pact takes the place of another: by key, and whether more or less is let
through. Pure.

`effect` says it for the agent: `allows` more, `refuses` more, `asks` more often, or `changes` what
is neither more nor less. It is told from the form of the rules: where two conditions differ, nobody
but a backtest can say which actions they treat differently, and the effect is `changes`.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from checkrein.policy.types import Budgets, Loops, Pact, Shared, ToolRule

Effect = Literal["allows", "refuses", "asks", "changes"]
_STRICTNESS = {
    "unclear": ("allow", "ask", "deny"),
    "lost_contact": ("continue", "pause", "halt"),
    "exhausted": ("pause", "stop"),
}
_LOOSER: dict[str, Effect] = {"ask": "allows", "allow": "allows", "once_per": "allows"}
_STRICTER: dict[str, Effect] = {"ask": "asks", "allow": "refuses", "once_per": "refuses"}
_SILENT = ("version", "tools", "models", "budgets", "loops")
_RULES = ("sequence", "flow")


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """`key` is as in the pact (`tools.refund.allow`); `before` and `after` are plain values, None
    where nothing was said."""

    key: str
    effect: Effect
    before: Any = None
    after: Any = None

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.key}: {_shown(self.after)} is new"
        if self.after is None:
            return f"{self.key}: {_shown(self.before)} is gone"
        return f"{self.key}: {_shown(self.before)} becomes {_shown(self.after)}"


def differences(before: Pact, after: Pact) -> list[Difference]:
    """All that differs, in the order of the pact's keys; empty when they say the same."""
    found = [
        *_names("models", before.models, after.models),
        *_tools(before.tools, after.tools),
        *_budgets("budgets", before.budgets, after.budgets),
        *_loops(before.loops, after.loops),
    ]
    for name in Pact.__struct_fields__:
        if name in _SILENT:
            continue
        old, new = getattr(before, name), getattr(after, name)
        if name in _RULES:
            found += _rules(name, old, new)
        elif old != new:
            effect = _by_strictness(name, old, new) if name in _STRICTNESS else "changes"
            found.append(_difference(name, effect, old, new))
    return found


def diff_digest(before: Pact, after: Pact) -> str:
    """Names the difference: whoever promotes says by it which difference was shown."""
    return hashlib.sha256(f"{before.version}>{after.version}".encode()).hexdigest()[:12]


def _names(
    key: str, old: tuple[str, ...] | None, new: tuple[str, ...] | None
) -> Iterator[Difference]:
    if old == new:
        return
    if old is None or new is None:
        yield _difference(key, "refuses" if old is None else "allows", old, new)
        return
    for name in new:
        if name not in old:
            yield Difference(key=f"{key}.{name}", effect="allows", after="")
    for name in old:
        if name not in new:
            yield Difference(key=f"{key}.{name}", effect="refuses", before="")


def _tools(
    old: dict[str, ToolRule] | None, new: dict[str, ToolRule] | None
) -> Iterator[Difference]:
    if old is None or new is None:
        if old is not new:
            effect: Effect = "refuses" if old is None else "allows"
            yield Difference(key="tools", effect=effect, before=_all(old), after=_all(new))
        return
    for name in dict.fromkeys([*old, *new]):
        key = f"tools.{name}"
        if name not in old:
            yield Difference(key=key, effect="allows", after=_said(new[name]))
        elif name not in new:
            yield Difference(key=key, effect="refuses", before=_said(old[name]))
        else:
            yield from _tool(key, old[name], new[name])


def _tool(key: str, old: ToolRule, new: ToolRule) -> Iterator[Difference]:
    for name in ToolRule.__struct_fields__:
        was, will = getattr(old, name), getattr(new, name)
        if was == will:
            continue
        if name == "scopes":
            yield from _rules(f"{key}.scopes", was, will)
            continue
        effect: Effect = "changes"
        if name == "timeout_s":
            effect = _by_size(was, will)
        elif name in _STRICTER and not was:
            effect = _STRICTER[name]
        elif name in _LOOSER and not will:
            effect = _LOOSER[name]
        yield _difference(f"{key}.{name}", effect, was or None, will or None)


def _budgets(key: str, old: Any, new: Any) -> Iterator[Difference]:
    kind = Budgets if isinstance(old, Budgets) else Shared
    for name in kind.__struct_fields__:
        was, will = getattr(old, name), getattr(new, name)
        if isinstance(was, Shared):
            yield from _budgets(f"{key}.{name}", was, will)
        elif was != will:
            effect = _by_strictness(name, was, will) if name in _STRICTNESS else _by_size(was, will)
            yield _difference(f"{key}.{name}", effect, was, will)


def _loops(old: Loops, new: Loops) -> Iterator[Difference]:
    for name in Loops.__struct_fields__:
        was, will = getattr(old, name), getattr(new, name)
        if was != will:
            effect = _by_size(was, will)
            if name == "similar_window_s":
                effect = "refuses" if effect == "allows" else "allows"
            yield _difference(f"loops.{name}", effect, was, will)


def _rules(key: str, old: tuple[Any, ...], new: tuple[Any, ...]) -> Iterator[Difference]:
    """Rules that forbid: one more refuses, one less allows."""
    for index, rule in enumerate(new):
        if rule not in old:
            yield _difference(f"{key}[{index}]", "refuses", None, rule)
    for index, rule in enumerate(old):
        if rule not in new:
            yield _difference(f"{key}[{index}]", "allows", rule, None)


def _by_size(old: float | None, new: float | None) -> Effect:
    if new is None:
        return "allows"
    return "refuses" if old is None or new < old else "allows"


def _by_strictness(name: str, old: str, new: str) -> Effect:
    order = _STRICTNESS[name]
    return "refuses" if order.index(new) > order.index(old) else "allows"


def _difference(key: str, effect: Effect, before: Any, after: Any) -> Difference:
    return Difference(
        key=key, effect=effect, before=msgspec.to_builtins(before), after=msgspec.to_builtins(after)
    )


def _all(tools: dict[str, ToolRule] | None) -> dict[str, Any] | None:
    return None if tools is None else {name: _said(rule) for name, rule in tools.items()}


def _said(rule: ToolRule) -> dict[str, Any]:
    """What a tool's rule says beyond nothing."""
    plain: dict[str, Any] = msgspec.to_builtins(rule)
    return {name: value for name, value in plain.items() if value not in (None, "", {}, [], ())}


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    text = " ".join(text.split())
    return f"`{text[:200]}`" if text else "it"
