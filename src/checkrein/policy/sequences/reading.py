"""Reading a rule's text: an LALR(1) grammar over the words, and from its parse the tree."""

from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from checkrein.policy.nearest import did_you_mean, nearest
from checkrein.policy.sequences.types import (
    Both,
    Either,
    Formerly,
    Formula,
    Not,
    Once,
    Passage,
    Past,
    Relation,
    Rule,
    SequenceError,
    Tally,
    Tools,
    Verb,
)
from checkrein.policy.sequences.words import KEYWORDS, Word, place, refuse, words
from checkrein.policy.types import ToolKind
from checkrein.policy.units import UnitError, duration_s

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

DEPTH_MAX = 40
_KINDS = ("read", "compensable", "irreversible")
_WILD = frozenset("*?[")
_GRAMMAR = """
start: (DENY | ASK | STEER) calls (IF | UNLESS) _formula [SAY TEXT]
calls: TOOLS [CONDITION]
_formula: either
?either: both (_OR both)*
?both: unit (_AND unit)*
?unit: _NOT unit -> negation
     | _LEFT either _RIGHT
     | FORMERLY calls limit* -> formerly
     | NEVER BEFORE calls limit* -> never
     | ONCE calls limit* -> once
     | calls limit+ -> bare
     | COUNT calls limit* RELATION NUMBER -> count
     | SUM EXPRESSION OF calls limit* RELATION NUMBER -> total
limit: WITHIN DURATION -> within
     | SINCE calls -> since
     | IN TASK -> in_task
%declare DENY ASK STEER IF UNLESS _AND _OR _NOT _LEFT _RIGHT FORMERLY NEVER BEFORE ONCE COUNT SUM
%declare OF WITHIN SINCE IN TASK SAY TOOLS CONDITION EXPRESSION DURATION NUMBER RELATION TEXT
"""
_HIDDEN = {"AND": "_AND", "OR": "_OR", "NOT": "_NOT", "LEFT": "_LEFT", "RIGHT": "_RIGHT"}
_SHOWN = {
    "_LEFT": "`(`",
    "_RIGHT": "`)`",
    "TOOLS": "a tool",
    "CONDITION": "a condition in brackets",
    "DURATION": "a duration like 30m",
    "NUMBER": "a number",
    "RELATION": "one of >= > <= < == !=",
    "TEXT": "a text in quotes",
    "$END": "the end",
}


@lru_cache(maxsize=1)
def _parser() -> "Lark":
    from lark import Lark, Token  # only a process that reads such rules pays for the parser
    from lark.lexer import Lexer

    class Words(Lexer):
        def __init__(self, lexer_conf: Any) -> None:
            del lexer_conf

        def lex(self, lexer_state: Any, parser_state: Any = None) -> "Iterator[Token]":
            for word in words(lexer_state):  # the text itself, for a lexer of one's own
                yield Token(_HIDDEN.get(word.type, word.type), cast(str, word), word.at)

    return Lark(_GRAMMAR, parser="lalr", lexer=Words, maybe_placeholders=False)


def read_rule(text: str) -> Rule:
    """The tree of one rule. Raises SequenceError (its index 0) with line and column."""
    from lark.exceptions import UnexpectedInput

    if not text.strip():
        raise SequenceError("an empty rule; write e.g. `deny refund unless formerly verify`")
    if sum(1 for word in words(text) if word.type in ("LEFT", "NOT")) > DEPTH_MAX:
        raise SequenceError(f"more than {DEPTH_MAX} brackets and `not`")
    try:
        tree = _parser().parse(cast(Any, text))
    except UnexpectedInput as error:
        raise _unexpected(text, error) from None
    return _Reader(text).rule(tree)


def _unexpected(text: str, error: Any) -> SequenceError:
    """What stands there, what could, and the word that was probably meant."""
    every = list(words(text))
    at = getattr(error.token, "start_pos", None) if error.token.type != "$END" else None
    index = next((i for i, word in enumerate(every) if word.at == at), len(every))
    accepted = list(error.accepts or error.expected or ())
    if index and every[index - 1].type == "TOOLS":  # a misspelt keyword is read as a tool
        before = every[index - 1]
        if before.text not in KEYWORDS and nearest(before.text, KEYWORDS, 1):
            problem = f"`{before.text}` is not expected here{did_you_mean(before.text, KEYWORDS)}"
            return refuse(text, before.at, problem)
    may = sorted(_SHOWN.get(name, f"`{name.strip('_').lower()}`") for name in accepted)
    could = f"; here may stand {', '.join(may)}" if may else ""
    if index >= len(every):
        return refuse(text, len(text), f"the rule ends too early{could}")
    word = every[index]
    hint = did_you_mean(word.text, [n.strip("_").lower() for n in accepted if n not in _SHOWN])
    return refuse(text, word.at, f"`{word.text}` is not expected here{hint}{could}")


