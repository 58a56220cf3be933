"""What a tool's results are, and which calls have an effect: by the pact, else guessed by name.

A guess errs to the careful side: what is not known as a read is an effect, and what a read brings
may have been written by anybody.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from checkrein.policy.kinds import first_verb, seems_read
from checkrein.policy.types import ToolKind, ToolRule

_READS_TOO = frozenset(
    {"lookup", "recall", "load", "open", "visit", "crawl", "scrape", "is", "has"}
)
_OWN = frozenset({
    "balance", "iban", "day", "date", "time", "clock", "now", "timezone", "profile", "settings",
    "whoami", "me",
})  # fmt: skip
_OWN_TOO = frozenset({
    "get", "read", "show", "check", "view", "fetch", "lookup", "current", "my", "the", "account",
    "user", "today", "local",
})  # fmt: skip
_PRIVATE = frozenset({
    "email", "emails", "mail", "mails", "inbox", "message", "messages", "file", "files", "contact",
    "contacts", "customer", "customers", "client", "clients", "account", "accounts", "user",
    "users", "calendar", "event", "events", "transaction", "transactions", "document", "documents",
    "record", "records", "note", "notes", "drive", "order", "orders", "balance", "info", "profile",
    "secret", "secrets", "password", "passwords", "key", "keys", "token", "tokens", "patient",
    "employee", "employees", "payroll", "invoice", "invoices", "memory", "db", "database",
})  # fmt: skip
_OUTWARD = frozenset({
    "send", "post", "email", "mail", "publish", "share", "invite", "upload", "submit", "forward",
    "reply", "tweet", "message", "notify", "transfer", "pay", "push", "input", "query", "ask",
    "request", "call", "fax", "export", "webhook", "comment", "transmit", "book", "order",
})  # fmt: skip
_PUBLIC = frozenset(
    {"web", "webpage", "website", "page", "url", "site", "internet", "news", "http"}
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


class Trust(NamedTuple):
    """`trusted`: what stands there may be acted on. `untrusted`: others write there. `private`: it
    must not leave. Neither trusted nor untrusted: the echo of what the agent itself has done."""

    trusted: bool = False
    untrusted: bool = False
    private: bool = False


USER = Trust(trusted=True)
UNTRUSTED = Trust(untrusted=True)


@lru_cache(maxsize=2048)
def _guess(tool: str, reads: bool) -> Trust:
    words = {word.lower() for word in _WORD.findall(tool)}
    private = not words.isdisjoint(_PRIVATE) and words.isdisjoint(_PUBLIC)
    if not reads:
        outward = first_verb(tool) in ("input", "query", "ask", "request", "call", "run", "execute")
        return Trust(untrusted=outward)
    if words - _OWN_TOO <= _OWN and words & _OWN:
        return Trust(trusted=True, private=private)
    return Trust(untrusted=True, private=private)


def trust_of(tool: str, rule: ToolRule | None, kind: ToolKind | None) -> Trust:
    """What a tool's results are."""
    if rule is not None and rule.source:
        named = rule.source
        return Trust("trusted" in named, "untrusted" in named, "private" in named)
    return _guess(tool, is_read(tool, rule, kind))


def is_read(tool: str, rule: ToolRule | None, kind: ToolKind | None) -> bool:
    """Changes nothing. A read may still carry something out, in a URL."""
    declared = (rule.kind if rule is not None else None) or kind
    if declared is not None:
        return declared == "read"
    return seems_read(tool) or first_verb(tool) in _READS_TOO


def sends_out(tool: str, rule: ToolRule | None) -> bool:
    """What it is given leaves the house, as far as its name or the pact tells."""
    if rule is not None and rule.external is not None:
        return rule.external
    return first_verb(tool) in _OUTWARD


def rule_for(tools: Mapping[str, ToolRule], tool: str) -> ToolRule | None:
    return tools.get(tool)
