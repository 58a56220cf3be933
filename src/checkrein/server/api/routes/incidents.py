"""Incidents: the queue of what needs looking at."""

from typing import Any

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from checkrein.bus import subjects
from checkrein.bus.types import BusError
from checkrein.server.api.problems import NotThere, Unready
from checkrein.server.api.routes.common import API, Limit, words
from checkrein.server.api.services import Services
from checkrein.server.api.shapes import IncidentLine

_DECODER = msgspec.msgpack.Decoder(dict[str, Any])
_SEVERITIES = ("critical", "high", "medium", "low")


@get(f"{API}/incidents", operation_id="listIncidents")
async def list_incidents(
    services: NamedDependency[Services],
    status: FromQuery[str] = "",
    agent: FromQuery[str] = "",
    room: FromQuery[str] = "",
    run_id: FromQuery[str] = "",
    limit: Limit = 200,
) -> list[IncidentLine]:
    """Open and recent incidents: open ones first, then by severity, newest first."""
    wanted = words(status)
    found = [
        incident
        for incident in await _all(services)
        if (not wanted or incident.status in wanted)
        and agent in ("", incident.agent)
        and room in ("", incident.room)
        and run_id in ("", incident.run_id)
    ]
    found.sort(key=_urgency)
    return found[:limit]


@get(f"{API}/incidents/{{incident_id:str}}", operation_id="getIncident")
async def get_incident(
    services: NamedDependency[Services], incident_id: FromPath[str]
) -> IncidentLine:
    """One incident."""
    for incident in await _all(services):
        if incident.incident_id == incident_id:
            return incident
    raise NotThere(f"no incident {incident_id[:80]!r}", "`checkrein incidents` lists them.")


def _urgency(incident: IncidentLine) -> tuple[bool, int, int]:
    rank = _SEVERITIES.index(incident.severity) if incident.severity in _SEVERITIES else 4
    return (incident.status == "closed", rank, -incident.opened_at)


async def _all(services: Services) -> list[IncidentLine]:
    try:
        bucket = await services.control_bus.bucket(subjects.BUCKET_INCIDENTS)
        entries = await bucket.entries()
    except BusError as error:
        raise Unready(
            f"the control bus does not answer: {error}", "Ask again in a moment."
        ) from error
    lines = [_line(entry.value) for entry in entries if entry.value]
    return [line for line in lines if line is not None]


def _line(value: bytes) -> IncidentLine | None:
    """None for a value that is not an incident in a form this version knows."""
    try:
        return msgspec.convert(_DECODER.decode(value), IncidentLine)
    except msgspec.MsgspecError:
        return None


ROUTES = [list_incidents, get_incident]
