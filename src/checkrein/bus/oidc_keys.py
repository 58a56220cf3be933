"""An identity provider's signing keys: asked for, kept, asked for again, and at last forgotten.

A key that the provider has taken out of its set is not used any more from the next answer on. A
provider that does not answer is not asked more often than `refetch_s`; what it said last counts for
`keys_kept_s`, and then nothing does.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from checkrein.bus.oidc_settings import Issuer, Settings, is_safe_url
from checkrein.world import World

FETCH_S = 5.0
DOCUMENT_BYTES_MAX = 512 * 1024
KEYS_MAX = 200
KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
"""Of an algorithm's first two letters, the kind of key it takes."""
_DISCOVERY = "/.well-known/openid-configuration"
_log = logging.getLogger(__name__)

Fetch = Callable[[str], Awaitable[bytes]]
"""A document's bytes. Raises FetchError."""


class FetchError(Exception):
    """The provider did not answer, or not with what it should. Says where and why."""


class NoKey(Exception):
    """No key of the provider fits; the message says why."""


class KeySet:
    """One provider's keys. On one loop."""

    def __init__(self, issuer: Issuer, settings: Settings, fetch: Fetch, world: World) -> None:
        self._issuer, self._settings, self._fetch, self._world = issuer, settings, fetch, world
        self._keys: list[dict[str, Any]] = []
        self._good_ns: int | None = None
        self._asked_ns: int | None = None
        self._why = ""
        self._asking = asyncio.Lock()
        self.fetches = 0

    async def key(self, kid: str, algorithm: str) -> dict[str, Any]:
        """The one key (as a JWK) that a token names. Raises NoKey."""
        found = self._find(kid, algorithm)
        if found is None or not self._younger(self._good_ns, self._settings.keys_fresh_s):
            if found is None or not self._asking.locked():
                await self._refresh()
            found = self._find(kid, algorithm)
        if not self._younger(self._good_ns, self._settings.keys_kept_s):
            raise NoKey(f"the keys of {self._issuer.issuer} are not known: {self._why}")
        if found is None:
            raise NoKey(f"{self._issuer.issuer} has no key {kid[:80]!r} for {algorithm}")
        return found

    def _find(self, kid: str, algorithm: str) -> dict[str, Any] | None:
        fits = [key for key in self._keys if _fits(key, algorithm)]
        if kid:
            fits = [key for key in fits if key.get("kid") == kid]
        return fits[0] if len(fits) == 1 else None

    async def _refresh(self) -> None:
        """Asks, unless it was asked a moment ago; many at once ask once."""
        async with self._asking:
            if self._younger(self._asked_ns, self._settings.refetch_s):
                return
            self._asked_ns = self._world.monotonic_ns()
            try:
                async with asyncio.timeout(FETCH_S):
                    self._keys = await self._ask()
                self._good_ns, self._why = self._world.monotonic_ns(), ""
            except (FetchError, TimeoutError) as error:
                self._why = str(error) or "no answer in time"
                _log.warning("the keys of %s: %s", self._issuer.issuer, self._why)

    async def _ask(self) -> list[dict[str, Any]]:
        self.fetches += 1
        issuer = self._issuer.issuer
        document = _object(await self._fetch(issuer.rstrip("/") + _DISCOVERY), "discovery document")
        if document.get("issuer") != issuer:
            raise FetchError(f"its discovery document is of {str(document.get('issuer'))[:200]!r}")
        where = document.get("jwks_uri")
        if not isinstance(where, str) or not is_safe_url(where):
            raise FetchError(f"its jwks_uri is no https address: {str(where)[:200]!r}")
        if where.startswith("http:") and not issuer.startswith("http:"):
            raise FetchError(f"its jwks_uri is not https: {where[:200]!r}")
        keys = _object(await self._fetch(where), "key set").get("keys")
        if not isinstance(keys, list) or len(keys) > KEYS_MAX:
            raise FetchError(f"its key set is no list of at most {KEYS_MAX} keys")
        return [key for key in keys if isinstance(key, dict)]

    def _younger(self, then_ns: int | None, seconds: float) -> bool:
        return then_ns is not None and self._world.monotonic_ns() - then_ns < seconds * 1e9


def _fits(key: dict[str, Any], algorithm: str) -> bool:
    """Whether this key may have made a signature of that algorithm: never one that is shared."""
    return (
        key.get("kty") == KINDS.get(algorithm[:2])
        and key.get("alg") in (None, algorithm)
        and key.get("use") in (None, "sig")
        and "verify" in (key.get("key_ops") or ["verify"])
    )


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FetchError(f"its {what} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise FetchError(f"its {what} is no JSON object")
    return found


async def fetch(url: str) -> bytes:
    """One document over HTTP; no redirect is followed, since each could lead inside. Raises
    FetchError."""
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(auto_decompress=False) as client,
            client.get(
                url, allow_redirects=False,
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            ) as answer,
        ):  # fmt: skip
            if answer.status != 200:
                raise FetchError(f"{url} answered {answer.status}")
            data = bytearray()
            async for part in answer.content.iter_chunked(64 * 1024):
                data += part
                if len(data) > DOCUMENT_BYTES_MAX:
                    raise FetchError(f"{url} answered more than {DOCUMENT_BYTES_MAX} bytes")
            return bytes(data)
    except (OSError, ValueError, aiohttp.ClientError) as error:
        raise FetchError(f"{url}: {type(error).__name__}: {error}") from error
