"""A sequence rule as a tree, and what is wrong with one that cannot be read."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from checkrein.policy.types import ToolKind

Verb = Literal["deny", "ask", "steer"]
Relation = Literal[">=", ">", "<=", "<", "==", "!="]


class SequenceError(ValueError):
    """A rule that is refused. `index` is its place in the list, from 0; `line` and `column` count
    from 1 within its text."""

    def __init__(self, problem: str, index: int = 0, line: int = 1, column: int = 1) -> None:
        self.problem = problem
        self.index = index
        self.line = line
        self.column = column
        super().__init__(f"sequence[{index}]:{line}:{column}: {problem}")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a rule that is an expression, and where it begins."""

    text: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Tools:
    """Which tools are meant. `names` are exact names or globs, `exact` says that none is a glob."""

    text: str
    names: tuple[str, ...]
    kinds: tuple[ToolKind, ...]
    exact: bool


@dataclass(frozen=True, slots=True)
class Past:
    """Calls before the one judged."""

    tools: Tools
    condition: Passage | None = None


@dataclass(frozen=True, slots=True)
class Formerly:
    past: Past
    within_ns: int | None = None
    since: Past | None = None
    in_task: bool = False


@dataclass(frozen=True, slots=True)
class Once:
    past: Past
    within_ns: int | None = None
    since: Past | None = None
    in_task: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """`amount` None: a count, else the sum of that expression."""

    past: Past
    amount: Passage | None
    relation: Relation
    limit: int | Decimal
    within_ns: int | None = None
    in_task: bool = False


@dataclass(frozen=True, slots=True)
class Not:
    part: "Formula"


@dataclass(frozen=True, slots=True)
class Both:
    parts: tuple["Formula", ...]


@dataclass(frozen=True, slots=True)
class Either:
    parts: tuple["Formula", ...]


Formula = Formerly | Once | Tally | Not | Both | Either


@dataclass(frozen=True, slots=True)
class Rule:
    """`applies` is what makes it speak: an `unless` stands there negated."""

    text: str
    verb: Verb
    tools: Tools
    condition: Passage | None
    applies: Formula
    say: str
