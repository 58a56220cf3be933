"""Events by filter, and long texts by their hash."""

import re
from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from checkrein.server.api.hub import Filter
from checkrein.server.api.live import merged
from checkrein.server.api.problems import BadRequest, NotThere
from checkrein.server.api.routes.common import (
    API,
    EventLimit,
    Moment,
    history_rows,
    raw_answer,
    words,
)
from checkrein.server.api.services import Services
from checkrein.server.api.tail import Seen

_HASH = re.compile(r"[0-9a-f]{64}")


@get(f"{API}/events", operation_id="listEvents")
async def list_events(
    services: NamedDependency[Services],
    types: FromQuery[str] = "",
    agent: FromQuery[str] = "",
    room: FromQuery[str] = "",
    run_id: FromQuery[str] = "",
    task_id: FromQuery[str] = "",
    since: Moment = None,
    until: Moment = None,
    limit: EventLimit = 200,
    after: FromQuery[str] = "",
) -> Response[list[dict[str, Any]]]:
    """Events that fit all that is given, in order of time: `limit` of those in the store, and when
    these are all, those of this moment too. When there are more, the header Checkrein-Next holds
    the `after` of the next page. `types` takes several, separated by commas; times are nanoseconds
    since 1970."""
    wanted = Filter(types=words(types), agent=agent, room=room, run_id=run_id, task_id=task_id)

    def fits(seen: Seen) -> bool:
        return (
            wanted.wants(seen)
            and (since is None or seen.head.ts >= since)
            and (until is None or seen.head.ts < until)
        )

    unstored = services.tail.where(fits)
    incomplete: list[str] = []
    parameters = {
        "types": sorted(wanted.types) or None, "agent": agent, "room": room, "run_id": run_id,
        "task_id": task_id, "since": since, "until": until, "limit": limit, "after": after,
    }  # fmt: skip
    rows = await history_rows(services, "events", parameters, incomplete)
    following = rows[-1].get("position") if len(rows) >= limit else None
    found = rows if following is not None else merged(rows, unstored)
    plain = [{k: v for k, v in row.items() if k != "position"} for row in found]
    return raw_answer(plain, incomplete, following)


@get(f"{API}/contents/{{digest:str}}", operation_id="getContent")
async def get_content(
    services: NamedDependency[Services], digest: FromPath[str]
) -> Response[dict[str, Any]]:
    """One long text that events name by its SHA-256."""
    if not _HASH.fullmatch(digest):
        raise BadRequest(f"{digest[:80]!r} is no SHA-256", "Give 64 lower-case hex digits.")
    rows = await services.history.rows("content", {"hash": digest})
    if not rows:
        raise NotThere(f"no text of hash {digest}", "It may be past its retention.")
    text = "".join(row["text"] for row in rows)
    return raw_answer({"hash": digest, "text": text}, [])


ROUTES = [list_events, get_content]
