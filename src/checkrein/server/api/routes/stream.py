"""The live stream, as server-sent events."""

import re
from collections.abc import AsyncIterator
from functools import partial

from litestar import Request, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.response import Stream

from checkrein.server.api.hub import WATCHERS_MAX, Filter, Watcher
from checkrein.server.api.problems import BadRequest, Unready
from checkrein.server.api.routes.common import API, words
from checkrein.server.api.services import Services

_PLACE = re.compile(r"([0-9]{1,18}):(-?[0-9]{1,9})")


@get(f"{API}/stream", operation_id="stream", media_type="text/event-stream")
async def stream(
    request: Request[None, None, State],
    services: NamedDependency[Services],
    types: FromQuery[str] = "",
    agent: FromQuery[str] = "",
    room: FromQuery[str] = "",
    run_id: FromQuery[str] = "",
    task_id: FromQuery[str] = "",
    after: FromQuery[str] = "",
) -> Stream:
    """Events as they happen. Each has an id, `POSITION:INDEX` in the stream; sent back as
    Last-Event-ID (or `after`) the stream goes on from there. `event: hello` comes first; `event:
    skipped` says how much is left out when a reader is too slow, or what is no longer kept."""
    place = _place(request.headers.get("last-event-id", "") or after)
    if len(services.hub.watchers) >= WATCHERS_MAX:
        raise Unready(f"{WATCHERS_MAX} watch already", "Close one, or ask again later.")
    wanted = Filter(types=words(types), agent=agent, room=room, run_id=run_id, task_id=task_id)
    watcher = Watcher(wanted, place or (0, -1))
    watcher.notice("hello", {"position": services.hub.position})
    if place is None:
        services.hub.join(watcher)
    else:
        services.spawn(partial(services.follower.catch_up, watcher, place))
    return Stream(
        _chunks(services, watcher),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _chunks(services: Services, watcher: Watcher) -> AsyncIterator[bytes]:
    try:
        async for chunk in watcher.chunks(services.beat_s):
            yield chunk
    finally:
        services.hub.leave(watcher)


def _place(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    found = _PLACE.fullmatch(text)
    if found is None:
        raise BadRequest(
            f"{text[:80]!r} is no place in the stream",
            "Send the last `id` you got: POSITION:INDEX.",
        )
    return int(found[1]), int(found[2])


ROUTES = [stream]
