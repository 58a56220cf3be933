"""What an SQL text reads and writes, as `sqlglot` parses it.

Closed: a statement, a part of one or a function that is not known to be harmless is a problem, and
so is a text in which dialects disagree on where a quoted text or a comment ends (`sql_text`).
Without a dialect, a text is read in the general one; when it contains anything that dialects write
differently (backslashes, backticks, brackets, `$`, comments, double quotes), or cannot be read so,
in all of `DIALECTS`, and everything that any of them finds counts.
"""

import logging
import re
import threading
from functools import lru_cache
from typing import Any, NamedTuple

from sqlglot import exp, parse

from checkrein.policy.scopes import sql_parts
from checkrein.policy.scopes.globs import strange_letter
from checkrein.policy.scopes.sql_text import strange_text

SQL_CHARS_MAX = 64 * 1024
_STATEMENTS_MAX = 50
DIALECTS = ("", "postgres", "mysql", "sqlite", "tsql")
_DIFFERS = re.compile(r"[\\#`\[$\"]|--|/\*|(?i:\b[eunbxrq]')")
_NAME = re.compile(r"[^\W\d][\w$# -]*")


class Part(NamedTuple):
    """One part of a table's name: `quoted` keeps its case in some dialects."""

    text: str
    quoted: bool


Name = tuple[Part, ...]
Node = Any
"""A node of the parser's tree: its base class has another name in each of its versions."""


class Access(NamedTuple):
    """Which tables a text reads and writes, and which functions it calls besides those known to be
    harmless. `problem`: why nobody can tell (then the rest does not count)."""

    reads: frozenset[Name] = frozenset()
    writes: frozenset[Name] = frozenset()
    functions: frozenset[str] = frozenset()
    problem: str = ""


class _Unjudged(ValueError):
    pass


def read_sql(text: str, dialect: str = "") -> Access:
    """What a text of one or more statements does. Never raises."""
    if len(text) > SQL_CHARS_MAX:
        return Access(problem=f"is longer than {SQL_CHARS_MAX} characters")
    return _cached(text, dialect) if len(text) <= 4096 else _read(text, dialect)


@lru_cache(maxsize=256)
def _cached(text: str, dialect: str) -> Access:
    return _read(text, dialect)


def _read(text: str, dialect: str) -> Access:
    problem = strange_text(text, is_any_dialect=not dialect)
    if problem:
        return Access(problem=problem)
    if dialect:
        return _read_in(text, dialect) or Access(problem=f"is no {dialect} that can be parsed")
    plain = None if _DIFFERS.search(text) else _read_in(text, "")
    if plain is not None:
        return plain
    found = [access for each in DIALECTS if (access := _read_in(text, each)) is not None]
    if not found:
        return Access(problem="cannot be parsed")
    for access in found:
        if access.problem:
            return access
    return Access(
        frozenset().union(*(access.reads for access in found)),
        frozenset().union(*(access.writes for access in found)),
        frozenset().union(*(access.functions for access in found)),
    )


def _read_in(text: str, dialect: str) -> Access | None:
    """None: it cannot be parsed so."""
    _OURS.on = True
    try:
        statements = parse(text, read=dialect or None)
    except Exception:  # besides its own errors the parser raises whatever its code runs into
        return None
    finally:
        _OURS.on = False
    statements = [each for each in statements if not isinstance(each, exp.Semicolon | None)]
    if not statements:
        return Access(problem="contains no statement")
    if len(statements) > _STATEMENTS_MAX:
        return Access(problem=f"has more than {_STATEMENTS_MAX} statements")
    reads: set[Name] = set()
    writes: set[Name] = set()
    functions: set[str] = set()
    try:
        for statement in statements:
            _judge_statement(statement, reads, writes, functions)
    except _Unjudged as error:
        return Access(problem=str(error))
    except RecursionError:
        return Access(problem="is nested too deep")
    return Access(frozenset(reads), frozenset(writes), frozenset(functions))


