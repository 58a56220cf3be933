"""`/mcp/NAME`: streamable HTTP as MCP clients speak it, in front of one tool server.

POST is one message: a request is answered in one piece or as a stream, anything else is only taken.
GET is the server's own stream, DELETE ends a session. Revisions up to 2025-11-25 begin a session by
`initialize`, and its id is ours; from 2026-07-28 on each request stands for itself.
"""

import asyncio
from functools import partial
from urllib.parse import urlsplit

from checkrein.gateway.gate import Gate
from checkrein.gateway.mcp import headers, rpc
from checkrein.gateway.mcp.conversation import Conversation
from checkrein.gateway.mcp.desk import Desk
from checkrein.gateway.mcp.link import SessionGone
from checkrein.gateway.mcp.reply import Reply
from checkrein.gateway.mcp.rpc import Message
from checkrein.gateway.settings import McpServer
from checkrein.gateway.types import RUN_HEADER, Caller, Refusal
from checkrein.gateway.wire import Answer, Request, first_of

PREFIX = "/mcp"


async def handle(desk: Desk, gate: Gate, request: Request, answer: Answer) -> None:
    """Raises Refusal."""
    caller = await gate.caller(request.headers)
    _check_origin(request)
    server = desk.server(request.path.removeprefix(PREFIX).strip("/"))
    match request.method:
        case "POST":
            await _post(desk, server, caller, request, answer)
        case "GET":
            await _get(desk, server, caller, request, answer)
        case "DELETE":
            await request.body(0)
            desk.session(_session_id(request), server.name, caller.agent)
            desk.drop(_session_id(request))
            await answer.whole(204, b"", {})
        case other:
            raise Refusal(405, "bad_request", f"{other[:20]} is not understood here")


async def _post(
    desk: Desk, server: McpServer, caller: Caller, request: Request, answer: Answer
) -> None:
    message = rpc.read(await request.body(rpc.MESSAGE_BYTES_MAX))
    if rpc.is_request(message):
        modern = headers.is_modern(message)
        reply = Reply(answer, message["id"], modern)
        to_agent = message["method"] == "tools/call"
        work = partial(_work, desk, server, caller, request, message, reply)
        try:
            await first_of(work(), request.gone())
        except Refusal as refusal:
            await reply.refuse(refusal, to_agent)
        finally:
            reply.close()
        return
    if _is_alone(request):
        await answer.whole(202, b"", {})  # such a client cancels by hanging up, and says no more
        return
    session = desk.session(_session_id(request), server.name, caller.agent)
    await session.conversation.notify(message, request.headers)
    await answer.whole(202, b"", {})


async def _work(
    desk: Desk, server: McpServer, caller: Caller, request: Request, message: Message, reply: Reply
) -> None:
    """Answers a request. Raises Refusal."""
    headers.check(request.headers, message)
    if headers.is_modern(message):
        run = caller.run_id or request.headers.get(RUN_HEADER, "")
        conversation = await desk.alone(server, caller.agent, run)
        await _answered(conversation, message, request, reply)
    elif message["method"] == "initialize":
        await _begin(desk, server, caller, message, request, reply)
    else:
        ident = _session_id(request)
        session = desk.session(ident, server.name, caller.agent)
        session.open += 1
        try:
            await _answered(session.conversation, message, request, reply)
        except SessionGone:
            desk.drop(ident)
            raise
        finally:
            session.open -= 1


async def _answered(
    conversation: Conversation, message: Message, request: Request, reply: Reply
) -> None:
    await reply.end(await conversation.request(message, request.headers, reply.also))


async def _begin(
    desk: Desk, server: McpServer, caller: Caller, message: Message, request: Request, reply: Reply
) -> None:
    """A session, once the server has agreed to one."""
    session = await desk.begin(server, caller.agent)
    try:
        found = await session.conversation.request(message, request.headers, reply.also)
    except BaseException:
        desk.end(session)
        raise
    if "error" in found:
        desk.end(session)
        await reply.end(found)
    else:
        await reply.end(found, {"mcp-session-id": desk.keep(session)})


async def _get(
    desk: Desk, server: McpServer, caller: Caller, request: Request, answer: Answer
) -> None:
    await request.body(0)
    ident = _session_id(request)
    session = desk.session(ident, server.name, caller.agent)
    reply = Reply(answer, None)
    session.open += 1
    try:
        await first_of(
            session.conversation.listen(request.headers, reply.also, reply.open), request.gone()
        )
        if answer.begun and not answer.ended:
            await answer.end()
    except Refusal as refusal:
        await reply.refuse(refusal, to_agent=False)
    except asyncio.CancelledError:
        if answer.begun and not answer.ended:
            await answer.end()
        raise
    finally:
        reply.close()
        session.open -= 1


def _session_id(request: Request) -> str:
    """Raises Refusal for a request that has none and needs one."""
    found = request.headers.get(headers.SESSION_HEADER, "")
    if not found:
        raise Refusal(
            400, "bad_request", f"{headers.SESSION_HEADER} is missing: begin with `initialize`"
        )
    return found


def _is_alone(request: Request) -> bool:
    version = request.headers.get(headers.VERSION_HEADER, "")
    return bool(version) and version not in headers.HANDSHAKE_VERSIONS


def _check_origin(request: Request) -> None:
    """A page from elsewhere may not ask, whatever name leads here. Raises Refusal."""
    origin = request.headers.get("origin", "")
    if origin and urlsplit(origin).netloc != request.headers.get("host", ""):
        raise Refusal(403, "no_route", f"a page from {origin[:100]} may not ask here")
