"""Coverage: which calls of each agent were seen by its SDK, by a gateway, or by both."""

from contextlib import suppress
from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from checkrein.bus import subjects
from checkrein.bus.identities import GatewayRecord
from checkrein.bus.messages import MessageError, decode
from checkrein.bus.types import BusError
from checkrein.server.api.coverage import CoverageLine, lines_of
from checkrein.server.api.history import HistoryAway
from checkrein.server.api.problems import NotThere, Unready
from checkrein.server.api.routes.common import API, Limit, Moment, raw_answer
from checkrein.server.api.services import Services

DAY_NS = 86_400 * 10**9
GATEWAY_YOUNG_NS = 15 * 10**9


@get(f"{API}/coverage", operation_id="listCoverage")
async def list_coverage(
    services: NamedDependency[Services], since: Moment = None, until: Moment = None
) -> Response[list[CoverageLine]]:
    """For each agent: how many model and tool calls its SDK saw, a gateway, both; which guards ran
    on which path; which tools the provider runs itself; what is not covered, in words. Of what is
    stored of the last 24 hours, unless `since` says more."""
    return raw_answer(await _lines(services, _window(services, since, until), 0), [])


@get(f"{API}/agents/{{agent:str}}/coverage", operation_id="getCoverage")
async def get_coverage(
    services: NamedDependency[Services],
    agent: FromPath[str],
    since: Moment = None,
    until: Moment = None,
    limit: Limit = 50,
) -> Response[list[CoverageLine]]:
    """The same of one agent, a line for each environment, with its latest runs."""
    window = _window(services, since, until) | {"agent": agent}
    found = await _lines(services, window, limit)
    if not found:
        raise NotThere(
            f"no call of agent {agent[:80]!r} is stored of that time",
            "`checkrein agents` lists the agents; `since` goes further back.",
        )
    return raw_answer(found, [])


def _window(services: Services, since: int | None, until: int | None) -> dict[str, Any]:
    started = services.world.now_ns() - DAY_NS if since is None else since
    return {"since": max(0, started)} | ({} if until is None else {"until": until})


async def _lines(services: Services, window: dict[str, Any], runs: int) -> list[CoverageLine]:
    history = services.history
    try:
        counts = await history.rows("coverage", window)
        paths = await history.rows("coverage_paths", window)
        of_runs = await history.rows("coverage_runs", window | {"limit": runs}) if runs else []
    except HistoryAway as error:
        raise Unready(str(error), "Ask again in a moment.") from error
    return lines_of(counts, paths, of_runs, await _gateway(services))


async def _gateway(services: Services) -> str:
    """A gateway that serves, or "" where none says so."""
    now_ns = services.world.now_ns()
    with suppress(BusError):
        bucket = await services.control_bus.bucket(subjects.BUCKET_GATEWAYS)
        for entry in await bucket.entries():
            with suppress(MessageError):
                record = decode(entry.value or b"", GatewayRecord)
                if now_ns - record.at < GATEWAY_YOUNG_NS:
                    return record.url
    return ""


ROUTES = [list_coverage, get_coverage]
