"""The role `gateway`: model and tool calls on their way, on a port and a Unix socket of its own.

It has one desk for each environment whose agents come by: a recorder and a link of their own. What
is wired here is `checkrein.gateway`; what is judged there is `checkrein.policy`, through the same
run, guard and recorder as in an agent's process.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import uvicorn

from checkrein.bus import subjects
from checkrein.bus.credentials import Keys
from checkrein.bus.identities import Contained, GatewayRecord
from checkrein.bus.messages import SessionGrant, SessionRecord, SessionRequest, encode
from checkrein.bus.nats import connect
from checkrein.bus.oidc import Verifier
from checkrein.bus.oidc_settings import settings_of as identity_settings
from checkrein.bus.types import Bus, BusError
from checkrein.gateway import provided
from checkrein.gateway.app import App
from checkrein.gateway.clean import CleanRecorder, clean_logs
from checkrein.gateway.fence import Fence
from checkrein.gateway.gate import Gate
from checkrein.gateway.hush import HushedRecorder
from checkrein.gateway.keybook import KeyBook
from checkrein.gateway.known import known_keys
from checkrein.gateway.link import GatewayLink
from checkrein.gateway.parts import PARTS, Part
from checkrein.gateway.runs import Desk, Runs
from checkrein.gateway.settings import SettingsError, settings_of
from checkrein.gateway.types import Caller
from checkrein.sdk.begin import place_of
from checkrein.sdk.client import Client
from checkrein.sdk.config import Config, Endpoint
from checkrein.sdk.links.shipping import RingShipping
from checkrein.sdk.links.types import Process
from checkrein.sdk.recorder import Recorder
from checkrein.sdk.redacting import use_names
from checkrein.sdk.run import Run
from checkrein.server.context import RoleContext
from checkrein.server.http_bounds import BoundedHttp
from checkrein.server.listening import listen, listen_unix

GRACE_S = 3
LIFE_S = 3600
ANSWER_S = 5.0
SAY_S = 5.0
NAME = "gateway"
_log = logging.getLogger(__name__)


async def run(context: RoleContext) -> None:
    """Serves until `context.stop`. Raises AddressTaken, SettingsError, KeysError, BusError."""
    served = _Gateway(context)
    with (
        listen(context.gateway, "--gateway") as tcp,
        listen_unix(served.socket_path) as unix,
        clean_logs(served.known),
    ):
        async with asyncio.TaskGroup() as group:
            await served.serve(group, [tcp, unix])


class _Gateway:
    """The parts, wired in a straight line."""

    def __init__(self, context: RoleContext) -> None:
        self._context = context
        self._settings = settings_of(context.config or {}, os.environ)
        self._installation = Keys.load_or_create(context.data / "keys", context.world)
        self._loop = asyncio.get_running_loop()
        self._sessions: dict[str, GatewayLink] = {}
        self.socket_path = context.data / NAME / "gateway.sock"
        self.fence = Fence(self._loop, self._fenced, self._shut_out)
        self.keys = KeyBook(context.world, self._contained, self._verify, self.fence.revoke)
        self._verifier = Verifier(identity_settings(context.config or {}), context.world)
        self.runs = Runs(self.keys, self._open_desk, self._settings.idle_s)
        self.known = known_keys(self._settings, os.environ)
        self.gate = Gate(
            self._settings, context.world, self.keys, self.runs, self.fence, self.known
        )  # fmt: skip
        use_names(self.gate.screens.names)

    async def serve(self, group: asyncio.TaskGroup, sockets: list[socket.socket]) -> None:
        context = self._context
        await self.keys.open(context.control_bus)
        self.gate.open_bucket = context.control_bus.bucket
        parts = [await open_part(self.gate) for open_part in PARTS]
        await self.runs.desk(_first_environment(context))
        beside = [
            group.create_task(self.keys.follow()), group.create_task(self.runs.sweep()),
            group.create_task(self._say_where()),
        ]  # fmt: skip
        app = App(self.gate, [route for part in parts for route in part.routes])
        server = _Server(
            uvicorn.Config(
                app, log_config=None, access_log=False, lifespan="off", server_header=False,
                date_header=False, proxy_headers=False,
                timeout_graceful_shutdown=GRACE_S, timeout_keep_alive=75, ws="none",
                http=BoundedHttp,
            )
        )  # fmt: skip
        serving = group.create_task(server.serve(sockets=sockets))
        context.ready()
        stopping = group.create_task(context.stop.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        server.should_exit = True
        await serving
        await self._close(parts)
        for task in beside:
            task.cancel()

    async def _close(self, parts: list[Part]) -> None:
        self.runs.end_all("the gateway was stopped")
        for part in parts:
            with suppress(Exception):
                await part.close()
        for desk in self.runs.desks():
            await asyncio.to_thread(desk.client.close)
        with suppress(BusError):
            bucket = await self._context.control_bus.bucket(subjects.BUCKET_GATEWAYS)
            for link in self._sessions.values():
                await bucket.delete(link.session)

    # -- desks --------------------------------------------------------------------------------

    async def _open_desk(self, environment: str) -> Desk:
        context = self._context
        folder = context.data / NAME / "recorders"
        recorder = Recorder(folder, context.world, agent=NAME, environment=environment)
        config = Config(
            agent=NAME, environment=environment, recorders=str(folder), url="off",
        )  # fmt: skip
        links: list[GatewayLink] = []

        def make(process: Process) -> GatewayLink:
            link = GatewayLink(
                process, partial(self._grant_from_thread, environment), self._connect,
                RingShipping(Path(folder), recorder), self.fence.changed,
            )  # fmt: skip
            links.append(link)
            return link

        record = HushedRecorder(CleanRecorder(recorder, self.known))
        client = Client(config, record, place_of, make, context.world, host=False)
        await asyncio.to_thread(_start, client)
        self._sessions[environment] = links[0]
        return Desk(client, links[0])

    def _grant_from_thread(
        self, environment: str, endpoint: Endpoint, request: SessionRequest
    ) -> SessionGrant:
        """What the api grants to others, a role writes for itself."""
        asked = asyncio.run_coroutine_threadsafe(self._grant(environment, request), self._loop)
        return asked.result(ANSWER_S)

    async def _grant(self, environment: str, request: SessionRequest) -> SessionGrant:
        context, keys = self._context, self._installation
        session = request.session or f"gateway-{context.world.uuid7()}"
        expires_at = context.world.now_ns() + LIFE_S * 1_000_000_000
        credential = keys.role(NAME)
        record = SessionRecord(
            session=session, kind="gateway", agents=request.agents, user=credential.user,
            expires_at=expires_at, environment=environment, host=request.host, pid=request.pid,
        )  # fmt: skip
        bucket = await context.control_bus.bucket(subjects.BUCKET_SESSIONS)
        await bucket.put(session, encode(record))
        return SessionGrant(
            session=session, bus_urls=list(context.bus_urls),
            control_urls=list(context.control_urls), jwt=credential.jwt, seed=credential.seed,
            control_key=keys.control_key, expires_at=expires_at,
        )  # fmt: skip

    async def _connect(self, grant: SessionGrant) -> tuple[Bus, Bus]:
        """The link has connections of its own, in its own thread."""
        credential = self._installation.role(NAME)
        name = f"gateway {grant.session}"
        prefix = subjects.inbox(grant.session)
        events = await connect(grant.bus_urls, credential, name=name, inbox_prefix=prefix)
        try:
            control = await connect(grant.control_urls, credential, name=name, inbox_prefix=prefix)
        except BaseException:
            await events.close()
            raise
        return events, control

    async def _say_where(self) -> None:
        """Tells all who look for a gateway, as long as this one serves."""
        context = self._context
        host, port = context.gateway
        while True:
            providers: list[str] = sorted(
                {str(each.protocol) for each in self._settings.models.values() if _has_key(each)}
            )
            with suppress(BusError):
                bucket = await context.control_bus.bucket(subjects.BUCKET_GATEWAYS)
                for link in self._sessions.values():
                    record = GatewayRecord(
                        session=link.session, url=f"http://{host}:{port}",
                        host=socket.gethostname(), pid=os.getpid(), at=context.world.now_ns(),
                        socket=str(self.socket_path), providers=providers,
                        mcp=sorted(self._settings.mcp),
                    )  # fmt: skip
                    await bucket.put(link.session, encode(record))
            await context.world.sleep(SAY_S)

    async def _verify(self, token: str) -> Caller | None:
        return await provided.caller_of(self._verifier, self.keys, token)

    # -- what the fence tells -----------------------------------------------------------------

    def _fenced(self, run: Run, cut: int, open_calls: int) -> None:
        desk = self.runs.desk_of(run)
        if desk is not None:
            desk.link.fence_reported(run, cut, open_calls)
        if run.hold.halted:
            self.runs.halted(run)

    def _contained(self, agent: str, record: Contained | None) -> None:
        before = self.fence.contained.get(agent)
        self.gate.contain(agent, record)
        if record is None and before is not None:
            for link in self._sessions.values():
                link.released_reported(agent, before.command_id)

    def _shut_out(self, agent: str, record: Contained, cut: int) -> None:
        for link in self._sessions.values():
            link.contained_reported(agent, record.command_id, cut)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the process that runs the role has that."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _first_environment(context: RoleContext) -> str:
    """The environment whose desk is open from the start."""
    return str((context.config or {}).get("environment") or "development")


def _start(client: Client) -> None:
    client.start()
    client.link.wait_settled(ANSWER_S)


def _has_key(upstream: object) -> bool:
    try:
        return bool(upstream.key(os.environ))  # type: ignore[attr-defined] # an Upstream
    except SettingsError:
        return False
