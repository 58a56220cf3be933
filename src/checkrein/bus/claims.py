"""Telling the bus servers whose credentials are taken back, while they run.

The account's own JWT carries the list (`revocations`: a user's public key, and the second up to
which its credentials are void). A server that gets a new one cuts whom it names at once, lets
them in no more, and, with `resolver: {type: full}`, remembers it over restarts. Servers of a
cluster pass it on to each other.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence

import msgspec

from checkrein.bus.credentials import Credential, Keys
from checkrein.bus.types import BusError, Unreachable

ANSWER_S = 2.0
_UPDATE = "$SYS.REQ.CLAIMS.UPDATE"


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """One user's credential that was taken back, under its public key in the bucket `revocations`,
    until it would have ended by itself (`expires_at`, ns). `at`: ns."""

    session: str
    agent: str
    at: int
    expires_at: int


class NotTaken(BusError):
    """The servers answer, and do not take it: their resolver is not `full`, or not ours."""


async def push(keys: Keys, urls: Sequence[str], revocations: Mapping[str, int]) -> None:
    """Makes these, and only these, void at the servers: seconds since 1970 by user. In force when
    it returns. Raises Unreachable, NotTaken."""
    import nats.errors

    system = keys.system()
    where = ", ".join(urls)
    try:
        async with asyncio.timeout(ANSWER_S):
            answer = await _ask(urls, system, keys.account_jwt(revocations).encode())
        said = json.loads(answer)
    except nats.errors.NoRespondersError:
        raise NotTaken(
            f"the bus at {where} takes no new claims: its configuration must say "
            "`resolver: {type: full, dir: …}`"
        ) from None
    except (OSError, ValueError, nats.errors.Error, TimeoutError) as error:
        raise Unreachable(f"the bus at {where} did not confirm: {error!r}") from error
    if not isinstance(said, dict) or said.get("data", {}).get("code") != 200:
        raise NotTaken(f"the bus at {where} does not take the claims: {str(said)[:300]}")


async def _ask(urls: Sequence[str], system: Credential, data: bytes) -> bytes:
    import nats

    connection = await nats.connect(
        list(urls), user_jwt_cb=system.jwt.encode, signature_cb=system.sign,
        connect_timeout=ANSWER_S, allow_reconnect=False, max_reconnect_attempts=1,
        reconnect_time_wait=0.1, error_cb=_quiet, name="claims",
    )  # fmt: skip
    try:
        return (await connection.request(_UPDATE, data, timeout=ANSWER_S)).data
    finally:
        await connection.close()


async def _quiet(error: Exception) -> None:
    """What matters comes as an answer, or as none."""
