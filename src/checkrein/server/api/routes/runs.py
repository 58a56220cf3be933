"""Runs, agents and rooms."""

from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from checkrein.server.api import board
from checkrein.server.api.identity_shapes import identity_line
from checkrein.server.api.live import merged
from checkrein.server.api.problems import BadRequest, NotThere
from checkrein.server.api.routes.common import (
    API,
    RUNS_MAX,
    EventLimit,
    Limit,
    Moment,
    board_lines,
    check_id,
    full_run_id,
    history_rows,
    live_run,
    raw_answer,
    words,
)
from checkrein.server.api.services import Services
from checkrein.server.api.shapes import ENDED, STATUSES, AgentLine, RoomLine, RunLine


@get(f"{API}/runs", operation_id="listRuns")
async def list_runs(
    services: NamedDependency[Services],
    limit: Limit = 200,
    agent: FromQuery[str] = "",
    room: FromQuery[str] = "",
    task_id: FromQuery[str] = "",
    environment: FromQuery[str] = "",
    status: FromQuery[str] = "",
    live: FromQuery[bool | None] = None,
    since: Moment = None,
) -> Response[list[RunLine]]:
    """The status board: live runs and the latest of the others, latest first. `status` takes
    several, separated by commas; `since` is in nanoseconds since 1970."""
    wanted = words(status)
    unknown = wanted - STATUSES
    if unknown:
        raise BadRequest(
            f"no status {', '.join(sorted(unknown))}", f"There are {', '.join(sorted(STATUSES))}."
        )
    filters: dict[str, Any] = {
        "agent": agent, "room": room, "task_id": task_id, "environment": environment,
        "since": since,
    }  # fmt: skip
    if len(wanted) == 1 and wanted <= ENDED:
        filters["status"] = status.strip()
    incomplete: list[str] = []
    lines = await board_lines(services, filters, limit, incomplete)
    found = [
        run
        for run in lines
        if agent in ("", run.agent)
        and room in ("", run.room)
        and task_id in ("", run.task_id)
        and environment in ("", run.environment)
        and (not wanted or run.status in wanted)
        and (live is None or run.live == live)
        and (since is None or run.started_at >= since)
    ]
    return raw_answer(_first(found, limit), incomplete)


def _first(lines: list[RunLine], limit: int) -> list[RunLine]:
    """The latest, but no live run is left out for one that has ended."""
    if len(lines) <= limit:
        return lines
    kept = {id(run) for run in sorted(lines, key=lambda run: not run.live)[:limit]}
    return [run for run in lines if id(run) in kept]


@get(f"{API}/runs/{{run_id:str}}", operation_id="getRun")
async def get_run(services: NamedDependency[Services], run_id: FromPath[str]) -> Response[RunLine]:
    """One run's line. The beginning of an id is enough when it is the only one."""
    found = await full_run_id(services, run_id)
    unstored = services.tail.of_run(found)
    incomplete: list[str] = []
    rows: list[dict[str, Any]] = []
    if not services.live.is_whole(found):
        rows = await history_rows(services, "run", {"run_id": found}, incomplete)
    summary = services.live.summary(found, rows[0] if rows else None, unstored)
    held, answers = await live_run(services, found, incomplete)
    if summary is None and held is None:
        raise NotThere(f"no run {found}", "`checkrein ps` lists the runs.", "unknown_run")
    line = board.line(summary, held, services.world.now_ns(), answers)
    return raw_answer(line, incomplete)


@get(f"{API}/runs/{{run_id:str}}/events", operation_id="listRunEvents")
async def run_events(
    services: NamedDependency[Services],
    run_id: FromPath[str],
    limit: EventLimit = 1000,
    after: FromQuery[str] = "",
) -> Response[list[dict[str, Any]]]:
    """A run's events in order, those of this moment included. When there are more, the header
    Checkrein-Next holds the `after` of the next page (where an event may come again: it is known by
    agent, recorder and seq)."""
    found = await full_run_id(services, run_id)
    recent = None if after else services.recent.of_run(found)
    if recent is not None and len(recent) <= limit:
        return raw_answer([seen.fields for seen in recent], [])
    unstored = services.tail.of_run(found)
    return await _events(services, "events_of_run", {"run_id": found}, unstored, limit, after)


@get(f"{API}/tasks/{{task_id:str}}/events", operation_id="listTaskEvents")
async def task_events(
    services: NamedDependency[Services],
    task_id: FromPath[str],
    limit: EventLimit = 1000,
    after: FromQuery[str] = "",
) -> Response[list[dict[str, Any]]]:
    """The events of all runs of a task in order; pages as for a run."""
    check_id(task_id, "task id")
    unstored = services.tail.of_task(task_id)
    return await _events(services, "events_of_task", {"task_id": task_id}, unstored, limit, after)


async def _events(
    services: Services, query: str, of: dict[str, Any], unstored: Any, limit: int, after: str
) -> Response[list[dict[str, Any]]]:
    incomplete: list[str] = []
    parameters = {**of, "limit": limit, "after": after}
    rows = await history_rows(services, query, parameters, incomplete)
    following = rows[-1].get("position") if len(rows) >= limit else None
    events = rows if following is not None else merged(rows, unstored)
    if not events and not after and not incomplete:
        name, value = next(iter(of.items()))
        raise NotThere(
            f"no event of {name} {value}", "`checkrein ps` lists the runs.", "unknown_run"
        )
    return raw_answer([_plain(event) for event in events], incomplete, following)


def _plain(event: dict[str, Any]) -> dict[str, Any]:
    """An event without the store's cursor."""
    if "position" not in event:
        return event
    return {name: value for name, value in event.items() if name != "position"}


@get(f"{API}/agents", operation_id="listAgents")
async def list_agents(services: NamedDependency[Services]) -> Response[list[AgentLine]]:
    """The agents of the latest runs, of all live ones, and those that were added by name
    (`identity`), whether they ever ran or not."""
    incomplete: list[str] = []
    lines = await board_lines(services, {}, RUNS_MAX, incomplete)
    known = {record.agent: identity_line(record) for record in services.agents.all()}
    return raw_answer(board.agents(lines, services.world.now_ns(), known), incomplete)


@get(f"{API}/rooms", operation_id="listRooms")
async def list_rooms(services: NamedDependency[Services]) -> Response[list[RoomLine]]:
    """The rooms of the latest runs, and of all live ones."""
    incomplete: list[str] = []
    lines = await board_lines(services, {}, RUNS_MAX, incomplete)
    return raw_answer(board.rooms(lines), incomplete)


ROUTES = [list_runs, get_run, run_events, task_events, list_agents, list_rooms]
