"""Sessions: how a holder of runs gets onto the buses."""

import re

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from checkrein.bus import subjects
from checkrein.bus.messages import SessionGrant, SessionRequest
from checkrein.server.api.problems import BadRequest
from checkrein.server.api.routes import pacts
from checkrein.server.api.routes.common import API
from checkrein.server.api.services import Services

AGENTS_MAX = 500
LIFE_S = 3600
_SESSION = re.compile(r"[A-Za-z0-9_-]{8,64}")


@post(f"{API}/sessions", operation_id="openSession", status_code=201)
async def open_session(
    services: NamedDependency[Services], data: JSONBody[SessionRequest]
) -> SessionGrant:
    """Opens or renews a session: bus addresses, a credential for both buses that ends at
    `expires_at` (renew well before), and each agent's pact. A pact in `pacts` is stored first, and
    put in force for its agent."""
    _check(data)
    for agent, text in data.pacts.items():
        await pacts.store(services, agent, text)
    session = data.session or services.world.uuid7()
    expires_at = services.world.now_ns() + LIFE_S * 1_000_000_000
    credential = services.minter.session(session, data.agents, expires_at)
    services.metrics.count("checkrein_sessions_total", labels=(("kind", data.kind),))
    return SessionGrant(
        session=session, bus_urls=list(services.bus_urls), control_urls=list(services.control_urls),
        jwt=credential.jwt, seed=credential.seed, control_key=services.minter.control_key,
        expires_at=expires_at, pacts=await _pacts(services, data.agents),
    )  # fmt: skip


def _check(data: SessionRequest) -> None:
    if not data.agents or len(data.agents) > AGENTS_MAX:
        raise BadRequest(
            f"`agents` names {len(data.agents)} agents; a session speaks for 1 to {AGENTS_MAX}",
            "Open several sessions.",
        )
    for agent in (*data.agents, *data.pacts):
        pacts.check_name(agent)
    if data.session and not _SESSION.fullmatch(data.session):
        raise BadRequest(
            f"{data.session[:80]!r} cannot name a session",
            "Use 8 to 64 letters, digits, `-` or `_`, or leave it out to have one made.",
        )


async def _pacts(services: Services, agents: list[str]) -> dict[str, str]:
    """Each agent's own pact, or the stored `default`, or "" when there is neither."""
    entries = await (await pacts.bucket_of(services)).entries()
    texts = {entry.key: (entry.value or b"").decode("utf-8", "replace") for entry in entries}
    everyone = texts.get(subjects.token(pacts.EVERYONE), "")
    return {agent: texts.get(subjects.token(agent), everyone) for agent in agents}


ROUTES = [open_session]
