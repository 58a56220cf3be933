"""Which calls a rule means, compiled: the tools, the condition on each call, and what it compares
with the judged call.

A past call is looked at once, when it begins. That the judged call is not known then is why its
values may stand in equalities only: `args.x == call.args.y` becomes a key under which the past call
is filed, and the judged call looks up its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Any, Protocol

from checkrein.policy.conditions.types import Condition, ConditionError, Kind
from checkrein.policy.sequences.passages import conjuncts, operators
from checkrein.policy.sequences.types import Passage, Past, SequenceError, Tools
from checkrein.policy.types import Deed

KEY_CHARS_MAX = 64
AMOUNT_MAX = 10**30
_RELATIONS = ("==", "!=", "<", ">", "<=", ">=", "?", "||", "&&")

Key = Any
"""Hashable: equal for values that CEL takes for equal."""

NamesOf = Callable[[str], Mapping[str, Kind]]


class Compile(Protocol):
    """`conditions.compiling.compile_condition`."""

    def __call__(self, text: str, names: Mapping[str, Kind], result: Any = "bool") -> Condition: ...


class NoKey(ValueError):
    """A value that equals nothing (not a number), or is nested too deeply."""


class _Any:
    """The key of a past call whose values are not known: it may equal any."""


ANY = _Any()


@dataclass(frozen=True, slots=True)
class Compared:
    """One equality: what is read of the past call, and what of the judged one."""

    past: Condition
    judged: Condition


@dataclass(frozen=True, slots=True)
class Operand:
    """`matches` says whether a call that has begun is meant; `sought` what the judged call seeks
    under `keyed` ones."""

    tools: Tools
    tests: tuple[Condition, ...] = ()
    compared: tuple[Compared, ...] = ()

    @property
    def keyed(self) -> bool:
        return bool(self.compared)

    def key(self, facts: Mapping[str, Any], uncertain: bool) -> Key:
        """The key to file a call under; None when it is not meant. Where a condition has no value
        the call is meant if `uncertain`, under any key if that is what is not known."""
        if self.tests:
            try:
                for test in self.tests:
                    if test(facts) is not True:
                        return None
            except Exception:  # whatever a condition raises, it has no value
                if not uncertain:
                    return None
        if not self.compared:
            return ()
        try:
            return tuple(hashed(each.past(facts)) for each in self.compared)
        except NoKey:
            return None
        except Exception:  # as above
            return ANY if uncertain else None

    def sought(self, facts: Mapping[str, Any]) -> Key:
        """The key of the judged call. Raises what its expressions raise."""
        if not self.compared:
            return ()
        judged = {"call": facts}
        return tuple(hashed(each.judged(judged)) for each in self.compared)


def facts_of(deed: Deed) -> dict[str, Any]:
    """What conditions read of a call."""
    return deed.facts or {"args": deed.args, "tool": deed.tool, "kind": deed.kind or ""}


def matches(tools: Tools, tool: str, kind: str | None, uncertain: bool) -> bool:
    """Whether a tool is meant. A tool whose kind nobody knows is of every kind if `uncertain`, else
    of none."""
    if any(name == tool or fnmatchcase(tool, name) for name in tools.names):
        return True
    return bool(tools.kinds) and (uncertain if not kind else kind in tools.kinds)


def hashed(value: Any, depth: int = 0) -> Key:
    """A small hashable stand-in, equal for values that are equal: 1 and 1.0 are, 1 and true or "1"
    are not. Raises NoKey."""
    if isinstance(value, str):
        return value if len(value) <= KEY_CHARS_MAX else _digest("s", value)
    if value is None or isinstance(value, bool):
        return ("is", value)
    if isinstance(value, int):
        return value if abs(value) < AMOUNT_MAX else _digest("i", hex(value))
    if isinstance(value, float):
        if value != value:
            raise NoKey("not a number")
        if value.is_integer():
            return hashed(int(value))
        return value
    if depth > 32:
        raise NoKey("nested too deeply")
    if isinstance(value, Mapping):
        parts = sorted((repr(hashed(k)), repr(hashed(v, depth + 1))) for k, v in value.items())
        return _digest("m", repr(parts))
    if isinstance(value, list | tuple):
        return _digest("l", repr([hashed(each, depth + 1) for each in value]))
    return _digest(type(value).__name__, repr(value))


def amount(value: Any) -> int | Decimal:
    """A number to add up; a float as the decimal number it is written as, so that cents add up.
    Raises ValueError for what is none, or beyond 10^30."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= AMOUNT_MAX:
        return value
    if isinstance(value, float) and abs(value) <= AMOUNT_MAX:
        return Decimal(repr(value))
    shown = repr(value) if isinstance(value, bool | float) else f"a {type(value).__name__}"
    raise ValueError(f"{shown} is no amount to add up")


