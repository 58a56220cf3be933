"""Conditions that cannot be true, or cannot be false, whatever the call.

The condition is taken apart into alternatives (its disjunctive form), each a list of tests that
must come out a certain way; an alternative falls when two of its tests contradict each other. When
none is left, the condition cannot be true; the same of its opposite, and it cannot be false. What
is not understood may be anything, so an answer other than "" is always meant; a condition with too
many alternatives gets "".
"""

import math
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from checkrein.policy.conditions import nodes as n
from checkrein.policy.conditions.domains import Domain, domain
from checkrein.policy.conditions.interpreting import interpret

WORK_MAX = 5_000
_ORDERS = {"less", "at_most", "greater", "at_least"}
_OPPOSITE = {"less": "at_least", "at_least": "less", "greater": "at_most", "at_most": "greater"}
_MIRRORED = {"less": "greater", "greater": "less", "at_most": "at_least", "at_least": "at_most"}


_READS = object()
"""Stands for the value of what reads facts."""


class _TooMuch(Exception):
    pass


class _Said(msgspec.Struct, frozen=True):
    """An alternative so far: what is known of expressions' values, and how other tests came out."""

    domains: dict[str, Domain] = {}
    tests: dict[str, bool] = {}


def found_constant(node: n.Node) -> Literal["", "true", "false"]:
    """See `compiling.constancy`."""
    if node.kind.name not in ("bool", "dyn"):
        return ""
    try:
        if not _Search(by_schema=True).possible(node, True):
            return "false"
        if not _Search(by_schema=False).possible(node, False):
            return "true"
    except (_TooMuch, RecursionError):
        pass
    return ""


class _Search:
    def __init__(self, by_schema: bool) -> None:
        self._by_schema = by_schema
        self._work = 0
        # By the node's id: alternatives meet the same nodes again and again.
        self._keys: dict[int, str] = {}
        self._constants: dict[int, Any] = {}

    def possible(self, node: n.Node, want: bool) -> bool:
        return next(self._ways(_Said(), node, want), None) is not None

    def _ways(self, said: _Said, node: n.Node, want: bool) -> Iterator[_Said]:
        """The alternatives in which the node comes out as wanted, given what is said already."""
        self._work += 1
        if self._work > WORK_MAX:
            raise _TooMuch
        if self._is_constant(node):
            if self._constant(node) is want:
                yield said
            return
        match node:
            case n.Not(operand=operand):
                yield from self._ways(said, operand, not want)
            case n.Logic(any=any_of, terms=terms) if any_of is want:
                for term in terms:
                    yield from self._ways(said, term, want)
            case n.Logic(terms=terms):
                yield from self._all(said, terms, want)
            case n.Choice(test=test, yes=yes, no=no):
                for way in self._ways(said, test, True):
                    yield from self._ways(way, yes, want)
                for way in self._ways(said, test, False):
                    yield from self._ways(way, no, want)
            case _:
                after = self._tested(said, node, want)
                if after is not None:
                    yield after

    def _all(self, said: _Said, terms: tuple[n.Node, ...], want: bool) -> Iterator[_Said]:
        """Plain tests first, in a row; then what has alternatives, each with the rest."""
        branching = []
        for term in terms:
            if self._is_test(term):
                way = next(self._ways(said, term, want), None)
                if way is None:
                    return
                said = way
            else:
                branching.append(term)
        if not branching:
            yield said
            return
        for way in self._ways(said, branching[0], want):
            yield from self._all(way, tuple(branching[1:]), want)

    def _is_test(self, node: n.Node) -> bool:
        if isinstance(node, n.Not):
            return self._is_test(node.operand)
        return not isinstance(node, n.Logic | n.Choice)

    def _tested(self, said: _Said, node: n.Node, want: bool) -> _Said | None:
        """With one more test; None when that contradicts what is said."""
        match node:
            case n.Call(word=word, arguments=(left, right)) if word in _ORDERS:
                return self._ordered(said, word if want else _OPPOSITE[word], left, right)
            case n.Call(word="equal" | "unequal" as word, arguments=(left, right)):
                return self._equal(said, left, right, (word == "equal") is want)
            case n.Call(word="inside", arguments=(value, among)) if self._is_constant(among):
                values = self._constant(among)
                if isinstance(values, list):
                    return self._limited(said, value, tuple(values), want)
        if isinstance(node, n.Name | n.Select | n.Local | n.Call):
            return self._limited(said, node, (True,), want)
        return _noted(said, self._key(node), want)

    def _ordered(self, said: _Said, word: str, left: n.Node, right: n.Node) -> _Said | None:
        if self._is_constant(left):
            left, right, word = right, left, _MIRRORED[word]
        bound = self._constant(right) if self._is_constant(right) else None
        if isinstance(bound, bool) or not isinstance(bound, int | float) or math.isnan(bound):
            return self._related(said, word, left, right)
        before = self._domain(said, left)
        is_open = word in ("greater", "less")
        if word in ("greater", "at_least"):
            after = before.above(bound, is_open)
        else:
            after = before.below(bound, is_open)
        return self._limit(said, left, after)

    def _related(self, said: _Said, word: str, left: n.Node, right: n.Node) -> _Said | None:
        """Two unknowns: `a > b` is `b < a`, `a >= b` is not `a < b`."""
        if word in ("greater", "at_most"):
            left, right = right, left
        strictly = word in ("less", "greater")
        first, second = self._key(left), self._key(right)
        if first == second:
            return None if strictly else said
        return _noted(said, f"{first} < {second}", strictly)

    def _equal(self, said: _Said, left: n.Node, right: n.Node, want: bool) -> _Said | None:
        if self._is_constant(left):
            left, right = right, left
        if self._is_constant(right):
            value = self._constant(right)
            if value is None or type(value) in (str, int, float, bool):
                return self._limited(said, left, (value,), want)
        first, second = sorted((self._key(left), self._key(right)))
        if first == second:
            return said if want else None
        return _noted(said, f"{first} == {second}", want)

    def _limited(
        self, said: _Said, node: n.Node, values: tuple[Any, ...], want: bool
    ) -> _Said | None:
        before = self._domain(said, node)
        return self._limit(said, node, before.among(values) if want else before.without(values))

    def _domain(self, said: _Said, node: n.Node) -> Domain:
        found = said.domains.get(self._key(node))
        if found is not None:
            return found
        begun = domain(node.kind, self._by_schema)
        if isinstance(node, n.Call) and node.word == "size":
            return begun.above(0, False)
        return begun

    def _limit(self, said: _Said, node: n.Node, after: Domain) -> _Said | None:
        key = self._key(node)
        if after.empty() or said.tests.get(f"has {key}") is False:
            return None
        return _Said({**said.domains, key: after}, said.tests)

    def _key(self, node: n.Node) -> str:
        found = self._keys.get(id(node))
        if found is None:
            found = self._keys[id(node)] = _key(node)
        return found

    def _is_constant(self, node: n.Node) -> bool:
        return self._constant(node) is not _READS

    def _constant(self, node: n.Node) -> Any:
        """The value of what reads nothing; `...` when that is an error."""
        if id(node) not in self._constants:
            self._constants[id(node)] = _evaluated(node)
        return self._constants[id(node)]


