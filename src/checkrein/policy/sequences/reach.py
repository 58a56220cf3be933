"""Rules that say nothing, seen from the tools that a pact names: for whoever looks a pact over."""

from collections.abc import Callable, Mapping, Sequence

from checkrein.policy.nearest import did_you_mean, slip
from checkrein.policy.sequences.atoms import COMPARE
from checkrein.policy.sequences.operands import matches
from checkrein.policy.sequences.reading import read_rule
from checkrein.policy.sequences.types import (
    Both,
    Either,
    Formerly,
    Formula,
    Not,
    Once,
    Past,
    Rule,
    Tally,
    Tools,
)
from checkrein.policy.types import ToolKind

Known = Mapping[str, ToolKind | None]
"""The tools there are, with their kinds."""


def unknown(rules: Sequence[str], tools: Known) -> list[tuple[int, str]]:
    """(index, why) of the rules about calls of tools that are none of `tools`, but nearly: a slip.
    Those that resemble none are `unreachable`, since a rule may come before its tool. Raises
    SequenceError for a text that is no rule."""
    read = [(index, read_rule(text)) for index, text in enumerate(rules)]
    return [
        (index, f"no tool is `{rule.tools.text}`{meant}")
        for index, rule in read
        if not _any(rule.tools, tools)
        and rule.tools.names
        and (meant := slip(rule.tools.names[0], tools))
    ]


def unreachable(rules: Sequence[str], tools: Known) -> list[tuple[int, str]]:
    """(index, why) of the rules that can never speak, because no tool they name is one of `tools`,
    or what they ask of the past cannot be. Raises SequenceError for a text that is no rule."""
    found = []
    for index, text in enumerate(rules):
        rule = read_rule(text)
        if not _any(rule.tools, tools):
            found.append((index, f"no tool is `{rule.tools.text}`{_nearest(rule.tools, tools)}"))
        elif _settled(rule.applies, tools) is False:
            found.append((index, _why(rule, tools, "never applies")))
    return found


def unavoidable(rules: Sequence[str], tools: Known) -> list[tuple[int, str]]:
    """(index, why) of the rules that speak at every call of their tools, likewise."""
    found = []
    for index, text in enumerate(rules):
        rule = read_rule(text)
        if _any(rule.tools, tools) and _settled(rule.applies, tools) is True:
            found.append((index, _why(rule, tools, "always applies")))
    return found


def _settled(formula: Formula, tools: Known) -> bool | None:
    """What it comes to whatever is done; None: that depends."""
    match formula:
        case Not(part):
            value = _settled(part, tools)
            return None if value is None else not value
        case Both(parts):
            values = [_settled(part, tools) for part in parts]
            return False if False in values else (None if None in values else True)
        case Either(parts):
            values = [_settled(part, tools) for part in parts]
            return True if True in values else (None if None in values else False)
        case Formerly(past) | Once(past):
            return None if _any(past.tools, tools) else False
        case Tally():
            return _tally(formula, tools)


def _tally(tree: Tally, tools: Known) -> bool | None:
    compare: Callable[[object, object], bool] = COMPARE[tree.relation]
    if not _any(tree.past.tools, tools):
        return compare(0, tree.limit)
    if tree.amount is not None:
        return None
    if tree.limit < 0 or (tree.limit == 0 and tree.relation in (">=", "<")):
        return compare(0, tree.limit)
    return None


def _why(rule: Rule, tools: Known, what: str) -> str:
    missing = [past for past in _pasts(rule.applies) if not _any(past.tools, tools)]
    if not missing:
        return f"it {what}: a count is never below 0"
    past = missing[0].tools
    return f"it {what}: no tool is `{past.text}`{_nearest(past, tools)}"


def _pasts(formula: Formula) -> list[Past]:
    match formula:
        case Not(part):
            return _pasts(part)
        case Both(parts) | Either(parts):
            return [past for part in parts for past in _pasts(part)]
        case Formerly() | Once():
            return [formula.past]
        case Tally():
            return [formula.past]


def _any(meant: Tools, tools: Known) -> bool:
    return any(matches(meant, name, kind, True) for name, kind in tools.items())


def _nearest(meant: Tools, tools: Known) -> str:
    return did_you_mean(meant.names[0], tools) if meant.names else ""
