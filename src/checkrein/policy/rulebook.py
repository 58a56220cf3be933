"""A pact made ready to judge by: every condition, scope and rule compiled, once for all runs.

A `Book` is immutable and shared between runs and threads; what a run has done so far is in its
`RunGuard`. Compiling a pact that was read by `pact.load` cannot fail; one made otherwise raises
what its part raises.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from threading import Lock
from typing import Any

import msgspec

from checkrein.policy.arguments import Check, compile_arguments
from checkrein.policy.compiling import names_for
from checkrein.policy.conditions.types import Condition
from checkrein.policy.types import Duty, Pact, ToolKind, ToolRule

BOOKS_MAX = 256
TOOLS_MAX = 4096
TASKS_MAX = 1000
Resolve = Callable[[str], str]
"""What a path really is (`os.path.realpath`); without one, paths are judged as they are written."""


class ToolBook(msgspec.Struct, frozen=True):
    """One tool's rules, compiled. `name` is as the pact has it (`tools.<name>` in reasons)."""

    name: str
    rule: ToolRule
    check: Check | None = None
    scopes: tuple[Any, ...] = ()
    allow: Condition | None = None
    ask: Condition | None = None
    once_per: Condition | None = None
    set: tuple[tuple[str, Condition], ...] = ()
    steer: tuple[tuple[Condition, str], ...] = ()
    reads: frozenset[str] = frozenset()
    """Which of the standard names its conditions read."""


class Listed(msgspec.Struct, frozen=True):
    """What the pact and those it is within say of one tool. `missing`: the first of them that says
    which tools there are and does not name this one. `kind`: the first that is said."""

    books: tuple[ToolBook, ...] = ()
    missing: Pact | None = None
    reads: frozenset[str] = frozenset()
    kind: ToolKind | None = None


class Book:
    """A pact, compiled. Safe from any thread."""

    def __init__(self, pact: Pact, resolve: Resolve | None = None) -> None:
        self.pact = pact
        self.pacts = _chain(pact)
        self.sequences = _sequences(pact)
        self.flow = _flow(pact)
        self.duties = _duties(pact)
        self.routes = tuple((_condition(route.when, ""), route) for route in pact.route)
        self.output = _output(pact)
        self._tables = [
            (one, _compiled(one.tools, resolve) if one.tools is not None else None)
            for one in self.pacts
        ]
        self._tasks: OrderedDict[str, Any] = OrderedDict()
        self._lock = Lock()
        self._listed: dict[str, Listed] = {}
        self._models: dict[str, Pact | None] = {}

    def tool(self, name: str) -> Listed:
        """What is said of a tool. The first answer for a name is kept; names come from models, so
        no more than 4,096 are."""
        listed = self._listed.get(name)
        if listed is None:
            listed = self._look_up(name)
            if len(self._listed) < TOOLS_MAX:
                self._listed[name] = listed
        return listed

    def task_past(self, task_id: str) -> Any:
        """What the runs of one task in this process did, for rules that say `in task`; None when no
        rule does. The latest 1,000 tasks are kept."""
        if self.sequences is None or not task_id or not self.sequences.looks_at_tasks:
            return None
        with self._lock:
            past = self._tasks.get(task_id)
            if past is None:
                past = self._tasks[task_id] = self.sequences.new_state()
                if len(self._tasks) > TASKS_MAX:
                    self._tasks.popitem(last=False)
            self._tasks.move_to_end(task_id)
            return past

    def forbids_model(self, name: str) -> Pact | None:
        """The pact that does not let this model be called. A pattern matches the whole name, or
        the part of it behind the provider's (`openai/gpt-5-mini`)."""
        if name in self._models:
            return self._models[name]
        names = (name, name.rpartition("/")[2])
        found = None
        for pact in self.pacts:
            if pact.models is not None and not any(
                fnmatchcase(one, rule) for rule in pact.models for one in names
            ):
                found = pact
                break
        if len(self._models) < 64:
            self._models[name] = found
        return found

    def _look_up(self, name: str) -> Listed:
        found = []
        missing = None
        for pact, table in self._tables:
            if table is None:
                continue
            exact, patterns = table
            book = exact.get(name)
            if book is None:
                book = next((one for one in patterns if fnmatchcase(name, one.name)), None)
            if book is not None:
                found.append(book)
            elif missing is None:
                missing = pact
        reads = frozenset().union(*(one.reads for one in found), *(
            condition.names for condition, _ in self.duties
        ))  # fmt: skip
        kinds = (one.rule.kind for one in found if one.rule.kind is not None)
        return Listed(tuple(found), missing, reads, next(kinds, None))


