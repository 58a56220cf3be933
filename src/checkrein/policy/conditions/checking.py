"""The checker: resolves names, finds each node's kind, and turns operators and functions into
operations. What it lets pass can still err when evaluated, but only because of the facts."""

from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from checkrein.policy.conditions import kinds as k
from checkrein.policy.conditions import nodes as n
from checkrein.policy.conditions import signatures
from checkrein.policy.conditions.literals import INT_MOST
from checkrein.policy.conditions.patterns import PatternError, compiled
from checkrein.policy.conditions.types import DYN, ConditionError, Kind
from checkrein.policy.conditions.values import TYPE_NAMES, TypeName
from checkrein.policy.nearest import did_you_mean

_LITERAL_KINDS = {
    bool: k.BOOL, int: k.INT, float: k.DOUBLE, str: k.STRING, bytes: k.BYTES, type(None): k.NULL,
    TypeName: k.TYPE,
}  # fmt: skip
_ARITHMETIC = frozenset({"+", "-", "*", "/", "%"})
_ORDERS = frozenset({"<", "<=", ">", ">="})
_NUMBERS = {"int", "double"}
_OF_ITS_VALUES = frozenset({"add", "subtract", "multiply", "divide", "negate"})
_KNOWN_WORDS = (*signatures.FUNCTIONS, *signatures.METHODS, *n.MACROS, "matches", "has")


def check(tree: n.Node, names: Mapping[str, Kind]) -> tuple[n.Node, frozenset[str]]:
    """The tree anew, and the variables it reads. Raises ConditionError."""
    checker = _Checker(names)
    checked = checker.node(tree)
    return checked, frozenset(checker.read)


def must_be_bool(node: n.Node) -> None:
    """Raises ConditionError unless the value is a bool, or can be one."""
    if node.kind.name not in ("bool", "dyn"):
        _fail(node, f"a {k.name_of(node.kind)} where true or false should be")


def must_be_plain(node: n.Node) -> n.Node:
    """The node as a result: of what the text builds itself the size is watched. Raises
    ConditionError when the value is nothing that JSON has."""
    kind = node.kind
    while kind.name in ("list", "map") and kind.items is not None:
        kind = kind.items
    if kind.name in ("timestamp", "duration", "type", "bytes"):
        _fail(node, f"a {kind.name} cannot be a result: make it text with string(…)")
    if node.kind.name not in ("list", "map", "dyn") or isinstance(node, n.Name | n.Select):
        return node
    return n.Call("modest", (node,), kind=node.kind, line=node.line, column=node.column)


def _fail(at: n.Node, problem: str) -> NoReturn:
    raise ConditionError(problem, at.line, at.column)


