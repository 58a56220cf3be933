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
