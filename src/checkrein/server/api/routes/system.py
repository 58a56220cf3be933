"""Health, metrics, and what this server can and cannot promise just now."""

from collections import Counter
from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency

from checkrein.server.api.controls import ControlAway
from checkrein.server.api.history import HistoryError
from checkrein.server.api.problems import ProblemBody
from checkrein.server.api.routes.common import API, live_runs, raw_answer
from checkrein.server.api.services import Services
from checkrein.server.api.shapes import ENDED, Part, StatusLine
from checkrein.server.gateways import serving

HEALTH_KEPT_NS = 500_000_000
HEALTH_WAIT_S = 1.0


@get("/healthz", operation_id="health", security=[])
async def healthz(services: NamedDependency[Services]) -> Response[Any]:
    """200 when everything needed to watch and stop agents answers; else 503, saying what does
    not."""
    parts = await health(services)
    missing = [part for part in parts if not part.ok]
    if not missing:
        return Response({"ready": True}, media_type="application/json")
    body = ProblemBody(
        error="unready",
        detail="; ".join(f"{part.name}: {part.detail}" for part in missing),
        do="Wait a moment; if it stays so, `checkrein doctor` and the logs in DATA/log say why.",
    )
    return Response(body, status_code=503, media_type="application/json")


async def health(services: Services) -> list[Part]:
    """Asked at most twice a second, however often it is called."""
    asked, parts = services.health
    now = services.world.monotonic_ns()
    if parts and now - asked < HEALTH_KEPT_NS:
        return list(parts)
    parts = [
        Part(name="events bus", ok=services.bus.connected, detail=_lost(services.bus.connected)),
        Part(
            name="control bus",
            ok=services.control_bus.connected,
            detail=_lost(services.control_bus.connected),
        ),
    ]
    archive = services.bus.connected and await services.history.answers(HEALTH_WAIT_S)
    parts.append(Part(name="archive", ok=archive, detail="" if archive else "does not answer"))
    control = services.control_bus.connected and await _control_answers(services)
    parts.append(Part(name="control", ok=control, detail="" if control else "does not answer"))
    if services.has_gateway:
        serves = services.gateways is not None and await serving(services.gateways)
        parts.append(Part(name="gateway", ok=serves, detail="" if serves else "does not answer"))
    services.health = (services.world.monotonic_ns(), parts)
    return list(parts)


def _lost(connected: bool) -> str:
    return "" if connected else "not connected"


async def _control_answers(services: Services) -> bool:
    try:
        await services.controls.runs(HEALTH_WAIT_S)
    except ControlAway:
        return False
    return True


@get("/metrics", operation_id="metrics", security=[], media_type="text/plain")
async def metrics(services: NamedDependency[Services]) -> Response[str]:
    """Counters and gauges for Prometheus."""
    return Response(services.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@get(f"{API}/status", operation_id="status")
async def status(services: NamedDependency[Services]) -> Response[StatusLine]:
    """What works, what is held, what can be halted, and what is not covered."""
    from importlib.metadata import version

    incomplete: list[str] = []
    parts = await health(services)
    live, _ = await live_runs(services, incomplete)
    held = [run for run in live if run.status not in ENDED]
    store = await _counts(services, incomplete)
    if services.tail.evicted:
        incomplete.append(
            f"{services.tail.evicted} events waited too long for the store and are not shown until "
            "it has them"
        )
    line = StatusLine(
        version=version("checkrein"),
        ready=all(part.ok for part in parts),
        parts=parts,
        runs_live=len(held),
        can_halt=sum(run.can_halt for run in held),
        levels=dict(sorted(Counter(run.record.level for run in held).items())),
        not_haltable=[
            {"run_id": run.record.run_id, "agent": run.record.agent, "why": run.can_halt_why}
            for run in held
            if not run.can_halt
        ][:100],
        store=store,
        stream_position=await _last_position(services),
        tail_events=len(services.tail),
        tail_position=services.tail.position,
        watchers=len(services.hub.watchers),
        uptime_s=round((services.world.monotonic_ns() - services.started_ns) / 1e9, 3),
        data=str(services.data),
        incomplete=incomplete,
    )
    return raw_answer(line, incomplete)


async def _counts(services: Services, incomplete: list[str]) -> dict[str, Any]:
    try:
        rows = await services.history.rows("counts")
    except HistoryError:
        incomplete.append("the archive does not answer: what is stored is unknown")
        return {}
    return rows[0] if rows else {}


async def _last_position(services: Services) -> int:
    from checkrein.bus import subjects
    from checkrein.bus.types import BusError

    try:
        return await services.bus.last_position(subjects.EVENTS.name)
    except BusError:
        return -1


ROUTES = [healthz, metrics, status]
