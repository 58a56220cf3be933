"""What all conversations of one gateway share: the way out, the pinned tools, the children."""

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass

import aiohttp

from checkrein.gateway.egress import Egress
from checkrein.gateway.gate import Gate
from checkrein.gateway.mcp import child as children
from checkrein.gateway.mcp.catalogue import Catalogue
from checkrein.gateway.mcp.child import Child
from checkrein.gateway.mcp.conversation import Conversation
from checkrein.gateway.mcp.link import Link, SessionGone
from checkrein.gateway.mcp.link_http import HttpLink
from checkrein.gateway.mcp.pins import Pins
from checkrein.gateway.settings import McpServer
from checkrein.gateway.types import Refusal

CHILDREN_MAX = 64
SESSIONS_MAX = 1_000
AGENT_CHILDREN_MAX, AGENT_SESSIONS_MAX = 32, 500
"""Of one agent, so that others find room."""
IDLE_S = 1_800.0
SWEEP_S = 15.0


@dataclass
class Session:
    """A conversation that a client has begun by `initialize`, and whose it is."""

    server: str
    agent: str
    conversation: Conversation
    child: Child | None = None
    used_at: float = 0.0
    open: int = 0


@dataclass
class _Shared:
    """What requests that stand for themselves have in common: for each server, or (where it is a
    child) for each agent's run with it."""

    link: Link
    catalogue: Catalogue
    child: Child | None = None
    used_at: float = 0.0


class Desk:
    """On the gateway's loop."""

    def __init__(self, gate: Gate, pins: Pins, http: aiohttp.ClientSession) -> None:
        self.gate, self.pins, self._http = gate, pins, http
        self.sessions: dict[str, Session] = {}
        self._shared: dict[tuple[str, str, str], _Shared] = {}
        self._children: dict[Child, str] = {}
        self._starting = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    def server(self, name: str) -> McpServer:
        """Raises Refusal (404)."""
        found = self.gate.settings.mcp.get(name)
        if found is None:
            known = ", ".join(sorted(self.gate.settings.mcp)) or "none"
            raise Refusal(
                404, "no_route", f"no tool server {name[:100]!r} is set up: there is {known}",
                appeal="checkrein.toml names them, under [gateway.mcp.NAME].",
            )  # fmt: skip
        return found

    async def begin(self, server: McpServer, agent: str) -> Session:
        """A session of its own, not yet known by an id. Raises Refusal."""
        if len(self.sessions) >= SESSIONS_MAX:
            raise Refusal(503, "busy", f"over {SESSIONS_MAX} sessions are open")
        if sum(each.agent == agent for each in self.sessions.values()) >= AGENT_SESSIONS_MAX:
            raise Refusal(429, "busy", f"agent {agent} has {AGENT_SESSIONS_MAX} sessions open")
        child = await self._child(server, agent) if server.command else None
        link: Link = child.link if child is not None else self._link(server)
        catalogue = self.catalogue(server)
        if child is not None:
            child.link.list_changed = catalogue.outdated
        conversation = Conversation(self.gate, server, link, catalogue)
        return Session(server.name, agent, conversation, child, _now())

    def keep(self, session: Session) -> str:
        """From now on the session is known by the id that this returns."""
        ident = self.gate.world.nonce() + self.gate.world.nonce()
        self.sessions[ident] = session
        return ident

    def session(self, ident: str, server: str, agent: str) -> Session:
        """Raises Refusal (404), the same whether it is another's or nobody's."""
        found = self.sessions.get(ident)
        if found is None or found.server != server or found.agent != agent:
            raise SessionGone(server)
        if found.child is not None and found.child.link.broken:
            self.drop(ident)
            raise SessionGone(server)
        found.used_at = _now()
        return found

    def drop(self, ident: str) -> None:
        session = self.sessions.pop(ident, None)
        if session is not None:
            self.end(session)

    def end(self, session: Session) -> None:
        """Closes it beside whatever goes on."""
        task = asyncio.ensure_future(self._close(session))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def alone(self, server: McpServer, agent: str, run: str) -> Conversation:
        """For one request that stands for itself. Raises Refusal."""
        key = (server.name, agent, run) if server.command else (server.name, "", "")
        shared = self._shared.get(key)
        if shared is None or (shared.child is not None and shared.child.link.broken):
            async with self._starting:
                shared = self._shared.get(key)
                if shared is None or (shared.child is not None and shared.child.link.broken):
                    child = await self._child(server, agent) if server.command else None
                    link: Link = child.link if child is not None else self._link(server)
                    shared = _Shared(link, self.catalogue(server), child)
                    if child is not None:
                        child.link.list_changed = shared.catalogue.outdated
                    self._shared[key] = shared
        shared.used_at = _now()
        return Conversation(self.gate, server, shared.link, shared.catalogue)

    def catalogue(self, server: McpServer, known_as: str = "") -> Catalogue:
        name, served = known_as or server.name, self.gate.served_tools

        def spoken(agent: str, tools: frozenset[str]) -> None:
            served.take(agent, name, tools)

        return Catalogue(name, server.trust_changes, self.pins, self.gate.world, spoken)

    async def sweep(self) -> None:
        """Ends what has been idle. Until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            before = _now() - IDLE_S
            for ident, session in list(self.sessions.items()):
                if session.used_at < before and not session.open:
                    self.drop(ident)
            for key, shared in list(self._shared.items()):
                child = shared.child
                if child is not None and shared.used_at < before and not child.link.busy:
                    del self._shared[key]
                    await self._end_child(child)

    async def close(self) -> None:
        sessions, self.sessions = list(self.sessions.values()), {}
        await asyncio.gather(*(self._close(session) for session in sessions))
        await asyncio.gather(*self._closing, return_exceptions=True)
        for shared in self._shared.values():
            shared.catalogue.close()
        await asyncio.gather(*(child.close() for child in self._children))
        self._children.clear()
        await self._http.close()

    def _link(self, server: McpServer) -> HttpLink:
        return HttpLink(server, self._http, lambda: os.environ.get(server.key_env, "").strip())

    async def _child(self, server: McpServer, agent: str) -> Child:
        for child in [child for child in self._children if child.link.broken]:
            await self._end_child(child)
        if len(self._children) >= CHILDREN_MAX:
            raise Refusal(503, "busy", f"over {CHILDREN_MAX} tool servers run here already")
        if sum(each == agent for each in self._children.values()) >= AGENT_CHILDREN_MAX:
            why = f"{AGENT_CHILDREN_MAX} tool servers run here for agent {agent}"
            raise Refusal(429, "busy", why)
        child = await children.start(server)
        self._children[child] = agent
        return child

    async def _end_child(self, child: Child) -> None:
        self._children.pop(child, None)
        await child.close()

    async def _close(self, session: Session) -> None:
        with suppress(Exception):
            await session.conversation.close()
        if session.child is not None:
            await self._end_child(session.child)


def _now() -> float:
    return asyncio.get_running_loop().time()


def way_out(gate: Gate) -> aiohttp.ClientSession:
    """The connections to tool servers: to those that are set up, and nowhere else."""
    settings = gate.settings
    egress = Egress(
        [each.url for each in settings.mcp.values() if each.url], settings.allow_addresses
    )
    return aiohttp.ClientSession(
        connector=egress.connector(), auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "checkrein"},
    )  # fmt: skip