def _digest(sort: str, text: str) -> tuple[str, bytes]:
    return sort, blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Operands:
    """Compiles the expressions of one rule. `judged` are the tools whose call it judges."""

    def __init__(self, compile_condition: Compile, names_of: NamesOf, judged: Tools) -> None:
        self.compile_condition = compile_condition
        self.names_of = names_of
        self.judged = judged

    def expression(self, passage: Passage, tools: Tools, result: str = "bool") -> Condition:
        """Raises SequenceError at its place in the rule's text."""
        condition, *_ = [
            self._compiled(passage, passage.text, 0, names, result) for names in self._names(tools)
        ]
        return condition

    def operand(self, past: Past) -> Operand:
        """Raises SequenceError."""
        passage = past.condition
        if passage is None:
            return Operand(past.tools)
        tests: list[Condition] = []
        compared: list[Compared] = []
        call = {"call": Kind("map", fields=dict(self._names(self.judged)[0]))}
        for at, text in conjuncts(passage.text):
            last: Condition | Compared
            for names in reversed(self._names(past.tools)):  # the widest names last
                whole = self._compiled(passage, text, at, {**names, **call}, "bool")
                if "call" in whole.names:
                    last = self._compared(passage, text, at, names, call)
                else:
                    last = self._compiled(passage, text, at, names, "bool")
            if isinstance(last, Compared):
                compared.append(last)
            else:
                tests.append(last)
        return Operand(past.tools, tuple(tests), tuple(compared))

    def _names(self, tools: Tools) -> list[Mapping[str, Kind]]:
        """What can be read of a call of these: first the names that hold for any of them, then each
        tool's own, by which the text is checked too."""
        if tools.exact and len(tools.names) == 1:
            return [self.names_of(tools.names[0])]
        every = [self.names_of(name) for name in tools.names] if tools.exact else []
        return [self.names_of(""), *every]

    def _compared(
        self, passage: Passage, text: str, at: int, names: Mapping[str, Kind], call: dict[str, Kind]
    ) -> Compared:
        found = [(place, sign) for place, sign in operators(text) if sign in _RELATIONS]
        if [sign for _, sign in found] != ["=="]:
            raise self._refuse(
                passage, at, "what is compared with `call` must be an equality by itself, as in "
                "`args.order == call.args.order`, or several joined by `&&`",
            )  # fmt: skip
        middle = found[0][0]
        sides = [(text[:middle], at), (text[middle + 2 :], at + middle + 2)]
        both = {**names, **call}
        reads = [
            "call" in self._compiled(passage, side, place, both, "any").names
            for side, place in sides
        ]
        if reads == [True, True]:
            raise self._refuse(passage, at, "only one side of the equality may read `call`")
        past, judged = sides if reads == [False, True] else reversed(sides)
        return Compared(
            self._compiled(passage, *past, names, "any"),
            self._compiled(passage, *judged, call, "any"),
        )

    def _compiled(
        self, passage: Passage, text: str, at: int, names: Mapping[str, Kind], result: str
    ) -> Condition:
        try:
            return self.compile_condition(text, names=names, result=result)
        except ConditionError as error:
            lines = text.split("\n")[: error.line - 1]
            within = sum(len(line) + 1 for line in lines) + error.column - 1
            raise self._refuse(passage, at + within, error.problem) from None

    @staticmethod
    def _refuse(passage: Passage, at: int, problem: str) -> SequenceError:
        before = passage.text[:at]
        line = passage.line + before.count("\n")
        column = (
            len(before) - before.rfind("\n") + (passage.column - 1 if line == passage.line else 0)
        )
        return SequenceError(problem, line=line, column=column)
