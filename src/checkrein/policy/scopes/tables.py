"""Which tables an SQL text reads and writes, and whether all of them are inside.

Patterns: `orders` is the table of that name when no schema stands before it, `sales.orders` and
`sales.*` need one, as `*.*` does. `allow` is what may be read, `write` what may be inserted into,
changed, created and dropped; a table that is read and written needs both. `my_func()` in `allow`
lets a function be called that is not known to be harmless. Names match in any case of letters; a
name in quotes with capital letters must stand so in the pattern. A deny pattern denies reading and
writing, with or without schemas before the name. Only deny patterns: any table may be read.

System tables (`pg_*`, `sqlite_*`, `information_schema.*`, `sys.*`, `mysql.*`) need a pattern that
begins as they do. Statements that are no reading or writing of tables (SET, CALL, EXEC, PRAGMA,
ATTACH, COPY, EXPLAIN, GRANT and everything unknown) are outside, as are functions that are not
known: see `sql`. A value that is a table's name and no statement is inside when it may be written,
or, where the scope has no `write`, read.
"""

import re
from typing import NamedTuple

import re2

from checkrein.policy.scopes.globs import folded, piece_regex, shown, strange_letter
from checkrein.policy.scopes.sql import SQL_CHARS_MAX, Name, Part, read_sql
from checkrein.policy.scopes.sql_parts import FUNCTIONS_KNOWN
from checkrein.policy.scopes.types import ScopeError, ScopeRule

_BARE = re.compile(r"\s*[A-Za-z_][\w$]*(?:\.[A-Za-z_][\w$]*){0,2}\s*")
_SYSTEM = (
    "pg_", "sqlite_", "pragma_", "information_schema", "sys", "mysql", "performance_schema", "msdb",
    "master", "rdb$", "system", "duckdb_", "innodb_",
)  # fmt: skip


class TablePattern(NamedTuple):
    """One compiled pattern: an expression for each part of the name."""

    text: str
    parts: tuple[str, ...]
    expressions: "tuple[re2._Regexp, ...]"

    def allows(self, name: Name) -> bool:
        if len(name) != len(self.parts):
            return False
        if not all(map(_part_allowed, name, self.parts, self.expressions)):
            return False
        return not is_system(name) or self.text.lower().startswith(_SYSTEM)

    def denies(self, name: Name) -> bool:
        """The parts are compared from the table's own name backwards. `hr.*` says nothing of a
        table without a schema; `hr.pay` does."""
        if len(name) < len(self.parts) and set(self.parts[-1]) == {"*"}:
            return False
        pairs = zip(reversed(name), reversed(self.expressions), strict=False)
        return all(regex.fullmatch(folded(part.text)) is not None for part, regex in pairs)


class Tables:
    """A compiled `tables` scope. Pure; safe from any thread."""

    def __init__(self, rule: ScopeRule, dialect: str = "") -> None:
        """Raises ScopeError."""
        self._dialect = dialect
        if dialect:
            _check_dialect(dialect)
        self._functions = frozenset(p[:-2].casefold() for p in rule.allow if p.endswith("()"))
        self._allow = [table_pattern(p) for p in rule.allow if not p.endswith("()")]
        if not rule.allow and not rule.write and rule.deny:
            self._allow = [table_pattern("*"), table_pattern("*.*"), table_pattern("*.*.*")]
        self._write = [table_pattern(p) for p in rule.write]
        self._deny = [table_pattern(p, is_denied=True) for p in rule.deny]

    def judge(self, value: str) -> str:
        """Empty: inside. Else why not."""
        if len(value) <= SQL_CHARS_MAX and _BARE.fullmatch(value):
            parts = tuple(Part(part, False) for part in value.strip().split("."))
            return self._access(parts, "write" if self._write else "read")
        access = read_sql(value, self._dialect)
        if access.problem:
            return f"{shown(value, 80)} {access.problem}"
        for function in access.functions:
            if function not in FUNCTIONS_KNOWN and function not in self._functions:
                return (
                    f"calls {shown(function)}, which is not known to be harmless; "
                    f"`{function}()` in `allow` lets it be called"
                )
        for verb, names in (("write", access.writes), ("read", access.reads)):
            for name in names:
                if reason := self._access(name, verb):
                    return reason
        return ""

    def _access(self, name: Name, verb: str) -> str:
        text = shown(".".join(part.text for part in name))
        for pattern in self._deny:
            if pattern.denies(name):
                return f"the table {text} is denied by {shown(pattern.text)}"
        patterns = self._write if verb == "write" else self._allow
        if any(pattern.allows(name) for pattern in patterns):
            return ""
        names = ", ".join(shown(pattern.text, 60) for pattern in patterns[:5])
        return f"the table {text} may not be {_DONE[verb]}; what may: {names or 'none'}"


_DONE = {"write": "written", "read": "read"}


def table_pattern(text: str, is_denied: bool = False) -> TablePattern:
    """Raises ScopeError."""
    parts = tuple(text.split("."))
    if not 1 <= len(parts) <= 3 or any(not part or "**" in part for part in parts):
        raise ScopeError("is no table, such as `orders` or `sales.*`", text)
    if strange_letter(text) or not re.fullmatch(r"[\w$#*?. -]+", text) or "()" in text:
        raise ScopeError("is no table, such as `orders` or `sales.*`", text)
    forms = [folded(part) if is_denied else part.lower() for part in parts]
    compiled = tuple(re2.compile(f"(?s){piece_regex(form, '')}") for form in forms)
    return TablePattern(text, parts, compiled)


def is_system(name: Name) -> bool:
    """A table of the server's own."""
    return any(part.text.lower().startswith(_SYSTEM) for part in name[:-1]) or name[
        -1
    ].text.lower().startswith(("pg_", "sqlite_", "pragma_", "sys", "rdb$", "duckdb_", "innodb_"))


def _part_allowed(part: Part, pattern: str, expression: "re2._Regexp") -> bool:
    if part.quoted and part.text != part.text.lower():
        return part.text == pattern or set(pattern) == {"*"}
    return expression.fullmatch(part.text.lower()) is not None


def _check_dialect(dialect: str) -> None:
    from sqlglot.dialects.dialect import Dialect

    try:
        Dialect.get_or_raise(dialect)
    except ValueError as error:
        raise ScopeError(f"is no dialect of SQL: {error}", dialect) from error
