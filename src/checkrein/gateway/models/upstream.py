"""Asks the providers: the upstream that a call is for, again where that may help, then those named
as its fallback. Nothing of an answer is passed on before it is decided which one it is."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from checkrein.gateway.egress import Egress, EgressRefused
from checkrein.gateway.models.headers import onward
from checkrein.gateway.models.reading import failed
from checkrein.gateway.models.retrying import WAIT_S_MAX, is_worth_it, wait_s
from checkrein.gateway.settings import Settings, SettingsError, Upstream
from checkrein.gateway.types import Refusal
from checkrein.world import World

_PLAIN_BYTES_MAX = 512 * 1024
_NOT_BY_ITSELF = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


@dataclass
class Asked:
    """One request to a provider. `path` begins with a slash and follows the upstream's URL."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes | None


@dataclass
class Reply:
    """The head of a provider's answer; whoever gets it closes it."""

    upstream: Upstream
    response: aiohttp.ClientResponse
    key: str
    attempts: int


class Upstreams:
    """To be made on the loop that uses it; raises SettingsError for a URL that cannot be used."""

    def __init__(
        self, settings: Settings, world: World, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._settings, self._world, self._environ = settings, world, environ
        self._keys: dict[str, tuple[int, str]] = {}
        try:
            egress = Egress(
                [each.url for each in settings.models.values()], settings.allow_addresses
            )
        except EgressRefused as error:
            raise SettingsError(f"gateway.models: {error}") from error
        self._session = aiohttp.ClientSession(
            connector=egress.connector(), cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False, trust_env=False, read_bufsize=256 * 1024,
            skip_auto_headers=_NOT_BY_ITSELF,
        )  # fmt: skip
        self._timeouts: dict[str, aiohttp.ClientTimeout] = {
            name: aiohttp.ClientTimeout(
                total=None, sock_connect=each.connect_s, sock_read=each.timeout_s
            )
            for name, each in settings.models.items()
        }

    async def close(self) -> None:
        await self._session.close()

    def named(self, name: str, protocol: str) -> Upstream:
        """Raises Refusal when there is none that speaks this protocol."""
        found = self._settings.models.get(name)
        if found is None or found.protocol != protocol:
            raise Refusal(
                502, "upstream_failed", f"the pact's route names the upstream {name!r}, and there "
                f"is none of that name for {protocol}", advice="ESCALATE",
                appeal="[gateway.models] of checkrein.toml says which there are.",
            )  # fmt: skip
        return found

    async def ask(self, first: Upstream, asked: Asked, facts: dict[str, Any]) -> Reply:
        """The answer of the first upstream that has one; when none has, the last one's. Tells
        `upstream` and `attempts` in `facts`. Raises Refusal."""
        chain = [first, *(self._settings.models[name] for name in first.fallback)]
        problem: Refusal | None = None
        attempts = 0
        for index, upstream in enumerate(chain):
            last = index == len(chain) - 1
            facts["upstream"] = upstream.name
            for attempt in range(1, upstream.retries + 2):
                attempts += 1
                facts["attempts"] = attempts
                final = attempt == upstream.retries + 1
                found = await self._once(upstream, asked, attempts)
                if isinstance(found, _Failed):
                    problem = found.refusal
                    if final or not found.again:
                        break
                    await self._world.sleep(wait_s(attempt, {}, 0, self._world.random()))
                    continue
                response = found.response
                if not is_worth_it(response.status, response.headers):
                    return found
                pause_s = wait_s(
                    attempt, response.headers, self._world.now_ns(), self._world.random()
                )
                if final or pause_s > WAIT_S_MAX:
                    if last:
                        return found
                    response.close()
                    break
                response.close()
                await self._world.sleep(pause_s)
        raise problem or failed(first.name, "gave no answer")

    async def _once(self, upstream: Upstream, asked: Asked, attempts: int) -> "Reply | _Failed":
        key = self._key(upstream)
        headers = onward(asked.headers, upstream.protocol, key)
        body: Any = asked.body
        if body is not None:
            headers["content-type"] = "application/json"
            if len(body) > _PLAIN_BYTES_MAX:
                body = io.BytesIO(body)  # in pieces, so that others get their turn
        address = f"{upstream.url}{asked.path}"
        if asked.query:
            address = f"{address}?{asked.query}"
        try:
            response = await self._session.request(
                asked.method, URL(address, encoded=True), data=body, headers=headers,
                allow_redirects=False, timeout=self._timeouts[upstream.name],
            )  # fmt: skip
        except EgressRefused as error:
            return _Failed(failed(upstream.name, f"may not be connected to: {error}"), False)
        except aiohttp.ConnectionTimeoutError:
            why = f"could not be reached in {upstream.connect_s:g} s"
            return _Failed(failed(upstream.name, why, 504, "upstream_timeout"), True)
        except TimeoutError:
            why = f"has not begun to answer in {upstream.timeout_s:g} s"
            return _Failed(failed(upstream.name, why, 504, "upstream_timeout"), False)
        except aiohttp.ClientConnectorError as error:
            why = f"cannot be reached: {error.os_error.strerror or type(error.os_error).__name__}"
            return _Failed(failed(upstream.name, why), True)
        except (aiohttp.ClientConnectionError, OSError) as error:
            why = f"hung up before it answered ({type(error).__name__})"
            return _Failed(failed(upstream.name, why), True)
        except (aiohttp.ClientError, ValueError) as error:
            why = f"does not speak HTTP as it should ({type(error).__name__})"
            return _Failed(failed(upstream.name, why), False)
        return Reply(upstream, response, key, attempts)

    def _key(self, upstream: Upstream) -> str:
        """The real key: a file's is read again when the file has changed. Raises Refusal."""
        try:
            if not upstream.key_file:
                return upstream.key(self._environ)
            changed_ns = Path(upstream.key_file).stat().st_mtime_ns
            known = self._keys.get(upstream.name)
            if known is None or known[0] != changed_ns:
                known = self._keys[upstream.name] = (changed_ns, upstream.key(self._environ))
            return known[1]
        except (OSError, SettingsError) as error:
            raise Refusal(
                502, "upstream_failed", f"the key of the upstream {upstream.name} cannot be read",
                advice="ESCALATE",
            ) from error  # fmt: skip


@dataclass
class _Failed:
    """`again`: another attempt may go better, and does no harm."""

    refusal: Refusal
    again: bool