class _Checker:
    def __init__(self, names: Mapping[str, Kind]) -> None:
        self._names = names
        self._locals: list[tuple[str, int, Kind]] = []
        self._count = 0
        self.read: set[str] = set()

    def node(self, node: n.Node) -> n.Node:
        match node:
            case n.Literal():
                return _literal(node)
            case n.Name():
                return self._name(node)
            case n.Select():
                operand = self.node(node.operand)
                return _changed(node, _field(node, operand, node.field), operand=operand)
            case n.Has():
                operand = self.node(node.operand)
                _field(node, operand, node.field)
                return _changed(node, k.BOOL, operand=operand)
            case n.Call():
                return self._call(node)
            case n.Logic():
                return _changed(node, k.BOOL, terms=tuple(self._test(term) for term in node.terms))
            case n.Not():
                return _changed(node, k.BOOL, operand=self._test(node.operand))
            case n.Choice():
                return self._choice(node)
            case n.ListOf():
                items = tuple(self.node(item) for item in node.items)
                return _changed(node, Kind("list", items=_joined(items)), items=items)
            case n.MapOf():
                return self._map_of(node)
            case n.Macro():
                return self._macro(node)
            case _:
                _fail(node, "cannot be read")

    def _test(self, node: n.Node) -> n.Node:
        checked = self.node(node)
        must_be_bool(checked)
        return checked

    def _name(self, node: n.Name) -> n.Node:
        for name, number, kind in reversed(self._locals):
            if name == node.name:
                return n.Local(
                    name, number, line=node.line, column=node.column, kind=kind
                )  # fmt: skip
        if node.name in self._names:
            self.read.add(node.name)
            return _changed(node, self._names[node.name])
        if node.name in TYPE_NAMES:
            named = TYPE_NAMES[node.name]
            return n.Literal(named, line=node.line, column=node.column, kind=k.TYPE)
        known = [*(name for name, _, _ in self._locals), *self._names]
        more = did_you_mean(node.name, known) or f": there are {', '.join(known[:20])}"
        _fail(node, f"unknown name `{node.name}`{more}")

    def _choice(self, node: n.Choice) -> n.Node:
        test, yes, no = self._test(node.test), self.node(node.yes), self.node(node.no)
        if not (signatures.fits(yes.kind, no.kind) or "null" in (yes.kind.name, no.kind.name)):
            kinds = f"a {k.name_of(yes.kind)} or a {k.name_of(no.kind)}"
            _fail(node, f"the two sides of `? :` differ: {kinds}")
        return _changed(node, k.join(yes.kind, no.kind), test=test, yes=yes, no=no)

    def _map_of(self, node: n.MapOf) -> n.Node:
        entries = tuple((self.node(key), self.node(value)) for key, value in node.entries)
        seen = set()
        for key, _ in entries:
            if key.kind.name not in ("string", "int", "dyn"):
                _fail(key, f"a {k.name_of(key.kind)} is no key: texts and whole numbers are")
            if isinstance(key, n.Literal):
                if key.value in seen:
                    _fail(key, f"the key {key.value!r} twice")
                seen.add(key.value)
        values = tuple(value for _, value in entries)
        return _changed(node, Kind("map", items=_joined(values)), entries=entries)

    def _macro(self, node: n.Macro) -> n.Node:
        over = self.node(node.over)
        if over.kind.name not in ("list", "map", "dyn"):
            _fail(node, f"`{node.word}` is for lists and maps, not for a {k.name_of(over.kind)}")
        element = k.STRING if over.kind.name == "map" and over.kind.fields else DYN
        if over.kind.name == "list":
            element = over.kind.items or DYN
        self._count += 1
        number = self._count
        self._locals.append((node.variable, number, element))
        test = None if node.test is None else self._test(node.test)
        body = self.node(node.body) if node.word == "map" else self._test(node.body)
        self._locals.pop()
        kind = k.BOOL
        if node.word == "map":
            kind = Kind("list", items=body.kind)
        elif node.word == "filter":
            kind = Kind("list", items=element)
        return _changed(node, kind, over=over, test=test, body=body, number=number)

    def _call(self, node: n.Call) -> n.Node:
        arguments = tuple(self.node(argument) for argument in node.arguments)
        if node.word == "[]":
            return _index(node, arguments)
        if node.word in ("==", "!="):
            return _equality(node, arguments)
        if node.method and node.word == "matches":
            return _matches(node, arguments)
        if node.word == "-" and len(arguments) == 1:
            return _chosen(node, arguments, signatures.MINUS)
        if node.word in signatures.OPERATORS:
            return _chosen(node, arguments, signatures.OPERATORS[node.word])
        table = signatures.METHODS if node.method else signatures.FUNCTIONS
        forms = table.get(node.word)
        if forms is None:
            _fail(node, _no_function(node))
        return _chosen(node, arguments, forms)


def _changed(node: n.Node, kind: Kind, **fields: Any) -> n.Node:
    return msgspec.structs.replace(node, kind=kind, **fields)


def _joined(items: tuple[n.Node, ...]) -> Kind:
    kind = items[0].kind if items else DYN
    for item in items[1:]:
        kind = k.join(kind, item.kind)
    return kind


def _literal(node: n.Literal) -> n.Node:
    if type(node.value) is int and node.value > INT_MOST:
        _fail(node, "the number is too large: whole numbers have 64 bits")
    return _changed(node, _LITERAL_KINDS[type(node.value)])


def _field(at: n.Node, operand: n.Node, field: str) -> Kind:
    """The kind of a field, or the error that there is none."""
    kind = operand.kind
    if kind.name == "dyn":
        return DYN
    if kind.name != "map":
        _fail(at, f"a {k.name_of(kind)} has no field `{field}`")
    if kind.fields is not None:
        if field in kind.fields:
            return kind.fields[field]
        if not kind.open:
            there = ", ".join(list(kind.fields)[:20]) or "none"
            more = did_you_mean(field, kind.fields) or f": there are {there}"
            _fail(at, f"unknown field `{field}`{more}")
    return kind.items or DYN


def _index(node: n.Call, arguments: tuple[n.Node, ...]) -> n.Node:
    operand, key = arguments
    match operand.kind.name:
        case "map" if isinstance(key, n.Literal) and isinstance(key.value, str):
            kind = _field(key, operand, key.value)
        case "map":
            kind, fine = operand.kind.items or DYN, ("string", "int", "double", "dyn")
            if key.kind.name not in fine:
                _fail(key, f"a {k.name_of(key.kind)} is no key: texts and whole numbers are")
        case "list":
            kind = operand.kind.items or DYN
            if key.kind.name not in ("int", "double", "dyn"):
                _fail(key, f"an element is found by a whole number, not by a {k.name_of(key.kind)}")
        case "dyn":
            kind = DYN
        case _:
            _fail(node, f"a {k.name_of(operand.kind)} has no elements")
    return _changed(node, kind, word="element", arguments=arguments)


