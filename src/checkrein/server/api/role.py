"""The role `api`: HTTP for operators and clients, and the live view of what happens."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import uvicorn

from checkrein.bus import claims
from checkrein.bus.credentials import Keys
from checkrein.bus.types import BusError
from checkrein.server.api import token
from checkrein.server.api.app import build
from checkrein.server.api.door import Door
from checkrein.server.api.services import Services, Work, assemble
from checkrein.server.context import RoleContext
from checkrein.server.gateways import Gateways
from checkrein.server.http_bounds import BoundedHttp
from checkrein.server.listening import listen

GRACE_S = 3
RETRY_S = 1.0
_log = logging.getLogger(__name__)


async def run(context: RoleContext) -> None:
    """Serves on `context.http` until `context.stop`; open streams are ended, requests finished.
    Raises AddressTaken, TokenError, KeysError."""
    operator_token = token.load_or_create(context.data, context.world)
    keys = Keys.load_or_create(context.data / "keys", context.world)
    with listen(context.http, "--http") as listener:
        async with asyncio.TaskGroup() as group:
            await _serve(context, group, listener, operator_token, keys)


async def _serve(
    context: RoleContext,
    group: asyncio.TaskGroup,
    listener: socket.socket,
    operator_token: str,
    keys: Keys,
) -> None:
    beside: set[asyncio.Task[None]] = set()

    def spawn(work: Work) -> None:
        task = group.create_task(_guarded(work))
        beside.add(task)
        task.add_done_callback(beside.discard)

    services = assemble(
        context.world,
        context.data,
        (context.bus, context.control_bus),
        (context.bus_urls, context.control_urls),
        keys,
        spawn,
        partial(_push, keys, {"events": context.bus_urls, "control": context.control_urls}),
        context.config or {},
    )
    names = [context.http[0], *((context.config or {}).get("http_names") or [])]
    door = Door(
        build(services), operator_token, names, context.world, services.metrics,
        services.identify,
    )  # fmt: skip
    server = _Server(
        uvicorn.Config(
            door, log_config=None, access_log=False, lifespan="off", server_header=False,
            timeout_graceful_shutdown=GRACE_S, timeout_keep_alive=75, ws="none", http=BoundedHttp,
        )
    )  # fmt: skip
    await services.controls.listen()
    await services.tokens.open()
    await services.agents.open()
    await services.pacts.open()
    gateways = services.gateways = await Gateways.open(context.control_bus, context.world)
    services.has_gateway = context.has_gateway
    spawn(gateways.follow)
    spawn(services.tokens.follow)
    spawn(services.agents.follow)
    spawn(services.revoking.follow)
    spawn(services.revoking.work)
    for bus in (context.bus, context.control_bus):
        bus.on_connection(services.revoking.again)
    spawn(services.pacts.levels.follow)
    spawn(partial(_follow, services))
    serving = group.create_task(server.serve(sockets=[listener]))
    context.ready()
    stopping = group.create_task(context.stop.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    services.hub.close()
    server.should_exit = True
    await serving
    for task in list(beside):
        task.cancel()


async def _push(
    keys: Keys, urls: Mapping[str, Sequence[str]], server: str, revocations: Mapping[str, int]
) -> None:
    await claims.push(keys, urls[server], revocations)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the process that runs the role has that."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _follow(services: Services) -> None:
    """Follows the stream for as long as the role works, beginning anew when the bus fails."""
    while True:
        try:
            await services.follower.run()
        except BusError as error:
            _log.warning("following the stream stopped, trying again: %s", error)
            await asyncio.sleep(RETRY_S)


async def _guarded(work: Work) -> None:
    """What runs beside the requests takes nothing down with it."""
    try:
        await work()
    except Exception:
        _log.exception("work beside the requests failed")
