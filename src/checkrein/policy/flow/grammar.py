"""The language of flow rules.

    learned | directive | untrusted | trifecta          a built-in rule, with its own verdict
    deny directive for send_*, pay                      the same with a verdict, for some tools
    deny send_email when args derive from read_customer and args.to is external
    ask transfer when args.iban derives from untrusted
    ask post_* when args.url is invented and (args.cents > 100)

Sources: tools (patterns with `*`), `untrusted`, `trusted`, `private`, `user`. Properties:
`external`, `internal`, `invented`, each with or without `not`. What stands in parentheses is a
condition (CEL).
"""

from functools import cache
from typing import Any, Literal

import msgspec
from lark import Lark, Token, Transformer, UnexpectedInput, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedToken

RULE_CHARS_MAX = 2_000

_GRAMMAR = r"""
start: builtin | written
builtin: VERDICT? BUILTIN ("for" tools)?
written: VERDICT tools "when" clause (_AND clause)*
tools: NAME (_COMMA NAME)*
?clause: derives | property | condition
derives: ARGS DERIVE "from" source (_OR source)*
source: CLASS | NAME
property: ARGS "is" NOT? PROPERTY
condition: LPAR _inner RPAR
_inner: (TEXT | STRING | nested)*
nested: LPAR _inner RPAR
_AND: "and" | "&&"
_OR: "or" | ","
_COMMA: ","
NOT: "not"
VERDICT.3: /(?:deny|ask)(?![\w.*:\/-])/
BUILTIN.2: /(?:learned|directive|untrusted|trifecta)(?![\w.*:\/-])/
CLASS.2: /(?:untrusted|trusted|private|user)(?![\w.*:\/-])/
DERIVE: /derives?\b/
PROPERTY: /(?:external|internal|invented)\b/
ARGS.2: /args(\.[A-Za-z_]\w*)*(?![\w.])/
NAME: /[A-Za-z_*][\w.*:\/-]*/
LPAR: "("
RPAR: ")"
TEXT: /[^()"'\s][^()"']*/
STRING: /"(\\.|[^"\\])*"|'(\\.|[^'\\])*'/
%ignore /\s+/
"""

Builtin = Literal["learned", "directive", "untrusted", "trifecta"]


class FlowError(ValueError):
    """A rule that is none. `index` counts the rules from 0, `line` and `column` from 1 within the
    rule's text."""

    def __init__(self, problem: str, index: int, line: int = 1, column: int = 1) -> None:
        self.problem = problem
        self.index = index
        self.line = line
        self.column = column
        super().__init__(f"flow[{index}]:{line}:{column}: {problem}")


class At(msgspec.Struct, frozen=True):
    """A name with its place."""

    text: str
    line: int
    column: int


class Derives(msgspec.Struct, frozen=True):
    path: At
    sources: tuple[At, ...]


class Property(msgspec.Struct, frozen=True):
    path: At
    name: Literal["external", "internal", "invented"]
    negated: bool


class Condition(msgspec.Struct, frozen=True):
    """`text` is without its parentheses; the place is that of its first character."""

    text: str
    line: int
    column: int


Clause = Derives | Property | Condition


class BuiltinRule(msgspec.Struct, frozen=True):
    name: Builtin
    verdict: Literal["deny", "ask", ""]
    tools: tuple[At, ...] = ()


class WrittenRule(msgspec.Struct, frozen=True):
    verdict: Literal["deny", "ask"]
    tools: tuple[At, ...]
    clauses: tuple[Clause, ...]


Rule = BuiltinRule | WrittenRule


def _at(token: Token) -> At:
    return At(str(token), token.line or 1, token.column or 1)


class _Build(Transformer[Token, Any]):
    """The tree as data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def start(self, parts: list[Any]) -> Any:
        return parts[0]

    def tools(self, parts: list[Token]) -> tuple[At, ...]:
        return tuple(_at(each) for each in parts)

    def builtin(self, parts: list[Any]) -> BuiltinRule:
        tokens = {each.type: str(each) for each in parts if isinstance(each, Token)}
        tools = parts[-1] if isinstance(parts[-1], tuple) else ()
        return msgspec.convert(
            {"name": tokens["BUILTIN"], "verdict": tokens.get("VERDICT", ""), "tools": tools},
            BuiltinRule,
        )

    def written(self, parts: list[Any]) -> WrittenRule:
        return WrittenRule(str(parts[0]), parts[1], tuple(parts[2:]))  # type: ignore[arg-type] # the grammar's terminal

    def derives(self, parts: list[Any]) -> Derives:
        return Derives(_at(parts[0]), tuple(parts[2:]))

    def source(self, parts: list[Token]) -> At:
        return _at(parts[0])

    def property(self, parts: list[Token]) -> Property:
        return Property(_at(parts[0]), str(parts[-1]), len(parts) == 3)  # type: ignore[arg-type] # the grammar's terminal

    @v_args(meta=True)
    def condition(self, meta: Any, parts: list[Any]) -> Condition:
        inner = self._text[meta.start_pos + 1 : meta.end_pos - 1]
        blank = len(inner) - len(inner.lstrip())
        before = self._text[: meta.start_pos + 1 + blank]
        line = before.count("\n") + 1
        return Condition(inner.strip(), line, len(before) - (before.rfind("\n") + 1) + 1)


@cache
def _parser() -> Lark:
    """Made when the first rule is read: it costs more than an agent's start can bear."""
    return Lark(_GRAMMAR, parser="lalr", lexer="contextual", propagate_positions=True)


_SHOWN = {
    "ARGS": "`args` or `args.NAME`", "NAME": "a tool's name", "VERDICT": "`deny` or `ask`",
    "BUILTIN": "`learned`, `directive`, `untrusted` or `trifecta`", "DERIVE": "`derives`",
    "CLASS": "`untrusted`, `trusted`, `private`, `user`", "WHEN": "`when`", "FROM": "`from`",
    "PROPERTY": "`external`, `internal` or `invented`", "IS": "`is`", "_AND": "`and`",
    "LPAR": "`(`", "RPAR": "`)`", "_OR": "`or`", "_COMMA": "`,`", "NOT": "`not`", "FOR": "`for`",
    "TEXT": "a condition", "$END": "the end",
}  # fmt: skip


def parse(text: str, index: int) -> Rule:
    """One rule. Raises FlowError."""
    if len(text) > RULE_CHARS_MAX:
        raise FlowError(f"a rule has at most {RULE_CHARS_MAX} characters", index)
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        raise _explained(error, text, index) from None
    except RecursionError:
        raise FlowError("too many parentheses", index) from None
    rule: Rule = _Build(text).transform(tree)
    return rule


def _explained(error: UnexpectedInput, text: str, index: int) -> FlowError:
    expected: set[str] = set()
    match error:
        case UnexpectedToken():
            expected = set(error.accepts or error.expected)
            got = "the end" if error.token.type == "$END" else f"`{error.token}`"
        case UnexpectedCharacters():
            expected = set(error.allowed or ())
            got = f"`{error.char}`"
        case UnexpectedEOF():
            expected = set(error.expected)
            got = "the end"
        case _:
            got = "something else"
    wanted = sorted({_SHOWN[name] for name in expected if name in _SHOWN})
    line, column = error.line or 0, error.column or 0
    if got == "the end" or line < 1 or column < 1:
        line, column = text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1
    what = f"expected {' or '.join(wanted)}, found {got}" if wanted else f"unexpected {got}"
    return FlowError(what, index, line, column)