def _judge_statement(root: Node, reads: set[Name], writes: set[Name], functions: set[str]) -> None:
    if type(root).__name__ not in sql_parts.ROOTS:
        raise _Unjudged(f"is a statement of a kind that is never inside ({_kind(root)})")
    nodes = list(root.walk())
    named = _names_given(nodes)
    written: set[int] = set()
    for node in nodes:
        _judge_node(node, functions)
        written.update(id(table) for table in _targets(node, named))
    for node in nodes:
        if not isinstance(node, exp.Table) or isinstance(node.parent, exp.Lock):
            continue
        if not isinstance(node.this, exp.Identifier | exp.Dot):
            continue  # a function in a table's place, judged as a function
        name = _name(node)
        if id(node) in written:
            writes.add(name)
        elif len(name) > 1 or not _is_of_with(node, name[0]):
            reads.add(name)


def _judge_node(node: Node, functions: set[str]) -> None:
    kind = type(node).__name__
    if isinstance(node, exp.Anonymous):
        functions.add(_function_name(node))
    elif isinstance(node, exp.Func):
        if kind in sql_parts.FUNCTIONS_REFUSED or kind.startswith(sql_parts.REFUSED_PREFIXES):
            raise _Unjudged(f"calls {node.sql_name()}, which is never inside")
        if isinstance(node.parent, exp.Dot):
            functions.add(_function_name(node))
    elif kind not in sql_parts.PARTS:
        raise _Unjudged(f"contains a part that is never inside ({_kind(node)})")
    elif kind in sql_parts.KINDS and _what(node) not in sql_parts.KINDS[kind]:
        raise _Unjudged(f"is a statement of a kind that is never inside ({_kind(node)})")
    elif isinstance(node, exp.In) and node.args.get("field") is not None:
        raise _Unjudged("asks whether something is `in` a table by its bare name")
    elif isinstance(node, exp.Identifier):
        _judge_identifier(node.name)
    elif kind in sql_parts.SOURCES and not isinstance(node.this, sql_parts.SOURCES[kind]):
        raise _Unjudged("reads from what is no table")


def _judge_identifier(text: str) -> None:
    if not text.isascii() and strange_letter(text):
        raise _Unjudged("contains a name with look-alike letters")


def _targets(node: Node, named: frozenset[str]) -> list[exp.Table]:
    """The tables that a statement writes."""
    if isinstance(node.parent, exp.When):
        return []  # what a MERGE does to its own target
    match node:
        case exp.Insert() | exp.Merge() | exp.Into():
            return [_target(node.this, named)]
        case exp.Update() | exp.Delete():
            others = node.args.get("tables") or []
            joined = isinstance(node.this, exp.Table) and node.this.args.get("joins")
            whole = list(node.this.find_all(exp.Table)) if joined else [_target(node.this, named)]
            _refuse_namesakes(node, [*others, *whole])
            return [*(_target(table, named) for table in others), *whole]
        case exp.Create() | exp.Drop() | exp.Alter() | exp.TruncateTable():
            if isinstance(node, exp.TruncateTable) and node.args.get("is_database"):
                raise _Unjudged("empties a whole database")
            return _changed(node)
        case _:
            return []


def _target(node: Any, named: frozenset[str]) -> exp.Table:
    table = node.this if isinstance(node, exp.Schema) else node
    if not isinstance(table, exp.Table) or not isinstance(table.this, exp.Identifier):
        raise _Unjudged("writes to what is no table")
    if not table.db and table.name.casefold() in named:
        raise _Unjudged(f"writes to `{table.name}`, a name that the statement gives itself")
    return table


def _refuse_namesakes(node: Node, targets: list[exp.Table]) -> None:
    """`UPDATE orders … FROM other.orders` changes the one or the other, by who reads it."""
    own = {id(table) for table in targets}
    names = {table.name.casefold() for table in targets}
    for table in node.find_all(exp.Table):
        if id(table) not in own and table.db and table.name.casefold() in names:
            raise _Unjudged(f"changes `{table.name}`, and reads another of that name")