class _Reader:
    """From the parser's tree to ours."""

    def __init__(self, text: str) -> None:
        self.text = text

    def rule(self, tree: "Tree[Token]") -> Rule:
        children: list[Any] = list(tree.children)
        verb = _word(children[0]).text
        past = self.past(children[1])
        clause = _word(children[2])
        formula = self.formula(children[3])
        say = _word(children[5]).text if len(children) > 4 else ""
        if verb == "steer" and not say.strip():
            raise refuse(
                self.text, len(self.text), '`steer` needs a `say "…"`: what the agent is told'
            )
        return Rule(
            text=self.text,
            verb=cast(Verb, verb),
            tools=past.tools,
            condition=past.condition,
            applies=Not(formula) if clause.type == "UNLESS" else formula,
            say=say,
        )

    def formula(self, tree: "Tree[Token]") -> Formula:
        children: list[Any] = list(tree.children)
        match tree.data:
            case "either":
                return Either(tuple(self.formula(each) for each in children))
            case "both":
                return Both(tuple(self.formula(each) for each in children))
            case "negation":
                return Not(self.formula(children[0]))
            case "formerly":
                return Formerly(self.past(children[1]), **self.limits(children[2:]))
            case "never":
                return Not(Formerly(self.past(children[2]), **self.limits(children[3:])))
            case "once":
                return Once(self.past(children[1]), **self.limits(children[2:]))
            case "bare":
                return self.bare(children)
            case "count":
                return self.tally(None, children[1], children[2:])
            case _:
                return self.tally(self.passage(_word(children[1])), children[3], children[4:])

    def bare(self, children: list[Any]) -> Once:
        limits = self.limits(children[1:])
        if "since" not in limits:
            word = _word(children[0].children[0])
            raise refuse(
                self.text,
                word.at,
                f"what of `{word.text}`? write `formerly {word.text}`, `once {word.text}` or "
                f"`{word.text} since …`{did_you_mean(word.text, KEYWORDS)}",
            )
        return Once(self.past(children[0]), **limits)

    def tally(self, amount: Passage | None, calls: Any, rest: list[Any]) -> Tally:
        limits = self.limits(rest[:-2], since=False)
        number = _word(rest[-1])
        plain = number.text.replace("_", "")
        if len(plain) > 30:
            raise refuse(self.text, number.at, "a number may have 30 digits")
        return Tally(
            self.past(calls),
            amount,
            cast(Relation, _word(rest[-2]).text),
            Decimal(plain) if "." in plain else int(plain),
            **limits,
        )

    def limits(self, trees: list[Any], since: bool = True) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for tree in trees:
            first = tree.children[0]
            name = {"within": "within_ns"}.get(tree.data, tree.data)
            if name in found:
                raise refuse(self.text, _word(first).at, f"`{first.value.text}` is given twice")
            match tree.data:
                case "within":
                    found[name] = self.duration_ns(_word(tree.children[1]))
                case "since" if not since:
                    raise refuse(
                        self.text, _word(first).at, "`since` goes with `formerly`, `never before` "
                        "and `once`; a count or a sum takes `within`",
                    )  # fmt: skip
                case "since":
                    found[name] = self.past(tree.children[1])
                case _:
                    found[name] = True
        return found

    def duration_ns(self, word: Word) -> int:
        try:
            return round(duration_s(word.text) * 1e9)
        except UnitError as error:
            raise refuse(self.text, word.at, str(error)) from None

    def past(self, tree: "Tree[Token]") -> Past:
        children: list[Any] = list(tree.children)
        condition = self.passage(_word(children[1])) if len(children) > 1 else None
        return Past(self.tools(_word(children[0])), condition)

    def passage(self, word: Word) -> Passage:
        if not word.text.strip():
            raise refuse(self.text, word.at, "an empty expression")
        return Passage(word.text, *place(self.text, word.at))

    def tools(self, word: Word) -> Tools:
        names: list[str] = []
        kinds: list[ToolKind] = []
        exact = True
        for name, quoted in word.names:
            if not quoted and (name.startswith("kind:") or (kinds and name in _KINDS)):
                kinds.append(self.kind(name.removeprefix("kind:"), word))
                continue
            if _WILD & set(name):
                exact = False
            names.append(_literal(name) if quoted else name)
        return Tools(word.text, tuple(names), tuple(kinds), exact and not kinds)

    def kind(self, name: str, word: Word) -> ToolKind:
        if name not in _KINDS:
            raise refuse(
                self.text, word.at, f"`kind:{name}`{did_you_mean(name, _KINDS)}: a kind is "
                f"{', '.join(_KINDS)}",
            )  # fmt: skip
        return cast(ToolKind, name)


def _literal(name: str) -> str:
    """A name in quotes means itself, whatever glob it looks like."""
    return "".join(f"[{char}]" if char in _WILD else char for char in name)


def _word(token: "Token") -> Word:
    return cast(Word, token.value)
