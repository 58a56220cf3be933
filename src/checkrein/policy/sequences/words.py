"""The text of a rule as words: what the grammar is written over."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from checkrein.policy.sequences.passages import Unclosed, bracket_end, outside, string_end
from checkrein.policy.sequences.types import SequenceError

KEYWORDS = (
    "deny", "ask", "steer", "if", "unless", "and", "or", "not", "formerly", "never", "before",
    "once", "count", "sum", "of", "since", "within", "in", "task", "say",
)  # fmt: skip
RULE_CHARS_MAX = 4096

_SPACE = re.compile(r"\s+")
_NAME = re.compile(r"(?:[^\W\d]|[*?\[])(?:[\w.\-*?/:]|\[[^\]\s]*\]|\[|\])*")
_BAR = re.compile(r"\s*\|\s*")
_UNITS = r"\d+(?:\.\d+)?(?:ms|s|m|h|d)"
_DURATION = re.compile(rf"{_UNITS}(?:\s*{_UNITS})*(?!\w)")
_NUMBER = re.compile(r"-?\d[\d_]*(?:\.\d+)?(?![\w.])")
_RELATION = re.compile(r">=|<=|==|!=|>|<")
_OF = re.compile(r"\sof\s")


@dataclass(frozen=True, slots=True)
class Word:
    """`type` is a keyword in capitals, or TOOLS, CONDITION, EXPRESSION, DURATION, NUMBER, RELATION,
    TEXT, LEFT or RIGHT. `names` are the alternatives of TOOLS, with whether each stood in quotes.
    """

    type: str
    text: str
    at: int
    names: tuple[tuple[str, bool], ...] = ()


def place(text: str, at: int) -> tuple[int, int]:
    """Line and column, from 1."""
    before = text[:at]
    return before.count("\n") + 1, at - before.rfind("\n")


def refuse(text: str, at: int, problem: str) -> SequenceError:
    line, column = place(text, at)
    return SequenceError(problem, line=line, column=column)


def words(text: str) -> Iterator[Word]:
    """Raises SequenceError at the first character that begins no word."""
    if len(text) > RULE_CHARS_MAX:
        raise SequenceError(f"{len(text)} characters; a rule may have {RULE_CHARS_MAX}")
    at, before = 0, ""
    while True:
        space = _SPACE.match(text, at)
        at = space.end() if space else at
        if at >= len(text):
            return
        try:
            word, at = _word(text, at, before)
        except Unclosed as error:
            raise refuse(text, error.at, str(error)) from None
        yield word
        before = word.type


def _word(text: str, at: int, before: str) -> tuple[Word, int]:
    if before == "SUM":
        return _expression(text, at)
    char = text[at]
    if char == "(" and before == "TOOLS":
        end = bracket_end(text, at)
        return Word("CONDITION", text[at + 1 : end], at + 1), end + 1
    if char in "()":
        return Word("LEFT" if char == "(" else "RIGHT", char, at), at + 1
    if before == "SAY" and char in "\"'":
        end = string_end(text, at)
        return Word("TEXT", _unquoted(text[at:end]), at), end
    for type, pattern in (("DURATION", _DURATION), ("NUMBER", _NUMBER), ("RELATION", _RELATION)):
        match = pattern.match(text, at)
        if match:
            return Word(type, match[0], at), match.end()
    return _tools(text, at)


def _expression(text: str, at: int) -> tuple[Word, int]:
    """What `sum` adds up: everything up to the ` of ` outside of all brackets."""
    for index, depth in outside(text, at):
        if depth == 0 and _OF.match(text, index):
            return Word("EXPRESSION", text[at:index], at), index + 1
    raise refuse(text, at, "`sum` needs an `of`: write `sum args.cents of transfer > 50000`")


def _tools(text: str, at: int) -> tuple[Word, int]:
    names: list[tuple[str, bool]] = []
    end = at
    while True:
        name, quoted, end = _name(text, end)
        names.append((name, quoted))
        bar = _BAR.match(text, end)
        if not bar:
            break
        end = bar.end()
    if len(names) == 1 and not names[0][1] and names[0][0] in KEYWORDS:
        return Word(names[0][0].upper(), names[0][0], at), end
    for name, quoted in names:
        if not quoted and name in KEYWORDS:
            raise refuse(text, at, f'`{name}` is a word of the language; a tool: "{name}"')
    return Word("TOOLS", text[at:end], at, tuple(names)), end


def _name(text: str, at: int) -> tuple[str, bool, int]:
    if at < len(text) and text[at] in "\"'":
        end = string_end(text, at)
        return _unquoted(text[at:end]), True, end
    match = _NAME.match(text, at)
    if not match:
        what = f"{text[at]!r}" if at < len(text) else "the end of the rule"
        raise refuse(text, at, f"{what} begins nothing that can stand here")
    return match[0], False, match.end()


def _unquoted(text: str) -> str:
    """The text between quote marks; a backslash takes the character behind it as it is, but for
    `\\n`, a new line."""
    mark = 3 if text.startswith(text[0] * 3) and len(text) >= 6 else 1
    return re.sub(
        r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text[mark:-mark], flags=re.S
    )