def _equality(node: n.Call, arguments: tuple[n.Node, ...]) -> n.Node:
    left, right = (argument.kind for argument in arguments)
    if not (
        signatures.fits(left, right)
        or "null" in (left.name, right.name)
        or {left.name, right.name} <= _NUMBERS
    ):
        kinds = f"a {k.name_of(left)} and a {k.name_of(right)}"
        _fail(node, f"{kinds} are never equal")
    word = "equal" if node.word == "==" else "unequal"
    return _changed(node, k.BOOL, word=word, arguments=arguments)


def _matches(node: n.Call, arguments: tuple[n.Node, ...]) -> n.Node:
    if len(arguments) != 2:
        _fail(node, '`matches` takes one pattern: `args.to.matches("…")`')
    operand, pattern = arguments
    if operand.kind.name not in ("string", "dyn"):
        _fail(node, f"no `matches` of a {k.name_of(operand.kind)}")
    if not isinstance(pattern, n.Literal) or not isinstance(pattern.value, str):
        _fail(pattern, "a pattern must be written out, so that it is known before any call")
    try:
        compiled(pattern.value)
    except PatternError as error:
        _fail(pattern, f"no pattern (RE2): {error}")
    return n.Matches(
        operand, pattern.value, kind=k.BOOL, line=node.line, column=node.column,
        size=node.size, depth=node.depth,
    )  # fmt: skip


def _chosen(
    node: n.Call, arguments: tuple[n.Node, ...], forms: tuple[signatures.Form, ...]
) -> n.Node:
    """The call as the operation of the form that fits."""
    good = [
        form
        for form in forms
        if len(form.takes) == len(arguments)
        and all(
            signatures.fits(argument.kind, taken)
            for argument, taken in zip(arguments, form.takes, strict=True)
        )
    ]
    if not good:
        _fail(node, _misfit(node, arguments, forms))
    gives = good[0].gives
    for form in good[1:]:
        gives = gives if gives == form.gives else DYN
    if gives.name == "list" and gives.items is None:
        gives = k.join(arguments[0].kind, arguments[1].kind)
    if node.word in _ORDERS and {argument.kind.name for argument in arguments} <= _NUMBERS:
        arguments = tuple(_numbered(argument) for argument in arguments)
    if node.word in _ARITHMETIC and gives.name in ("double", "dyn"):
        arguments = tuple(_doubled(argument) for argument in arguments)
    return _changed(node, gives, word=good[0].operation, arguments=arguments)


def _doubled(node: n.Node) -> n.Node:
    """What is declared a double may come as `5` in JSON: in arithmetic it must be 5.0."""
    if node.kind.name != "double" or not may_lie(node):
        return node
    return n.Call("as_double", (node,), kind=k.DOUBLE, line=node.line, column=node.column)


def _numbered(node: n.Node) -> n.Node:
    """What is declared a number: two texts in its stead would be put in order as texts."""
    if not may_lie(node):
        return node
    return n.Call("as_number", (node,), kind=node.kind, line=node.line, column=node.column)


def may_lie(node: n.Node) -> bool:
    """Whether its kind is only declared, so that the facts may hold another."""
    match node:
        case n.Literal() | n.Logic() | n.Not() | n.Has() | n.Matches() | n.ListOf() | n.MapOf():
            return False
        case n.Macro():
            return False
        case n.Choice(yes=yes, no=no):
            return may_lie(yes) or may_lie(no)
        case n.Call(word=word, arguments=arguments):
            if word in _OF_ITS_VALUES:
                return any(may_lie(argument) for argument in arguments)
            return word in ("element", "to_dyn", "as_double", "as_number")
        case _:
            return True


def _misfit(node: n.Call, arguments: tuple[n.Node, ...], forms: tuple[signatures.Form, ...]) -> str:
    counts = sorted({len(form.takes) - node.method for form in forms})
    given = [k.name_of(argument.kind) for argument in arguments]
    if len(arguments) - node.method not in counts:
        takes = " or ".join(str(count) for count in counts)
        return f"`{node.word}` takes {takes} value{'s' * (counts != [1])}"
    names = {argument.kind.name for argument in arguments}
    if node.word in _ARITHMETIC and names == {"int", "double"}:
        return (
            f"no `{node.word}` of a whole number and a number with a fraction: write 2.0 for 2, "
            "or double(…)"
        )
    return f"no `{node.word}` of {' and '.join(f'a {name}' for name in given)}"


def _no_function(node: n.Call) -> str:
    what = "method" if node.method else "function"
    other = signatures.FUNCTIONS if node.method else signatures.METHODS
    if node.word in other or (node.word in ("matches", *n.MACROS) and not node.method):
        form = f"{node.word}(x)" if node.method else f"x.{node.word}(…)"
        return f"`{node.word}` is written `{form}`"
    return f"unknown {what} `{node.word}`{did_you_mean(node.word, _KNOWN_WORDS)}"
