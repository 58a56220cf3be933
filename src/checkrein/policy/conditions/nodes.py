"""A condition as a tree. The parser writes it; the checker writes it anew, with kinds, with names
resolved, and with every operator replaced by the operation it stands for."""

from typing import Any

import msgspec

from checkrein.policy.conditions.types import DYN, Kind

MACROS = frozenset({"all", "exists", "exists_one", "filter", "map"})


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """`line` and `column` count from 1; `size` is its number of nodes, `depth` its longest path."""

    line: int = 1
    column: int = 1
    size: int = 1
    depth: int = 1
    kind: Kind = DYN


class Literal(Node, frozen=True):
    value: Any


class Name(Node, frozen=True):
    """A variable of the facts, or (in the parser's tree) of a macro."""

    name: str


class Local(Node, frozen=True):
    """A macro's variable. `name` is as written, `number` tells it from others of that name."""

    name: str
    number: int


class Select(Node, frozen=True):
    operand: Node
    field: str


class Has(Node, frozen=True):
    operand: Node
    field: str


class Call(Node, frozen=True):
    """A function, a method or an operator, by its word; after checking an operation's name (a key
    of `operations.OPERATIONS`)."""

    word: str
    arguments: tuple[Node, ...]
    method: bool = False


class Matches(Node, frozen=True):
    """`text.matches("pattern")`, the pattern known to be good."""

    operand: Node
    pattern: str


class Logic(Node, frozen=True):
    """`any` true (||) or all (&&) of two or more."""

    any: bool
    terms: tuple[Node, ...]


class Not(Node, frozen=True):
    operand: Node


class Choice(Node, frozen=True):
    test: Node
    yes: Node
    no: Node


class ListOf(Node, frozen=True):
    items: tuple[Node, ...]


class MapOf(Node, frozen=True):
    entries: tuple[tuple[Node, Node], ...]


class Macro(Node, frozen=True):
    """`all exists exists_one filter map` over a list or a map's keys. `test` only of the `map` that
    also filters; `number` is the variable's."""

    word: str
    over: Node
    variable: str
    test: Node | None
    body: Node
    number: int = 0


def children(node: Node) -> tuple[Node, ...]:
    """In the order of the text."""
    match node:
        case Select(operand=operand) | Has(operand=operand) | Not(operand=operand):
            return (operand,)
        case Matches(operand=operand):
            return (operand,)
        case Call(arguments=arguments):
            return arguments
        case Logic(terms=terms):
            return terms
        case Choice(test=test, yes=yes, no=no):
            return (test, yes, no)
        case ListOf(items=items):
            return items
        case MapOf(entries=entries):
            return tuple(node for entry in entries for node in entry)
        case Macro(over=over, test=test, body=body):
            return (over, body) if test is None else (over, test, body)
        case _:
            return ()
