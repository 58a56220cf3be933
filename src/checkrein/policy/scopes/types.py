"""A scope: what a tool may reach through one of its arguments."""

from typing import Literal

import msgspec

ScopeKind = Literal["paths", "tables", "hosts", "repos"]


class ScopeRule(msgspec.Struct, frozen=True, kw_only=True):
    """`argument` is a path into the arguments (`path`, `files[].name`); empty: every argument whose
    name says that it is of this kind. `allow` and `deny` are patterns, deny wins. For `tables`,
    `allow` is what may be read and `write` what may be changed."""

    kind: ScopeKind
    argument: str = ""
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


class ScopeError(ValueError):
    """A scope rule that means nothing: what is wrong, and the pattern or argument it is about."""

    def __init__(self, problem: str, pattern: str = "") -> None:
        self.problem = problem
        self.pattern = pattern
        super().__init__(f"`{pattern}`: {problem}" if pattern else problem)


class Outside(ValueError):
    """Arguments that were inside when they were judged, and are not any more."""
