"""Sessions: how a holder of runs gets onto the buses."""

import logging
import re
from functools import partial
from typing import Any

from litestar import Request, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from checkrein.bus import subjects
from checkrein.bus.messages import (
    MessageError,
    SessionGrant,
    SessionRecord,
    SessionRequest,
    decode,
    encode,
)
from checkrein.bus.pacts import TOGETHER_BYTES_MAX, place_of
from checkrein.bus.types import Bucket, BusError, Entry, WrongRevision
from checkrein.server.api.admission import admitted
from checkrein.server.api.problems import BadRequest, Forbidden, Unready
from checkrein.server.api.roles import Identity, who
from checkrein.server.api.routes import pacts
from checkrein.server.api.routes.common import API
from checkrein.server.api.services import Services
from checkrein.server.gateways import url_from

AGENTS_MAX = 500
LIFE_S = 3600
EARLIER_MAX = 8
TRIES_MAX = 8
SWEEP_EVERY_S = 60
SWEEP_MAX = 200
KEPT_S = 3600
"""A record outlives its last credential by so long: it may still be asked who that was."""
_log = logging.getLogger(__name__)
_SESSION = re.compile(r"[A-Za-z0-9_-]{8,64}")


@post(f"{API}/sessions", operation_id="openSession", status_code=201)
async def open_session(
    services: NamedDependency[Services],
    request: Request[Any, Any, Any],
    data: JSONBody[SessionRequest],
) -> SessionGrant:
    """Opens or renews a session: bus addresses, a credential for both buses that ends at
    `expires_at` (renew well before), and each agent's pact. A pact in `pacts` is stored first, and
    put in force for its agent (not in `staging` and `production`, where pacts are promoted).
    Who the session is stands in the bucket `sessions` before this answers; a session keeps its kind
    for as long as it is known. An agent's key opens sessions of that agent only, in the room and
    environment that it is bound to; agents that were revoked are left out."""
    _check(data)
    asks = who(request.scope)
    data = admitted(data, asks, services.agents.revoked)
    await pacts.carried(services, data.environment, data.pacts, asks.name)
    session = data.session or services.world.uuid7()
    expires_at = services.world.now_ns() + LIFE_S * 1_000_000_000
    credential = services.minter.session(session, data.agents, expires_at)
    await _write_down(services, session, data, credential.user, expires_at, asks.origin)
    await _still(services, session, data.agents, asks)
    services.metrics.count("checkrein_sessions_total", labels=(("kind", data.kind),))
    return SessionGrant(
        session=session, bus_urls=list(services.bus_urls), control_urls=list(services.control_urls),
        jwt=credential.jwt, seed=credential.seed, control_key=services.minter.control_key,
        expires_at=expires_at, **_pacts(services, data.agents, place_of(data.environment)),
        **_gateway(services, data.host),
    )  # fmt: skip


def _check(data: SessionRequest) -> None:
    if not data.agents or len(data.agents) > AGENTS_MAX:
        raise BadRequest(
            f"`agents` names {len(data.agents)} agents; a session speaks for 1 to {AGENTS_MAX}",
            "Open several sessions.",
        )
    if data.kind == "gateway":
        raise BadRequest(
            "a gateway's session is not opened by asking for it",
            "`checkrein serve gateway` opens its own; use `supervisor` or `sdk`.",
        )
    for agent in (*data.agents, *data.pacts):
        pacts.check_name(agent)
    if data.session and not _SESSION.fullmatch(data.session):
        raise BadRequest(
            f"{data.session[:80]!r} cannot name a session",
            "Use 8 to 64 letters, digits, `-` or `_`, or leave it out to have one made.",
        )


async def _write_down(
    services: Services, session: str, data: SessionRequest, user: str, expires_at: int, origin: str
) -> None:
    """With compare-and-set, so that of two renewals at once each credential is written down: what
    is not known cannot be taken back."""
    try:
        bucket = await services.control_bus.bucket(subjects.BUCKET_SESSIONS)
        for _ in range(TRIES_MAX):
            entry = await bucket.get(session) if data.session else None
            record, dropped = _record(_read(entry), session, data, user, expires_at, origin)
            await services.revoking.void(session, dropped, expires_at)
            try:
                if entry is None or not entry.value:
                    await bucket.create(session, encode(record))
                else:
                    await bucket.update(session, encode(record), entry.revision)
                break
            except WrongRevision:
                continue
        else:
            raise Unready(f"session {session} is being renewed all the time", "Ask again later.")
    except BusError as error:
        raise Unready(
            f"the control bus does not answer: {error}", "Ask again in a moment."
        ) from error
    now = services.world.monotonic_ns()
    swept = services.sessions_swept_ns
    if swept is None or now - swept > SWEEP_EVERY_S * 1_000_000_000:
        services.sessions_swept_ns = now
        services.spawn(partial(sweep, bucket, services.world.now_ns()))


