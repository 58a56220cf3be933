"""`/mcp-stdio/NAME`: what `checkrein mcp` is to the gateway. Both directions of one conversation in
one request: the proxy has started the server and sits between it and its client, and every line of
either comes here to be judged before it goes on.

Lines, each with one letter before it that says whose it is: `c` the client's, `s` the server's;
from here to the proxy, whom it is for. `x` is a word to the proxy itself, which then ends.
"""

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from checkrein.gateway.gate import Gate
from checkrein.gateway.mcp import rpc
from checkrein.gateway.mcp.conversation import Conversation
from checkrein.gateway.mcp.desk import Desk
from checkrein.gateway.mcp.pipe import PipeLink
from checkrein.gateway.mcp.rpc import Message
from checkrein.gateway.settings import McpServer
from checkrein.gateway.types import Cut, Refusal
from checkrein.gateway.wire import Answer, Request

PREFIX = "/mcp-stdio"
TUNNELS_MAX, AGENT_TUNNELS_MAX = 500, 250
AGENT_NAMES_MAX = 64
"""How many tool servers an agent may name: what each lists is kept for good."""
TASKS_MAX = 512
NAME_CHARS_MAX = 100
TIMEOUT_S = 60.0
_LINE_MAX = rpc.MESSAGE_BYTES_MAX + 64
_log = logging.getLogger(__name__)


class Tunnels:
    """The tunnels that are open."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._open: dict[asyncio.Task[Any], str] = {}
        self._names: dict[str, set[str]] = {}

    async def handle(self, gate: Gate, request: Request, answer: Answer) -> None:
        """Raises Refusal."""
        caller = await gate.caller(request.headers)
        name = request.path.removeprefix(PREFIX).strip("/")
        if request.method != "POST" or not name or len(name) > NAME_CHARS_MAX:
            raise Refusal(404, "no_route", f"POST {PREFIX}/NAME is what `checkrein mcp` asks")
        if len(self._open) >= TUNNELS_MAX:
            raise Refusal(503, "busy", f"over {TUNNELS_MAX} of these are open")
        self._check_agent(caller.agent, name)
        task = asyncio.current_task()
        if task is not None:
            self._open[task] = caller.agent
        tunnel = _Tunnel(gate, self._desk, request, answer, name, caller.agent)
        try:
            await tunnel.serve()
        finally:
            if task is not None:
                self._open.pop(task, None)

    def _check_agent(self, agent: str, name: str) -> None:
        """Raises Refusal for an agent that would leave no room for others."""
        if sum(each == agent for each in self._open.values()) >= AGENT_TUNNELS_MAX:
            raise Refusal(429, "busy", f"agent {agent} has {AGENT_TUNNELS_MAX} of these open")
        names = self._names.setdefault(agent, set())
        if name not in names and len(names) >= AGENT_NAMES_MAX:
            raise Refusal(429, "busy", f"agent {agent} has named {AGENT_NAMES_MAX} tool servers")
        names.add(name)

    async def close(self) -> None:
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Tunnel:
    def __init__(
        self, gate: Gate, desk: Desk, request: Request, answer: Answer, name: str, agent: str
    ) -> None:
        server = McpServer(name=name, command=("",), timeout_s=TIMEOUT_S)
        self._request, self._answer = request, answer
        self._agent = agent
        self._served, self._known_as = gate.served_tools, f"{agent}/{name}"
        self._link = PipeLink(name, server.timeout_s, self._to_server)
        catalogue = desk.catalogue(server, self._known_as)
        self._link.list_changed = catalogue.outdated
        self._conversation = Conversation(gate, server, self._link, catalogue)
        self._link.stray = self._conversation.filtering(self._to_client)
        self._tasks: set[asyncio.Future[None]] = set()

    async def serve(self) -> None:
        """Until either end has hung up."""
        head = {"content-type": "application/octet-stream", "cache-control": "no-store"}
        await self._answer.begin(200, head)
        await self._answer.piece(b"x\n")
        try:
            await self._read()
        except asyncio.CancelledError:
            await self._last(b"xthe gateway stops\n")
            raise
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._conversation.close()
            self._served.drop(self._agent, self._known_as)
            await self._last(b"")

    async def _last(self, word: bytes) -> None:
        if not self._answer.ended:
            with suppress(OSError, RuntimeError):
                await self._answer.end(word)

    async def _read(self) -> None:
        rest = bytearray()
        async for piece in self._request.pieces():
            rest += piece
            if b"\n" in piece:
                *lines, last = rest.split(b"\n")
                rest = bytearray(last)
                for line in lines:
                    await self._line(bytes(line))
            if len(rest) > _LINE_MAX:
                await self._last(b"xa line is over %d bytes\n" % rpc.MESSAGE_BYTES_MAX)
                return

    async def _line(self, line: bytes) -> None:
        whose, data = line[:1], line[1:]
        if not data.strip():
            return
        try:
            if whose == b"s":
                await self._link.took(data)
            elif whose == b"c":
                await self._of_client(data)
        except Refusal as refusal:
            _log.info("%s, line of %r: %s", self._request.path, whose, refusal.reason)
            if whose == b"c":
                await self._to_client(rpc.refused(None, refusal))

    async def _of_client(self, data: bytes) -> None:
        message = rpc.read(data)
        if not rpc.is_request(message):
            await self._conversation.notify(message, self._request.headers)
        elif len(self._tasks) >= TASKS_MAX:
            busy = Refusal(503, "busy", "too many requests wait")
            await self._to_client(rpc.refused(message["id"], busy))
        else:
            task = asyncio.ensure_future(self._answered(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answered(self, message: Message) -> None:
        try:
            found = await self._conversation.request(
                message, self._request.headers, self._to_client
            )
        except Refusal as refusal:
            if refusal.code == "cancelled":
                return
            to_agent = message["method"] == "tools/call" and not isinstance(refusal, Cut)
            if to_agent and refusal.code in rpc.FOR_THE_AGENT:
                found = rpc.refused_to_agent(message["id"], refusal)
            else:
                found = rpc.refused(message["id"], refusal)
        except Exception:
            _log.exception("a request of %s failed", self._request.path)
            failed = Refusal(500, "guard_error", "the gateway failed, so no: see its log")
            found = rpc.refused(message["id"], failed)
        await self._to_client(found)

    def _to_client(self, message: Message) -> Awaitable[None]:
        return self._say(b"c" + rpc.encode(message) + b"\n")

    def _to_server(self, line: bytes) -> Awaitable[None]:
        return self._say(b"s" + line + b"\n")

    async def _say(self, line: bytes) -> None:
        if not self._answer.ended:
            await self._answer.piece(line)
