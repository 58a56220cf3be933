"""Tools of MCP servers as they were first seen, and what has changed about them since.

A tool's description is read by a model, so whoever changes it later speaks to every agent that may
call the tool. It is pinned when it is first seen; what differs from then on is held until a person
has approved it.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

PARTS = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
TEXT_CHARS_MAX = 2_000


class ToolChange(msgspec.Struct, frozen=True, kw_only=True):
    """The same tool as it is listed now. `what` names the parts that differ."""

    digest: str
    parts: dict[str, str]
    what: list[str]
    description: str = ""
    at: int = 0
    agent: str = ""
    run_id: str = ""


class ToolPin(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as it is trusted. `digest` is the SHA-256 over its parts, `parts` the digest of each;
    `description` its beginning, for people. `changed` is held: not shown, not called. `server` is
    a name of `[gateway.mcp]`, or AGENT/NAME of a server that the agent itself has started."""

    server: str
    tool: str
    digest: str
    parts: dict[str, str]
    description: str = ""
    first_at: int = 0
    approved_by: str = ""
    approved_at: int = 0
    changed: ToolChange | None = None

    def approved(self, by: str, at: int) -> "ToolPin":
        """The change is what is trusted from now on."""
        change = self.changed
        if change is None:
            return self
        return msgspec.structs.replace(
            self, digest=change.digest, parts=change.parts, description=change.description,
            approved_by=by, approved_at=at, changed=None,
        )  # fmt: skip


def digests_of(tool: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The digest of a tool as a server lists it, and that of each of its parts. What else a server
    says of it (icons, `_meta`) no model reads."""
    parts = {}
    for name in PARTS:
        if tool.get(name) is not None:
            form = msgspec.json.encode(tool[name], order="deterministic")
            parts[name] = hashlib.sha256(form).hexdigest()
    whole = msgspec.json.encode(parts, order="deterministic")
    return hashlib.sha256(whole).hexdigest(), parts


def differs(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Which parts are not what they were."""
    return [name for name in PARTS if before.get(name) != after.get(name)]