def _changed(node: Node) -> list[exp.Table]:
    """All tables of a CREATE, DROP, ALTER or TRUNCATE but those it selects from or refers to."""
    only_read = [node.args.get("expression"), *node.find_all(exp.Reference)]
    read = {id(table) for part in only_read if part for table in part.find_all(exp.Table)}
    tables = [table for table in node.find_all(exp.Table) if id(table) not in read]
    if not tables:
        raise _Unjudged("changes what is no table")
    return tables


def _names_given(nodes: list[Node]) -> frozenset[str]:
    """The names of `WITH` queries, and the aliases of tables that have another name."""
    names = set()
    for node in nodes:
        is_alias = isinstance(node, exp.Table | exp.Subquery) and node.alias and not _is_own(node)
        if is_alias or isinstance(node, exp.CTE):
            names.add(node.alias.casefold())
    return frozenset(names)


def _is_own(node: Node) -> bool:
    """Whether an alias is the target's own, or says the table's name again."""
    if isinstance(node, exp.Table) and node.name.casefold() == node.alias.casefold():
        return True
    writes = isinstance(node.parent, exp.Update | exp.Delete | exp.Merge | exp.Insert)
    return writes and node.arg_key == "this"


def _is_of_with(table: exp.Table, part: Part) -> bool:
    """Whether a table's name is a `WITH` query's that it sees. When in doubt it is a table."""
    child: Node = table
    node = table.parent
    while node is not None:
        clause: Node = node.args.get("with_") or node.args.get("with")
        sees = isinstance(clause, exp.With) and clause is not child
        if sees and any(_same(part, query) for query in clause.expressions):
            return True
        if isinstance(node, exp.With):
            for query in node.expressions:
                if query is child:
                    break
                if _same(part, query):
                    return True
        elif isinstance(node, exp.CTE) and _same(part, node) and _recurs(node, table):
            return True
        child, node = node, node.parent
    return False


def _same(part: Part, query: Node) -> bool:
    alias = query.args.get("alias")
    name = alias.this if alias is not None else None
    if not isinstance(name, exp.Identifier) or bool(name.args.get("quoted")) != part.quoted:
        return False
    if part.quoted:
        return bool(name.this == part.text)
    return bool(name.this.lower() == part.text.lower())


def _recurs(query: exp.CTE, table: exp.Table) -> bool:
    """A `WITH` query's own name means itself only in the second half of a recursive union."""
    clause, union = query.parent, query.this
    if not (isinstance(clause, exp.With) and clause.args.get("recursive")):
        return False
    if not isinstance(union, exp.Union):
        return False
    second = union.expression
    return any(found is table for found in second.find_all(exp.Table))


def _name(table: exp.Table) -> Name:
    parts = table.parts
    if len(parts) > 3:
        raise _Unjudged("names a table on another server")
    name = []
    for part in parts:
        if not isinstance(part, exp.Identifier) or not _NAME.fullmatch(part.name):
            raise _Unjudged("reads from what is no plain table name")
        name.append(Part(part.name, bool(part.args.get("quoted"))))
    return tuple(name)


def _function_name(node: exp.Func) -> str:
    name = node.name if isinstance(node, exp.Anonymous) else node.sql_name()
    parts = [name]
    parent = node.parent
    while isinstance(parent, exp.Dot):
        if parent.expression is node or node in parent.expression.walk():
            parts = [parent.this.sql(), *parts]
        parent = parent.parent
    return ".".join(parts).casefold()


def _what(node: Node) -> str:
    """The TABLE of a CREATE TABLE."""
    return str(node.args.get("kind") or "").upper()


def _kind(node: Node) -> str:
    if isinstance(node, exp.Command):
        return str(node.this).upper()
    return f"{type(node).__name__.upper()} {_what(node)}".strip()


class _Quiet(logging.Filter):
    """The parser writes a warning for what it does not know. Here that is an answer, not news."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_OURS, "on", False)


_OURS = threading.local()
logging.getLogger("sqlglot").addFilter(_Quiet())
