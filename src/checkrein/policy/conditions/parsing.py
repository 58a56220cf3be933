"""A condition's text as a tree: by lark (LALR) and the grammar beside this file.

lark is imported and the grammar built only when the first text is parsed.
"""

from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

from checkrein.policy.conditions import nodes as n
from checkrein.policy.conditions.literals import LiteralError, quoted, raw, whole
from checkrein.policy.conditions.types import ConditionError

BYTES_MAX = 4096
NODES_MAX = 2000
DEPTH_MAX = 64
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}
_HINTS = {
    "=": "a single `=`: to compare, write `==`",
    "&": "a single `&`: write `&&` or `and`",
    "|": "a single `|`: write `||` or `or`",
    '"': "a text that is not closed, or with a line's end in it",
    "'": "a text that is not closed, or with a line's end in it",
}


def parse(text: str) -> n.Node:
    """The tree, its names and kinds not looked at. Raises ConditionError."""
    try:
        length = len(text.encode())
    except UnicodeEncodeError as error:
        at = _place_of(text, error.start)
        raise ConditionError("a character that is half of one (a lone surrogate)", *at) from None
    if length > BYTES_MAX:
        raise ConditionError(f"too long: {length} bytes, at most {BYTES_MAX}")
    if not text.strip():
        raise ConditionError("empty: write a condition, for example `args.cents <= 5000`")
    tree: n.Node = _parser()(text)
    if tree.size > NODES_MAX:
        raise ConditionError(f"too large: {tree.size} parts, at most {NODES_MAX}")
    return tree


def _place_of(text: str, index: int) -> tuple[int, int]:
    before = text[:index]
    return before.count("\n") + 1, index - before.rfind("\n")


@cache
def _parser() -> Callable[[str], Any]:
    from lark import Lark
    from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput

    grammar = resources.files(__package__).joinpath("grammar.lark").read_text()
    builder: Any = _Builder()  # any object will do, whatever lark's types say
    engine = Lark(
        grammar, parser="lalr", propagate_positions=False, maybe_placeholders=True,
        transformer=builder,
    )  # fmt: skip

    def parsed(text: str) -> Any:
        try:
            return engine.parse(text)
        except UnexpectedEOF:
            raise _ended(text) from None
        except UnexpectedCharacters as error:
            raise _unreadable(text, error.line, error.column) from None
        except UnexpectedInput as error:
            token = getattr(error, "token", None)
            if token is None or token.type == "$END":
                raise _ended(text) from None
            problem = f"`{_short(str(token))}` cannot stand here"
            raise ConditionError(problem, error.line, error.column) from None

    return parsed


def _ended(text: str) -> ConditionError:
    stripped = text.rstrip()
    return ConditionError("it ends too early", *_place_of(stripped, len(stripped)))


def _unreadable(text: str, line: int, column: int) -> ConditionError:
    rest = text.split("\n")[line - 1][column - 1 :]
    hint = _HINTS.get(rest[:1])
    if hint is None:
        hint = f"`{_short(rest.split()[0] if rest.split() else rest)}` cannot stand here"
    return ConditionError(hint, line, column)


def _short(text: str) -> str:
    return text if len(text) <= 30 else text[:30] + "…"


def _built(make: Callable[..., n.Node], at: Any, of: tuple[n.Node, ...], *values: Any) -> n.Node:
    """A node at a token or where another begins, over these."""
    size = 1 + sum(node.size for node in of)
    depth = 1 + max((node.depth for node in of), default=0)
    if depth > DEPTH_MAX:
        problem = f"nested too deeply: more than {DEPTH_MAX} levels"
        raise ConditionError(problem, at.line, at.column)
    return make(*values, line=at.line, column=at.column, size=size, depth=depth)


def _read(read: Callable[[str], Any], token: Any) -> n.Node:
    try:
        return _built(n.Literal, token, (), read(str(token)))
    except LiteralError as error:
        before = str(token)[: error.offset]
        lines = before.count("\n")
        column = token.column + len(before) if not lines else len(before) - before.rfind("\n")
        raise ConditionError(str(error), token.line + lines, column) from None


