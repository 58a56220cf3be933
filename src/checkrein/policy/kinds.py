"""What a tool does to the world, when nobody has declared it: a guess from its name."""

import re
from functools import lru_cache

from checkrein.policy.types import Pact, ToolKind

_READS = frozenset({
    "get", "list", "read", "find", "search", "fetch", "query", "lookup", "look", "check", "browse",
    "view", "show", "describe", "count", "grep", "cat", "ls", "retrieve", "select", "peek",
    "status", "inspect", "scan",
})  # fmt: skip
_ONCE = frozenset({
    "send", "pay", "transfer", "refund", "order", "book", "buy", "purchase", "charge", "submit",
    "post", "create", "invite", "publish", "issue", "email", "notify", "withdraw", "deposit",
    "reply",
})  # fmt: skip
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


@lru_cache(maxsize=2048)
def first_verb(tool: str) -> str:
    """`crm.sendEmail` gives `send`: the first word of the name's last part."""
    found = _PART.search(tool.rpartition(".")[2])
    return found[0].lower() if found else ""


def declared_kind(pact: Pact, tool: str, declared: str | None) -> ToolKind | None:
    """What the pact says of the tool, else what its code says, else None."""
    rule = pact.tools.get(tool) if pact.tools else None
    if rule is not None and rule.kind is not None:
        return rule.kind
    match declared:
        case "read" | "compensable" | "irreversible":
            return declared
        case _:
            return None


def seems_read(tool: str) -> bool:
    return first_verb(tool) in _READS


def seems_once(tool: str) -> bool:
    """A tool whose second equal call has a second effect: paying, sending, creating."""
    return first_verb(tool) in _ONCE
