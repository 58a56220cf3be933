"""Rules that a pact spells out, compiled: `deny send when args derive from read and …`."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from checkrein.policy.flow.builtin import House, Objection
from checkrein.policy.flow.grammar import At, Clause, Derives, FlowError, Property, WrittenRule
from checkrein.policy.flow.grammar import Condition as ConditionText
from checkrein.policy.flow.identifiers import Leaf, is_weak, leaves
from checkrein.policy.flow.index import Source
from checkrein.policy.flow.normal import keys, normal, words_of
from checkrein.policy.flow.shingles import SHINGLE_WORDS, shingles
from checkrein.policy.flow.state import State
from checkrein.policy.nearest import slip
from checkrein.policy.types import Deed

_SHINGLES_MAX = 200

Names = Callable[[str], Mapping[str, Any]]
"""What a condition on a tool can read: name -> Kind."""
Compile = Callable[[str, Mapping[str, Any]], Callable[[Mapping[str, Any]], Any]]
Test = Callable[[State, Deed, House], dict[str, Any] | None]
"""None: it does not hold. Else what it looked at."""


def test_of(clause: Clause, rule: WrittenRule, index: int, names: Names, compile_: Compile) -> Test:
    """A clause as a function. Raises FlowError."""
    match clause:
        case Derives():
            return _derives(clause)
        case Property():
            return _property(clause)
        case ConditionText():
            return _condition(clause, rule, index, names, compile_)


def judge_of(
    tests: Sequence[Test], rule: WrittenRule, text: str
) -> Callable[..., Objection | None]:
    """All clauses must hold."""

    def judge(state: State, lineage: Any, deed: Deed, house: House) -> Objection | None:
        inputs: dict[str, Any] = {}
        for test in tests:
            seen = test(state, deed, house)
            if seen is None:
                return None
            inputs |= seen
        values = ", ".join(f"{key}: {value!r}" for key, value in list(inputs.items())[:4])
        return Objection(rule.verdict, f"{text}{f' ({values})' if values else ''}", inputs)

    return judge


def _below(deed: Deed, path: str) -> list[Leaf]:
    """The texts of `args.PATH`."""
    wanted = path.split(".")[1:]
    if not wanted:
        return leaves(deed.args)
    value: Any = deed.args
    if len(wanted) == 1:
        return leaves({wanted[0]: value[wanted[0]]}) if wanted[0] in value else []
    for part in wanted:
        if isinstance(value, list | tuple):
            value = [each[part] for each in value if isinstance(each, dict) and part in each]
        elif isinstance(value, dict):
            value = value.get(part)
        else:
            return []
    return leaves({".".join(wanted): value})


def _derives(clause: Derives) -> Test:
    patterns = tuple(source.text for source in clause.sources)

    def test(state: State, deed: Deed, house: House) -> dict[str, Any] | None:
        mask, careful = _mask(state, patterns)
        if not mask:
            return None
        for leaf in _below(deed, clause.path.text):
            hit = _derived(state, leaf, mask, careful)
            if hit:
                return {leaf.argument: hit[:120]}
        return None

    return test


def _mask(state: State, patterns: tuple[str, ...]) -> tuple[int, int]:
    """The sources meant, and those that vouch against them: the same until there is a new one."""
    known = state.index.masks.get(patterns)
    if known is None or known[0] != len(state.index.sources):
        known = (len(state.index.sources), *_mask_of(state, patterns))
        state.index.masks[patterns] = known
    return known[1:]


def _mask_of(state: State, patterns: tuple[str, ...]) -> tuple[int, int]:
    index, mask, vouching = state.index, 0, 1
    for pattern in patterns:
        match pattern:
            case "untrusted":
                mask |= index.untrusted_mask
                vouching |= index.trusted_mask
            case "trusted":
                mask |= index.trusted_mask
                vouching = 0
            case "private":
                mask |= index.private_mask
            case "user":
                mask |= 1
                vouching = 0
            case _:
                for number, source in enumerate(index.sources):
                    if number and fnmatchcase(source.tool, pattern):
                        mask |= 1 << number
    return mask, vouching


def _derived(state: State, leaf: Leaf, mask: int, vouching: int) -> str:
    """What of a text has come from these sources and from none that vouches; "" for nothing."""
    index = state.index
    if not leaf.free:
        if is_weak(leaf.argument, leaf.text):
            return ""
        found = index.find(leaf.text)
        if found.unknown:
            return leaf.text
        if found.mask:
            return leaf.text if found.mask & mask and not found.mask & vouching else ""
    for text, named in state.readings(leaf.text):
        for each in named:
            found = index.find(each.text)
            if found.unknown or (found.mask & mask and not found.mask & vouching):
                return each.text
        shared = _shared(state, text, mask, vouching)
        if shared:
            return shared
    return ""


def _shared(state: State, text: str, mask: int, vouching: int) -> str:
    """Four words in a row that stand in one of the sources, and in none that vouches."""
    words = words_of(normal(text))
    if len(words) < 2:
        return ""
    sources = state.index.sources
    meant = [
        each for n, each in enumerate(sources) if mask >> n & 1 and not each.words.isdisjoint(words)
    ]
    against = [each for n, each in enumerate(sources) if vouching >> n & 1]
    size = min(SHINGLE_WORDS, len(words))
    known = _in_common(words, meant)
    if not meant or (size == SHINGLE_WORDS and not known):
        return ""
    step = max(1, len(words) // _SHINGLES_MAX)
    for start in range(0, len(words) - size + 1, step):
        part = words[start : start + size]
        if size == SHINGLE_WORDS and hash(tuple(part)) not in known:
            continue
        wanted = f" {' '.join(part)} "
        if any(each.has_phrase(wanted, part) for each in meant) and not any(
            each.has_phrase(wanted, part) for each in against
        ):
            return wanted.strip()
    return ""


def _in_common(words: list[str], sources: list[Source]) -> set[int]:
    """The shingles that these words share with one of the sources: most prose has none, and sets
    say so without a search."""
    if not sources or len(words) < SHINGLE_WORDS:
        return set()
    wanted = shingles(words)
    return set().union(*(wanted & each.shingles() for each in sources))


def _property(clause: Property) -> Test:
    def holds(state: State, leaf: Leaf, house: House) -> bool:
        match clause.name:
            case "external":
                return not house.internal.value(leaf.text)
            case "internal":
                return house.internal.value(leaf.text)
            case "invented":
                return not is_weak(leaf.argument, leaf.text) and not _stands(state, leaf.text)

    def test(state: State, deed: Deed, house: House) -> dict[str, Any] | None:
        found = _below(deed, clause.path.text)
        if clause.name == "internal":  # all of them must be
            hits = found if found and all(holds(state, each, house) for each in found) else []
        else:
            hits = [each for each in found if holds(state, each, house)]
        if bool(hits) == clause.negated:
            return None
        return {each.argument: each.text[:120] for each in hits[:2]}

    return test


def _stands(state: State, text: str) -> bool:
    return bool(state.index.find(text).mask) if keys(text)[1] else True


def _condition(
    clause: ConditionText, rule: WrittenRule, index: int, names: Names, compile_: Compile
) -> Test:
    condition = None
    for tool in rule.tools:
        try:
            condition = compile_(clause.text, names(tool.text))
        except ValueError as error:
            line, column = getattr(error, "line", 1), getattr(error, "column", 1)
            raise FlowError(
                getattr(error, "problem", str(error)), index, clause.line + line - 1,
                column + (clause.column - 1 if line == 1 else 0),
            ) from error  # fmt: skip
    if condition is None:  # a rule has at least one tool
        raise FlowError("a rule without a tool", index, clause.line, clause.column)
    compiled = condition

    def test(state: State, deed: Deed, house: House) -> dict[str, Any] | None:
        return {} if compiled(deed.facts or {"args": deed.args}) else None

    return test


def check_names(
    found: Sequence[At], tools: Mapping[str, Any], index: int, apart: frozenset[str] = frozenset()
) -> None:
    """A tool that the pact nearly names is a slip; one that resembles none of its tools is left to
    lint, since a rule may come before its tool. Raises FlowError."""
    for each in found:
        if each.text in apart or not tools:
            continue
        if any(fnmatchcase(tool, each.text) for tool in tools):
            continue
        meant = slip(each.text, tools)
        if meant:
            raise FlowError(
                f"no tool `{each.text}` in the pact{meant}; there are: "
                f"{', '.join(sorted(tools)[:20])}",
                index, each.line, each.column,
            )  # fmt: skip