def book_of(pact: Pact, resolve: Resolve | None = None) -> Book:
    """The book of a pact, compiled once for each version: the latest 256 are kept."""
    key = (pact.pact, pact.version, resolve)
    with _LOCK:
        book = _BOOKS.get(key) if pact.version else None
        if book is not None:
            _BOOKS.move_to_end(key)
            return book
    book = Book(pact, resolve)
    if pact.version:
        with _LOCK:
            _BOOKS[key] = book
            while len(_BOOKS) > BOOKS_MAX:
                _BOOKS.popitem(last=False)
    return book


_BOOKS: OrderedDict[Any, Book] = OrderedDict()
_LOCK = Lock()


def is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _chain(pact: Pact) -> tuple[Pact, ...]:
    found = [pact]
    while found[-1].within is not None:
        found.append(found[-1].within)
    return tuple(found)


def _compiled(
    tools: Mapping[str, ToolRule], resolve: Resolve | None
) -> tuple[dict[str, ToolBook], list[ToolBook]]:
    books = [_tool(name, rule, resolve) for name, rule in tools.items()]
    return (
        {book.name: book for book in books if not is_pattern(book.name)},
        [book for book in books if is_pattern(book.name)],
    )


def _tool(name: str, rule: ToolRule, resolve: Resolve | None) -> ToolBook:
    if rule == ToolRule():
        return ToolBook(name, rule)
    schema = rule.arguments
    allow = _condition(rule.allow, schema) if rule.allow else None
    ask = _condition(rule.ask, schema) if rule.ask else None
    once = _condition(rule.once_per, schema, "any") if rule.once_per else None
    changes = tuple((one, _condition(text, schema, "any")) for one, text in rule.set.items())
    steer = tuple((_condition(one.when, schema), one.say) for one in rule.steer)
    conditions = [one for one in (allow, ask, once) if one is not None]
    conditions += [one for _, one in changes] + [one for one, _ in steer]
    return ToolBook(
        name, rule,
        check=compile_arguments(msgspec.json.decode(rule.arguments)) if rule.arguments else None,
        scopes=_scopes_of(rule, resolve),
        allow=allow, ask=ask, once_per=once, set=changes, steer=steer,
        reads=frozenset().union(*(one.names for one in conditions)),
    )  # fmt: skip


def _scopes_of(rule: ToolRule, resolve: Resolve | None) -> tuple[Any, ...]:
    if not rule.scopes:
        return ()
    from checkrein.policy.scopes.compiling import compile_scope

    return tuple(compile_scope(one, resolve) for one in rule.scopes)


def _condition(text: str, schema: str, result: Any = "bool") -> Condition:
    from checkrein.policy.conditions.compiling import compile_condition

    return compile_condition(text, names_for(schema), result)


def _names_of(pact: Pact) -> Callable[[str], Any]:
    def names_of(tool: str) -> Any:
        rule = pact.tools.get(tool) if pact.tools else None
        return names_for(rule.arguments if rule is not None else "")

    return names_of


def _sequences(pact: Pact) -> Any:
    if not pact.sequence:
        return None
    from checkrein.policy.sequences.compiling import compile_sequences

    return compile_sequences(pact.sequence, _names_of(pact))


def _flow(pact: Pact) -> Any:
    if not pact.flow:
        return None
    from checkrein.policy.flow.compiling import compile_flow

    return compile_flow(pact.flow, pact.tools or {}, pact.internal, _names_of(pact))


def _duties(pact: Pact) -> tuple[tuple[Condition, Duty], ...]:
    return tuple((_condition(duty.when, ""), duty) for duty in pact.escalate)


def _output(pact: Pact) -> Any:
    if not pact.output:
        return None
    from checkrein.policy.output import compile_output

    return compile_output(pact.output)
