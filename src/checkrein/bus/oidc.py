"""Tokens of the company's identity provider: who is it, if it is true.

`Verifier.verify` does, in this order, and stops at the first that is not so:

1. It is a JWT of a size that a JWT has, and its parts are JSON objects with each key once.
2. Its issuer is one of ours, compared as a whole. Else it is not for us to judge.
3. Its algorithm is on that issuer's list: asymmetric ones only, so never `none`, never HMAC.
4. It has no `crit`: we know of no extension.
5. The provider has the key that it names, for signing, of the algorithm's kind.
6. The signature is that key's.
7. Its audience is ours.
8. It has begun, has not ended and was issued not long ago, with the clocks' difference allowed.
9. It has a subject.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from checkrein.bus.oidc_keys import Fetch, KeySet, NoKey, fetch
from checkrein.bus.oidc_settings import ROLES, Issuer, Settings
from checkrein.world import World

TOKEN_CHARS_MAX = 16_384
SUBJECT_CHARS_MAX = 500
NAME_CHARS_MAX = 200
SECONDS_MAX = 1e12


class TokenRefused(Exception):
    """A token of one of our issuers that does not hold; the message says why, for whoever sent
    it."""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """Who a token is of. `agent`: the agent that it names, "" when the issuer's tokens name none;
    that there is such an agent is not said. `principal`: `issuer subject`. `roles`: ours."""

    principal: str
    name: str
    agent: str = ""
    roles: tuple[str, ...] = ()


class Verifier:
    """All issuers that are believed. On one loop."""

    def __init__(self, settings: Settings, world: World, fetch: Fetch = fetch) -> None:
        self._settings, self._world = settings, world
        self._issuers = {each.issuer: each for each in settings.issuers}
        self.keys = {each.issuer: KeySet(each, settings, fetch, world) for each in settings.issuers}

    async def verify(self, token: str) -> Verified | None:
        """None: no token of any issuer of ours. Raises TokenRefused."""
        if not self._issuers or token.count(".") != 2 or len(token) > TOKEN_CHARS_MAX:
            return None
        header, claims = _object(token.split(".")[0]), _object(token.split(".")[1])
        if header is None or claims is None:
            return None
        given = claims.get("iss")
        issuer = self._issuers.get(given) if isinstance(given, str) else None
        if issuer is None:
            return None
        await self._check_signature(token, header, issuer)
        self._check_claims(claims, issuer)
        return _verified(claims, issuer)

    async def _check_signature(self, token: str, header: dict[str, Any], issuer: Issuer) -> None:
        import jwt

        algorithm, kid = header.get("alg"), header.get("kid", "")
        if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
            raise TokenRefused(f"the algorithm {str(algorithm)[:40]!r} is not accepted")
        if "crit" in header or not isinstance(kid, str):
            raise TokenRefused("its header asks for what is not known here")
        try:
            key = jwt.PyJWK(await self.keys[issuer.issuer].key(kid, algorithm), algorithm)
            jwt.PyJWS(options={"enforce_minimum_key_length": True}).decode_complete(
                token, key=key, algorithms=[algorithm]
            )
        except NoKey as error:
            raise TokenRefused(str(error)) from error
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise TokenRefused(f"its signature does not hold: {error}") from error

    def _check_claims(self, claims: Mapping[str, Any], issuer: Issuer) -> None:
        audience = claims.get("aud")
        given = audience if isinstance(audience, list) else [audience]
        if not any(name in issuer.audience for name in given if isinstance(name, str)):
            raise TokenRefused(f"it is for {str(audience)[:200]!r}, not for this server")
        now, skew = self._world.now_ns() / 1e9, self._settings.clock_skew_s
        if _moment(claims, "exp") + skew <= now:
            raise TokenRefused("it has expired")
        issued = _moment(claims, "iat")
        if issued - skew > now:
            raise TokenRefused("it was issued in the future: look at the clocks")
        if issued + self._settings.token_age_max_s + skew <= now:
            raise TokenRefused(f"it was issued more than {self._settings.token_age_max_s:g} s ago")
        if "nbf" in claims and _moment(claims, "nbf") - skew > now:
            raise TokenRefused("it is not valid yet: look at the clocks")


def _verified(claims: Mapping[str, Any], issuer: Issuer) -> Verified:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_CHARS_MAX:
        raise TokenRefused("it names no subject")
    name = claims.get(issuer.name_claim)
    shown = name if isinstance(name, str) and name and name.isprintable() else subject
    agent = claims.get(issuer.agent_claim) if issuer.agent_claim else ""
    return Verified(
        principal=f"{issuer.issuer} {subject}", name=f"{issuer.name}:{shown}"[:NAME_CHARS_MAX],
        agent=agent if isinstance(agent, str) else "", roles=_roles(claims, issuer),
    )  # fmt: skip


def _roles(claims: Mapping[str, Any], issuer: Issuer) -> tuple[str, ...]:
    """Ours, by the issuer's table; without a table, those of its roles that are called as ours."""
    if not issuer.roles_claim:
        return ()
    found: Any = claims.get(issuer.roles_claim)
    if found is None:
        found = claims
        for part in issuer.roles_claim.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    given = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
    table = issuer.roles or {role: role for role in ROLES}
    ours = {table[role] for role in given if isinstance(role, str) and role in table}
    return tuple(role for role in reversed(ROLES) if role in ours)


def _moment(claims: Mapping[str, Any], name: str) -> float:
    value: Any = claims.get(name)
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if not numeric or not abs(value) < SECONDS_MAX:
        raise TokenRefused(f"it does not say when (`{name}`)")
    return float(value)


def _object(part: str) -> dict[str, Any] | None:
    """A part of a JWT; None when it is none."""
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        found = json.loads(data, object_pairs_hook=_once_each, parse_constant=_no_constant)
    except (ValueError, RecursionError, binascii.Error, OverflowError):
        return None
    return found if isinstance(found, dict) else None


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
