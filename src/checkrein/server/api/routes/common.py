"""What the routes share: bounds, looking up runs, answers that say when they are incomplete."""

import re
from collections.abc import Iterable
from typing import Annotated, Any

from litestar import Response
from litestar.params import QueryParameter

from checkrein.bus.messages import LiveRun
from checkrein.server.api import board
from checkrein.server.api.controls import ControlAway
from checkrein.server.api.history import HistoryAway
from checkrein.server.api.problems import Ambiguous, BadRequest, NotThere
from checkrein.server.api.services import Services
from checkrein.server.api.shapes import RunLine
from checkrein.server.api.tail import Seen, to_json
from checkrein.store.runs import RunSummary
from checkrein.world import is_uuid7

API = "/api/v1"
RUNS_MAX = 1_000
EVENTS_MAX = 5_000
PREFIX_CHARS_MIN = 4
CANDIDATES_MAX = 10
INCOMPLETE = "Checkrein-Incomplete"
NEXT = "Checkrein-Next"

_ID = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,199}")

Limit = Annotated[int, QueryParameter(ge=1, le=RUNS_MAX, description="At most so many.")]
EventLimit = Annotated[int, QueryParameter(ge=1, le=EVENTS_MAX, description="At most so many.")]
Moment = Annotated[
    int | None, QueryParameter(ge=0, le=2**63 - 1, description="Nanoseconds since 1970.")
]


def raw_answer(value: Any, incomplete: list[str], after: Any = None) -> Response[Any]:
    """A JSON answer with two headers: what is missing from it, in words, and where to go on."""
    headers: dict[str, str] = {}
    if incomplete:
        headers[INCOMPLETE] = "; ".join(incomplete)[:500].encode("ascii", "replace").decode()
    if after is not None:
        headers[NEXT] = str(after)
    return Response(to_json(value), media_type="application/json", headers=headers)


async def live_runs(services: Services, incomplete: list[str]) -> tuple[list[LiveRun], bool]:
    """What control holds, and whether it answered; notes it when it did not."""
    try:
        return await services.controls.runs(), True
    except ControlAway:
        incomplete.append("control does not answer: what can be halted is unknown")
        return [], False


async def live_run(
    services: Services, run_id: str, incomplete: list[str]
) -> tuple[LiveRun | None, bool]:
    """The same for one run."""
    try:
        return await services.controls.run(run_id), True
    except ControlAway:
        incomplete.append("control does not answer: whether it can be halted is unknown")
        return None, False


async def history_rows(
    services: Services, name: str, parameters: dict[str, Any], incomplete: list[str]
) -> list[dict[str, Any]]:
    """A query's rows; none, and a note, when the archive is away: what came by lately is here."""
    try:
        return await services.history.rows(name, parameters)
    except HistoryAway:
        incomplete.append("the archive does not answer: only the latest events are shown")
        return []


async def summaries(
    services: Services, filters: dict[str, Any], limit: int, incomplete: list[str]
) -> dict[str, RunSummary]:
    """The latest runs by id: stored ones, and those that came by."""
    begun = _unstored(services, services.tail.run_ids())  # before the store is asked
    rows = await history_rows(services, "runs", {**filters, "limit": limit}, incomplete)
    by_id = {row["run_id"]: row for row in rows}
    named = by_id.keys() | begun.keys() | set(services.live.run_ids())
    by_id |= await _rows_of(services, named - by_id.keys(), incomplete)
    found: dict[str, RunSummary] = {}
    for run_id in named:
        summary = services.live.summary(run_id, by_id.get(run_id), begun.get(run_id, ()))
        if summary is not None:
            found[run_id] = summary
    return found


def _unstored(services: Services, run_ids: Iterable[str]) -> dict[str, list[Seen]]:
    """What the store may lack of these runs; to be taken before it is asked for them, so that
    nothing falls in between."""
    live, tail = services.live, services.tail
    return {run_id: tail.of_run(run_id) for run_id in run_ids if not live.is_whole(run_id)}


async def _rows_of(
    services: Services, run_ids: Iterable[str], incomplete: list[str]
) -> dict[str, dict[str, Any]]:
    """The store's rows of runs whose beginning it may hold; none when it is known to be away."""
    wanted = sorted(run_id for run_id in run_ids if not services.live.is_whole(run_id))
    found: dict[str, dict[str, Any]] = {}
    for at in range(0, 0 if incomplete else len(wanted), RUNS_MAX):
        parameters = {"run_ids": wanted[at : at + RUNS_MAX], "limit": RUNS_MAX}
        for row in await history_rows(services, "runs", parameters, incomplete):
            found[row["run_id"]] = row
    return found


async def board_lines(
    services: Services, filters: dict[str, Any], limit: int, incomplete: list[str]
) -> list[RunLine]:
    """Every run that is live, and the latest of all others."""
    known = await summaries(services, filters, limit, incomplete)
    live, answers = await live_runs(services, incomplete)
    others = [run.record.run_id for run in live if run.record.run_id not in known]
    unstored = _unstored(services, others)
    rows = await _rows_of(services, others, incomplete)
    for run_id in others:
        summary = services.live.summary(run_id, rows.get(run_id), unstored.get(run_id, ()))
        if summary is not None:
            known[run_id] = summary
    return board.join(known, live, services.world.now_ns(), answers)


async def full_run_id(services: Services, run_id: str) -> str:
    """The one run whose id begins so. Raises BadRequest, NotThere, Ambiguous with candidates."""
    check_id(run_id, "run id")
    if is_uuid7(run_id):
        return run_id
    if services.tail.of_run(run_id):
        return run_id
    found = {known for known in services.live.run_ids() if known.startswith(run_id)}
    found |= set(services.tail.run_ids(run_id))
    live, _ = await live_runs(services, [])
    found |= {run.record.run_id for run in live if run.record.run_id.startswith(run_id)}
    parameters = {"prefix": run_id, "limit": CANDIDATES_MAX + 1}
    found |= {row["run_id"] for row in await history_rows(services, "find_run", parameters, [])}
    if run_id in found:
        return run_id
    if not found:
        raise NotThere(
            f"no run's id begins with {run_id!r}", "`checkrein ps` lists the runs.", "unknown_run"
        )
    if len(found) > 1:
        shown = sorted(found)[:CANDIDATES_MAX]
        more = " and more" if len(found) > CANDIDATES_MAX else ""
        raise Ambiguous(
            f"{len(found)} runs begin with {run_id!r}: {', '.join(shown)}{more}",
            "Give more of the id.",
            "ambiguous_run",
        )
    return found.pop()


def check_id(text: str, what: str) -> None:
    if not _ID.fullmatch(text):
        raise BadRequest(
            f"{text[:80]!r} is no {what}", "Ids are 1 to 200 printable ASCII characters."
        )


def words(text: str) -> frozenset[str]:
    """A comma-separated parameter."""
    return frozenset(part.strip() for part in text.split(",") if part.strip())