def _record(
    before: SessionRecord | None, session: str, data: SessionRequest, user: str, expires_at: int,
    origin: str,
) -> tuple[SessionRecord, list[str]]:  # fmt: skip
    """What stands about the session from now on, and credentials of before for which there is no
    room in it, so that they must end. Raises BadRequest, Forbidden."""
    if before is not None and before.kind != data.kind:
        raise BadRequest(
            f"session {session} is of kind `{before.kind}`, not `{data.kind}`",
            "Open another session, without naming one.",
        )
    if before is not None and before.by != origin:
        raise Forbidden(
            f"session {session} was opened by somebody else",
            "Open another session, without naming one.",
        )
    earlier = [] if before is None else [*before.earlier, before.user]
    spoke = set() if before is None else {*before.agents, *before.formerly}
    formerly = sorted(spoke - set(data.agents))
    if len(formerly) > AGENTS_MAX:
        raise BadRequest(
            f"session {session} has spoken for {len(formerly)} other agents",
            "Open another session, without naming one.",
        )
    record = SessionRecord(
        session=session, kind=data.kind, agents=data.agents, user=user, expires_at=expires_at,
        earlier=earlier[-EARLIER_MAX:], room=data.room, environment=data.environment,
        host=data.host, pid=data.pid, by=origin, formerly=formerly,
    )  # fmt: skip
    return record, earlier[:-EARLIER_MAX]


async def _still(services: Services, session: str, agents: list[str], asks: Identity) -> None:
    """Whoever was revoked between being looked up and being written down, maybe by another api
    process, gets nothing: it is not among the sessions that were cut."""
    try:
        if not await services.agents.still(agents, asks):
            await (await services.control_bus.bucket(subjects.BUCKET_SESSIONS)).delete(session)
            raise Forbidden("the agent or its key was revoked meanwhile", "Ask again.", "revoked")
    except BusError as error:
        raise Unready(
            f"the control bus does not answer: {error}", "Ask again in a moment."
        ) from error


def _read(entry: Entry | None) -> SessionRecord | None:
    try:
        return decode(entry.value, SessionRecord) if entry is not None and entry.value else None
    except MessageError:
        return None


async def sweep(bucket: Bucket, now_ns: int) -> None:
    """Removes records of sessions whose credential ended KEPT_S ago, SWEEP_MAX of them at most."""
    try:
        removed = 0
        for entry in await bucket.entries():
            record = _read(entry)
            if record is None or record.expires_at + KEPT_S * 1_000_000_000 < now_ns:
                await bucket.delete(entry.key)
                removed += 1
                if removed >= SWEEP_MAX:
                    return
    except BusError as error:
        _log.info("old sessions are removed later: %s", error)


def _gateway(services: Services, host: str) -> dict[str, Any]:
    found = services.gateways.near(host) if services.gateways is not None else None
    if found is None:
        return {}
    return {
        "gateway_url": url_from(found, host), "gateway_providers": found.providers,
        "gateway_socket": found.socket if found.host == host else "",
    }  # fmt: skip


def _pacts(services: Services, agents: list[str], environment: str) -> dict[str, Any]:
    """Each agent's own pact, or the stored `default`, or "" when there is neither; and all that is
    in force for it, whole and signed. What would make the answer too large comes over the bus, as
    soon as the session is connected."""
    texts: dict[str, str] = {}
    sets: dict[str, bytes] = {}
    room = TOGETHER_BYTES_MAX
    for agent in agents:
        level = services.pacts.levels.of(agent, environment)
        signed = services.pacts.levels.signed(agent, environment)
        texts[agent] = ""
        if level is not None and signed is not None and room > 0:
            texts[agent] = level.enforced[-1].text if level.enforced else ""
            sets[agent] = signed
            room -= len(signed)
    return {"pacts": texts, "pact_sets": sets}


ROUTES = [open_session]