def _noted(said: _Said, key: str, want: bool) -> _Said | None:
    if said.tests.get(key, want) is not want:
        return None
    if not want and key.startswith("has ") and key[4:] in said.domains:
        return None
    return _Said(said.domains, {**said.tests, key: want})


def _evaluated(node: n.Node) -> Any:
    if _reads(node):
        return _READS
    try:
        return interpret(node, {})
    except Exception:
        return ...


def _reads(node: n.Node, own: frozenset[int] = frozenset()) -> bool:
    """Whether it reads facts, or a macro's variable that is not its `own`."""
    if isinstance(node, n.Name):
        return True
    if isinstance(node, n.Local):
        return node.number not in own
    if isinstance(node, n.Macro):
        own = own | {node.number}
    return any(_reads(child, own) for child in n.children(node))


def _key(node: n.Node) -> str:
    """The same for two nodes that say the same. Macros' variables by their names: where the text
    is the same, so is what they stand for."""
    match node:
        case n.Literal(value=value):
            return f"{type(value).__name__}:{value!r}"
        case n.Name(name=name):
            return name
        case n.Local(name=name):
            return f"({name})"
        case n.Call(word="as_double" | "as_number", arguments=(operand,)):
            return _key(operand)
        case n.Select(operand=operand, field=field):
            return f"{_key(operand)}[{field!r}]"
        case n.Call(word="element", arguments=(operand, n.Literal(value=str() as field))):
            return f"{_key(operand)}[{field!r}]"
        case n.Has(operand=operand, field=field):
            return f"has {_key(operand)}[{field!r}]"
        case _:
            parts = ", ".join(_key(child) for child in n.children(node))
            return f"{_word(node)}({parts})"


def _word(node: n.Node) -> str:
    match node:
        case n.Call(word=word):
            return word
        case n.Macro(word=word, variable=variable, test=test):
            return f"{word} {variable} {test is not None}"
        case n.Matches(pattern=pattern):
            return f"matches {pattern!r}"
        case n.Logic(any=any_of):
            return "any" if any_of else "all"
        case _:
            return type(node).__name__
