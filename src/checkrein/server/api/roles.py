"""Who asks, and what they may do: one table.

viewer     reads
auditor    reads, the audit log too
author     reads; puts pacts (into `development` at once, elsewhere as drafts) and backtests
approver   reads; decides on promotions, approvals, escalations and changed tools, resets
               learned profiles
operator   reads; commands, sessions, and all of author's and approver's
admin      all, alone tokens and agents; the token in the data folder is one
agent      an agent by its own key: opens its own sessions and its runs' keys, reads nothing
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

Role = Literal["viewer", "operator", "approver", "author", "auditor", "admin"]
Acting = Literal["viewer", "operator", "approver", "author", "auditor", "admin", "agent"]
ROLES: tuple[Role, ...] = get_args(Role)
AGENT: Acting = "agent"
OWNER_NAME = "operator"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks. `owner`: with the token in the data folder. `more`: further roles, which an
    identity provider may give. For an agent (`role` is `agent`): which, and what its record binds
    it to ("": anything); `key` is the beginning of its key's digest."""

    name: str
    role: Acting
    owner: bool = False
    more: tuple[Role, ...] = ()
    agent: str = ""
    room: str = ""
    environment: str = ""
    key: str = ""

    @property
    def roles(self) -> frozenset[str]:
        return frozenset((self.role, *self.more))

    @property
    def origin(self) -> str:
        """What a session is remembered by that this one opened: only who has the same may renew
        it. "" for people, who may renew each other's."""
        return f"agent:{self.agent}:{self.key}" if self.role == AGENT else ""


OWNER = Identity(name=OWNER_NAME, role="admin", owner=True)

_READ = frozenset(ROLES)
_AUDITS = frozenset(("auditor", "operator", "admin"))
_WRITES = frozenset(("author", "operator", "admin"))
_DECIDES = frozenset(("approver", "operator", "admin"))
_COMMANDS = frozenset(("operator", "admin"))
_HOLDS = frozenset(("operator", "admin", "agent"))
_RULES = frozenset(("admin",))
_GET = ("GET", "HEAD")
_ONE = "[^/]+"

TABLE: tuple[tuple[tuple[str, ...], str, frozenset[str]], ...] = (
    (_GET, "/api/v1/audit(/.*)?", _AUDITS),
    (_GET, "/.*", _READ),
    (("POST",), "/api/v1/commands", _COMMANDS),
    (("POST",), "/api/v1/approvals/decisions", _DECIDES),
    (("POST",), f"/api/v1/approvals/{_ONE}/decision", _DECIDES),
    (("POST",), f"/api/v1/escalations/{_ONE}/acknowledge", _DECIDES),
    (("PUT",), f"/api/v1/pacts/{_ONE}", _WRITES),
    (("POST",), f"/api/v1/pacts/{_ONE}/backtests", _WRITES),
    (("POST",), f"/api/v1/pacts/{_ONE}/promote", _DECIDES),
    (("DELETE",), f"/api/v1/pacts/{_ONE}/profile", _DECIDES),
    (("POST",), "/api/v1/mcp-tools/approve", _DECIDES),
    (("POST",), "/api/v1/sessions", _HOLDS),
    (("POST",), "/api/v1/run-tokens", _HOLDS),
    (("DELETE",), f"/api/v1/run-tokens/{_ONE}", _HOLDS),
    (("POST",), "/api/v1/agents", _RULES),
    (("DELETE",), f"/api/v1/agents/{_ONE}", _RULES),
    (("POST",), f"/api/v1/agents/{_ONE}/keys", _RULES),
    (("DELETE",), f"/api/v1/agents/{_ONE}/keys/{_ONE}", _RULES),
    (("POST",), "/api/v1/tokens", _RULES),
    (("DELETE",), f"/api/v1/tokens/{_ONE}", _RULES),
)
"""Methods, path, and who may: the first line that fits. What no line fits is the admin's."""
_LINES = tuple((frozenset(methods), re.compile(path, re.S), who) for methods, path, who in TABLE)


def may(identity: Identity, method: str, path: str) -> bool:
    """Whether this one may ask that. `path` as the router reads it: unquoted; slashes at its end
    and doubled ones mean nothing."""
    return bool(identity.roles & allowed(method, path))


def allowed(method: str, path: str) -> frozenset[str]:
    """The roles that may."""
    plain = re.sub("/{2,}", "/", path).rstrip("/") or "/"
    for methods, fits, roles in _LINES:
        if method in methods and fits.fullmatch(plain):
            return roles
    return _RULES


def who(scope: Mapping[str, Any]) -> Identity:
    """Who asks, as the door has found."""
    found = (scope.get("state") or {}).get("identity")
    return found if isinstance(found, Identity) else OWNER
