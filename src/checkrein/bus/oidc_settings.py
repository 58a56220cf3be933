"""Which identity providers are believed, and about what: `[identity]` of `checkrein.toml`.

[identity]
clock_skew_s = 60          # how far clocks may be apart
token_age_max_s = 86400    # a token that was issued longer ago is refused, whatever it says
keys_fresh_s = 300         # a provider's keys are asked for again after so long
keys_kept_s = 86400        # and used so long at most when it does not answer
refetch_s = 10             # a provider is asked at most every so often

[[identity.issuers]]
name = "corp"                                   # how its people are called here: corp:ann
issuer = "https://login.example.com/realms/main"
audience = ["checkrein"]                        # one of them must be in the token
agent_claim = "client_id"                       # optional: this claim names the agent
roles_claim = "realm_access.roles"              # optional: without it no person comes in
roles = { sre = "operator", audit = "auditor" } # optional: what its roles are here
name_claim = "email"                            # optional: how a person is shown; else `sub`
algorithms = ["RS256", "ES256"]                 # optional: fewer than all
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
"""All of them asymmetric: a key that verifies cannot sign."""
ROLES = ("viewer", "auditor", "author", "approver", "operator", "admin")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class IdentityError(ValueError):
    """A setting of `[identity]` that cannot be used: which, and what it should look like."""


class Issuer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    issuer: str
    audience: list[str]
    agent_claim: str = ""
    roles_claim: str = ""
    roles: dict[str, str] = {}
    name_claim: str = "sub"
    algorithms: list[str] = msgspec.field(default_factory=lambda: list(ALGORITHMS))


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    clock_skew_s: float = 60.0
    token_age_max_s: float = 86_400.0
    keys_fresh_s: float = 300.0
    keys_kept_s: float = 86_400.0
    refetch_s: float = 10.0
    issuers: list[Issuer] = []


def settings_of(config: Mapping[str, Any]) -> Settings:
    """From `checkrein.toml`; nobody is believed when nothing is said. Raises IdentityError."""
    try:
        given = msgspec.convert(config.get("identity", {}), Settings)
    except msgspec.ValidationError as error:
        raise IdentityError(f"[identity] of checkrein.toml: {error}") from error
    for name in ("clock_skew_s", "token_age_max_s", "keys_fresh_s", "keys_kept_s", "refetch_s"):
        if not 0 <= getattr(given, name) < 1e9:
            raise IdentityError(f"identity.{name} takes seconds, 0 or more")
    for kind in ("name", "issuer"):
        values = [getattr(each, kind) for each in given.issuers]
        if len(set(values)) != len(values):
            raise IdentityError(f"identity.issuers: two of them have the same {kind}")
    for issuer in given.issuers:
        _check(issuer)
    return given


def _check(issuer: Issuer) -> None:
    where = f"identity.issuers {issuer.name!r}"
    if not issuer.name or not issuer.name.isprintable() or " " in issuer.name:
        raise IdentityError(f"{where}: name takes a short word")
    if not is_safe_url(issuer.issuer):
        raise IdentityError(f"{where}: issuer takes an https address, got {issuer.issuer!r}")
    if not issuer.audience or not all(issuer.audience):
        raise IdentityError(f"{where}: audience takes a list of one name or more")
    wrong = [name for name in issuer.algorithms if name not in ALGORITHMS]
    if wrong or not issuer.algorithms:
        raise IdentityError(
            f"{where}: algorithms takes some of {', '.join(ALGORITHMS)}, got {', '.join(wrong)}"
        )
    unknown = [role for role in issuer.roles.values() if role not in ROLES]
    if unknown:
        raise IdentityError(f"{where}: roles takes {', '.join(ROLES)}, got {', '.join(unknown)}")
    if issuer.roles and not issuer.roles_claim:
        raise IdentityError(f"{where}: roles needs roles_claim, the claim that they stand in")


def is_safe_url(url: str) -> bool:
    """https, or http on this machine; no user, no fragment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.username or parts.password or parts.fragment or not host:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK)