class _Builder:
    """Called by the parser as it goes, by the grammar's names, so that no tree of lark's is ever
    built. Stateless."""

    def choice(self, given: list[Any]) -> n.Node:
        test, at, yes, no = given
        return _built(n.Choice, at, (test, yes, no), test, yes, no)

    def logic_or(self, given: list[Any]) -> n.Node:
        return _logic(True, given)

    def logic_and(self, given: list[Any]) -> n.Node:
        return _logic(False, given)

    def negation(self, given: list[Any]) -> n.Node:
        return _built(n.Not, given[0], (given[1],), given[1])

    def minus(self, given: list[Any]) -> n.Node:
        at, operand = given
        if isinstance(operand, n.Literal) and type(operand.value) in (int, float):
            if operand.value < 0:
                return _built(n.Call, at, (operand,), "-", (operand,))
            return _built(n.Literal, at, (), -operand.value)
        return _built(n.Call, at, (operand,), "-", (operand,))

    def binary(self, given: list[Any]) -> n.Node:
        left, word, right = given
        return _built(n.Call, word, (left, right), str(word), (left, right))

    def select(self, given: list[Any]) -> n.Node:
        operand, field = given
        return _built(n.Select, field, (operand,), operand, str(field))

    def method(self, given: list[Any]) -> n.Node:
        return _method(*given)

    def index(self, given: list[Any]) -> n.Node:
        operand, at, key = given
        return _built(n.Call, at, (operand, key), "[]", (operand, key))

    def name(self, given: list[Any]) -> n.Node:
        word = str(given[0])
        if word in _WORDS:
            return _built(n.Literal, given[0], (), _WORDS[word])
        return _built(n.Name, given[0], (), word)

    def function(self, given: list[Any]) -> n.Node:
        word, arguments = given[0], tuple(given[1] or ())
        if word == "has":
            return _has(word, arguments)
        return _built(n.Call, word, arguments, str(word), arguments)

    def list_of(self, given: list[Any]) -> n.Node:
        items = tuple(given[1] if len(given) > 1 else ())
        return _built(n.ListOf, given[0], items, items)

    def map_of(self, given: list[Any]) -> n.Node:
        entries = tuple(given[1] if len(given) > 1 else ())
        return _built(n.MapOf, given[0], tuple(k for e in entries for k in e), entries)

    def real(self, given: list[Any]) -> n.Node:
        return _read(float, given[0])

    def integer(self, given: list[Any]) -> n.Node:
        return _read(whole, given[0])

    def text(self, given: list[Any]) -> n.Node:
        return _read(quoted, given[0])

    def raw(self, given: list[Any]) -> n.Node:
        return _read(raw, given[0])

    def arguments(self, given: list[Any]) -> Any:
        return given if len(given) == 1 else [*given[0], given[1]]

    def entries(self, given: list[Any]) -> Any:
        entry = (given[-2], given[-1])
        return [entry] if len(given) == 2 else [*given[0], entry]


def _logic(any_of: bool, given: list[Any]) -> n.Node:
    terms = tuple(given[::2])
    return _built(n.Logic, given[1], terms, any_of, terms)


def _method(operand: n.Node, word: Any, given: list[n.Node] | None) -> n.Node:
    arguments = tuple(given or ())
    if word not in n.MACROS:
        every = (operand, *arguments)
        return _built(n.Call, word, every, str(word), every, True)
    if len(arguments) != 2 and not (word == "map" and len(arguments) == 3):
        form = f".{word}(x, …x…)"
        raise ConditionError(
            f"write `{form}`: a name, and what is said of it", word.line, word.column
        )
    if not isinstance(arguments[0], n.Name):
        at = arguments[0]
        problem = f"the first part of `{word}` is the name that stands for each element"
        raise ConditionError(problem, at.line, at.column)
    test = arguments[1] if len(arguments) == 3 else None
    of = (operand, *arguments[1:])
    name = arguments[0].name
    return _built(n.Macro, word, of, str(word), operand, name, test, arguments[-1])


def _has(word: Any, arguments: tuple[n.Node, ...]) -> n.Node:
    if len(arguments) != 1 or not isinstance(arguments[0], n.Select):
        problem = "`has` takes one field: `has(args.name)`"
        raise ConditionError(problem, word.line, word.column)
    field = arguments[0]
    return _built(n.Has, field, (field.operand,), field.operand, field.field)
