"""Conditions: expressions in a subset of CEL over one call and what is known of its run.

What an expression can read, by name:

    args          the call's arguments (a map; typed by the tool's JSON schema where one is known)
    tool, kind    the tool's name; `read`, `compensable`, `irreversible` or "" when not known
    agent, room, environment, run_id, task_id, task_type, goal        texts
    step          the number of the step, int
    spent         {steps, tool_calls, tokens (int), usd, wall_s (double)} of the run so far
    confidence    what the agent last said of its own confidence (double; -1.0 when it has not)
    model         the model last called, text

`ConditionError` is what is wrong with a text; `EvaluationError` what went wrong with one call: the
guard then denies.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec

KindName = Literal[
    "bool",
    "int",
    "double",
    "string",
    "bytes",
    "null",
    "list",
    "map",
    "timestamp",
    "duration",
    "type",
    "dyn",
]


class Kind(msgspec.Struct, frozen=True):
    """The type of a value. `items` of a list or of a map's values; `fields` of a map whose keys are
    known (then any other key is an error, unless the map is `open`); `optional` are those that may
    be missing. `values` are all that a text, a number or a bool may be, `least` and `most` the
    bounds of a number, where a schema says so: only `constancy` reads these three."""

    name: KindName
    items: "Kind | None" = None
    fields: dict[str, "Kind"] | None = None
    optional: frozenset[str] = frozenset()
    open: bool = False
    values: tuple[str | int | float | bool, ...] | None = None
    least: float | None = None
    most: float | None = None


DYN = Kind("dyn")


class ConditionError(ValueError):
    """A text that is no condition. `line` and `column` count from 1 within the text."""

    def __init__(self, problem: str, line: int = 1, column: int = 1) -> None:
        self.problem = problem
        self.line = line
        self.column = column
        super().__init__(f"{line}:{column}: {problem}")


class EvaluationError(ValueError):
    """An expression that has no value for this call: a missing field, a division by zero."""


class Condition(Protocol):
    """A compiled expression. Pure, safe from any thread, bounded in time by its text."""

    text: str
    kind: Kind
    names: frozenset[str]
    """Which variables it reads."""

    def __call__(self, facts: Mapping[str, Any]) -> Any:
        """Its value for these facts. Raises EvaluationError and nothing else."""
