"""One client's conversation with one tool server: every message is judged here, either way.

From the client: only methods that are known go on, each after its caller was found good; calls of
tools (and reading of resources and prompts, which bring data in just the same) pass the guard.
From the server: lists are cut to what the pact allows, results are checked, and of its requests to
the client only those that its operator lets it make go on.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from checkrein.events import types as events
from checkrein.gateway.gate import Gate, said_in, said_in_meta
from checkrein.gateway.mcp import results, rpc
from checkrein.gateway.mcp.catalogue import Catalogue
from checkrein.gateway.mcp.link import Also, Link
from checkrein.gateway.mcp.listing import shown
from checkrein.gateway.mcp.pins import Seen
from checkrein.gateway.mcp.rpc import Message
from checkrein.gateway.models.screen import Screen
from checkrein.gateway.settings import McpServer
from checkrein.gateway.types import META, Announced, Refusal
from checkrein.gateway.visit import Visit
from checkrein.policy.types import Action, Verdict
from checkrein.sdk.asking import escalation_of
from checkrein.sdk.calls import ToolCall
from checkrein.sdk.run import Run

RUNNING_MAX = 256
ASKED_MAX = 256
JUDGED = frozenset({"tools/call", "resources/read", "prompts/get"})
KNOWN = JUDGED | {
    "initialize", "server/discover", "ping", "tools/list", "resources/list",
    "resources/templates/list", "resources/subscribe", "resources/unsubscribe", "prompts/list",
    "subscriptions/listen", "completion/complete", "logging/setLevel",
}  # fmt: skip
NOTES = frozenset(
    {"notifications/initialized", "notifications/roots/list_changed", "notifications/progress"}
)
SAMPLING = "sampling/createMessage"
_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
_UNASKED = "asked its client for a model's answer, which `sampling` of its settings would allow"


class Conversation:
    """`catalogue` and `link` may serve others besides."""

    def __init__(
        self, gate: Gate, server: McpServer, link: Link, catalogue: Catalogue
    ) -> None:  # fmt: skip
        self._gate, self._server, self.link, self.catalogue = gate, server, link, catalogue
        self._running: dict[rpc.Id, asyncio.Task[Any]] = {}
        self._cancelled: set[rpc.Id] = set()
        self._asked: set[rpc.Id] = set()

    # -- from the client ------------------------------------------------------------------------

    async def request(self, message: Message, headers: Mapping[str, str], also: Also) -> Message:
        """The answer to a client's request. Raises Refusal."""
        ident, method, task = message["id"], message["method"], asyncio.current_task()
        if method not in KNOWN:
            return rpc.error(ident, rpc.METHOD_NOT_FOUND, f"{method[:100]} does not pass here")
        if ident in self._running or len(self._running) >= RUNNING_MAX:
            raise Refusal(400, "bad_request", "this id is in use, or too many requests wait")
        if task is not None:
            self._running[ident] = task
        try:
            if method in JUDGED:
                return await self._judged(message, headers, also)
            async with self._admitted(headers, _said(message, headers)) as run:
                return await self._plain(message, run, also)
        except asyncio.CancelledError:
            if ident in self._cancelled and task is not None:
                task.uncancel()
                raise Refusal(499, "cancelled", "the client took the request back") from None
            raise
        finally:
            self._running.pop(ident, None)
            self._cancelled.discard(ident)

    async def notify(self, message: Message, headers: Mapping[str, str]) -> None:
        """A client's notification, or its answer to the server. Raises Refusal."""
        async with self._admitted(headers, _said(message, headers)):
            if rpc.is_answer(message):
                if message.get("id") in self._asked:
                    self._asked.discard(message["id"])
                    await self.link.send(message)
            elif message["method"] == "notifications/cancelled":
                self.cancel(rpc.params_of(message).get("requestId"))
            elif message["method"] in NOTES:
                await self.link.send(message)

    def cancel(self, ident: Any) -> None:
        """The client takes a request back; who does the work tells the server."""
        if isinstance(ident, str | int) and ident in self._running:
            self._cancelled.add(ident)
            self._running[ident].cancel()

    async def listen(self, headers: Mapping[str, str], also: Also, opened: Any) -> None:
        """What the server says of itself, until it ends or the run is cut off. Raises Refusal."""
        async with self._admitted(headers, said_in(headers)):
            await self.link.listen(self.filtering(also), opened)

    async def close(self) -> None:
        for task in list(self._running.values()):
            task.cancel()
        self.catalogue.close()
        await self.link.close()

    # -- from the server ------------------------------------------------------------------------

    def filtering(self, also: Also) -> Also:
        """`also`, for what of the server's words may go on."""

        async def filtered(message: Message) -> None:
            if await self._may_say(message):
                await also(message)

        return filtered

    async def _may_say(self, message: Message) -> bool:
        if not rpc.is_request(message):
            if message.get("method") == "notifications/tools/list_changed":
                self.catalogue.outdated()
            return not rpc.is_answer(message)
        if message["method"] == SAMPLING and not self._server.sampling:
            why = f"{self._server.name} {_UNASKED}"
            await self.link.send(rpc.error(message["id"], rpc.REFUSED, f"checkrein: {why}"))
            return False
        if len(self._asked) >= ASKED_MAX:
            return False
        self._asked.add(message["id"])
        return True

    # -- what passes, and how -------------------------------------------------------------------

    @asynccontextmanager
    async def _admitted(self, headers: Mapping[str, str], said: Announced) -> AsyncIterator[Run]:
        """Whoever may speak at all: a caller that is not shut out, of a run that is not halted. In
        flight meanwhile, so that it is cut with the run. Raises Refusal."""
        gate = self._gate
        caller = await gate.caller(headers)
        run, _ = await gate.runs.of(caller, said)
        if run.hold.halted:
            why = f"run {run.run_id} was halted: {run.hold.rein.reason or 'no reason given'}"
            raise Refusal(403, "halted", why, advice="TERMINAL", by=run.hold.rein.issued_by)
        gate.keys.check(caller)
        task = gate.fence.enter(run)
        try:
            yield run
        except asyncio.CancelledError:
            cut = gate.fence.taken(task)
            if cut is not None:
                raise cut from None
            raise
        finally:
            gate.fence.leave(run, task)

    async def _plain(self, message: Message, run: Run, also: Also) -> Message:
        """A request that is no action."""
        answer = await self.link.request(self._scrubbed(message), self.filtering(also))
        found = answer.get("result")
        if not isinstance(found, dict):
            return answer
        method = message["method"]
        if method == "tools/list":
            cursor = rpc.params_of(message).get("cursor")
            whole = cursor is None and not found.get("nextCursor")
            seen = await self.catalogue.page(found, (run.info.agent, run.run_id), whole)
            self._tell(run, [each for each in seen if each.news])
            free = [each.tool for each in seen if not self.catalogue.held(each)]
            found = found | {"tools": shown(free, run.seat.pact)}
            return answer | {"result": _private(found)}
        if method in ("initialize", "server/discover"):
            return answer | {"result": _private(_without_tasks(found))}
        return answer

    async def _judged(self, message: Message, headers: Mapping[str, str], also: Also) -> Message:
        async with self._gate.visit(headers, "mcp", _said(message, headers)) as visit:
            name, arguments = _action(message)
            screen = self._gate.screen_for(visit)
            if screen.active:
                arguments = screen.arguments(arguments)
            visit.facts |= {"kind": "tool", "name": name, "upstream": self._server.name}
            tool = None
            if message["method"] == "tools/call":
                tool = await self._tool(visit, message, name, arguments)
            call = await visit.begin_tool(
                name, arguments, known_tools=tuple(self.catalogue.tools) if tool else ()
            )
            try:
                answer = await self._called(visit, message, call, tool, screen, also)
                if screen.counts:
                    visit.facts["redacted"] = dict(screen.counts)
            except BaseException as error:
                visit.fail_tool(call, error)
                raise
            return answer

    async def _tool(self, visit: Visit, message: Message, name: str, arguments: Any) -> Seen | None:
        """The tool that is called, as it was pinned. Raises Refusal for one that is held."""
        run = visit.run
        tool = await self.catalogue.tool(
            name, self.link, message, (run.info.agent, run.run_id),
            lambda seen: self._tell(run, seen),
        )  # fmt: skip
        held = self.catalogue.held(tool) if tool is not None else ""
        if not held:
            return tool
        action = Action(kind="tool", name=name, arguments=arguments, call_id=visit.call_id)
        run.decided(action, _verdict("deny", "mcp.changed", held))
        raise Refusal(
            403, "changed", f"{held}: nobody may call it until a person has approved that",
            rule="mcp.changed", advice="ESCALATE", by="the gateway",
            appeal=f"`checkrein mcp-tools approve {self.catalogue.server} {name}` approves it.",
        )  # fmt: skip

    async def _called(
        self, visit: Visit, message: Message, call: ToolCall, tool: Seen | None, screen: Screen,
        also: Also,
    ) -> Message:  # fmt: skip
        """Makes the call that was allowed, and checks what comes back. Raises Refusal."""
        if message["method"] == "tools/call" and tool is None:
            raise Refusal(
                400, "denied", f"{self._server.name} has no tool {call.name[:100]}",
                rule="mcp.unknown", advice="TERMINAL",
            )  # fmt: skip
        definition = tool.tool if tool is not None else None
        schema = definition.get("inputSchema") if definition is not None else None
        outgoing = self._scrubbed(_with_arguments(message, call.arguments))
        answer = await self.link.request(outgoing, self.filtering(also), schema)
        if "error" in answer:
            told = answer["error"]
            text = str(told.get("message", "")) if isinstance(told, dict) else ""
            visit.fail_tool(call, RuntimeError(text or "the tool server answered with an error"))
            return answer
        self._refuse_sampling(answer)
        if message["method"] != "tools/call":
            clean = screen.result(answer["result"])
            visit.end_tool(call, clean)
            return answer | {"result": clean}
        found = results.checked(answer, definition, screen)
        action = Action(kind="tool", name=call.name, arguments=call.arguments, call_id=call.call_id)
        if found.wrong:
            why = f"what {call.name} returned may not pass: {found.wrong}"
            visit.run.decided(action, _verdict("deny", "mcp.result", why))
            raise Refusal(502, "bad_result", why, rule="mcp.result", advice="RETRYABLE")
        if found.orders:
            why = f"what {call.name} returned gives orders: {', '.join(found.orders)}"
            visit.run.decided(action, _verdict("steer", "mcp.orders", why))
        if found.error:
            visit.fail_tool(call, RuntimeError(found.error))
        else:
            visit.end_tool(call, found.value)
        if not (found.orders or call.guidance or found.result is not answer["result"]):
            return answer
        return answer | {"result": results.marked(found, call.name, call.guidance)}

    def _tell(self, run: Run, changed: list[Seen]) -> None:
        """Tells of tools that have just been found changed: in the record, and to a person."""
        for each in changed:
            name = each.tool["name"]
            run.decided(Action(kind="tool", name=name), _verdict("deny", "mcp.changed", each.news))
            why = (
                f"{each.news}; `checkrein mcp-tools` shows it, and `checkrein mcp-tools approve "
                f"{self.catalogue.server} {name}` lets it be called again"
            )
            question = escalation_of(run, why, "")
            run.record(events.EscalationRaised, escalation_id=question.claim, why=why)
            run.client.ask(question)

    def _scrubbed(self, message: Message) -> Message:
        """A request as it goes on: without what is meant for us, and without promising the server
        what it may not ask for."""
        params = rpc.params_of(message)
        found = dict(params)
        meta = params.get("_meta")
        if isinstance(meta, dict):
            found["_meta"] = {
                name: value for name, value in meta.items() if not name.startswith(META)
            }
            if not self._server.sampling and isinstance(meta.get(_CAPABILITIES), dict):
                found["_meta"][_CAPABILITIES] = _less(meta[_CAPABILITIES], "sampling")
        if message["method"] == "initialize" and isinstance(params.get("capabilities"), dict):
            dropped = ("tasks",) if self._server.sampling else ("sampling", "tasks")
            found["capabilities"] = _less(params["capabilities"], *dropped)
        return message | {"params": found} if params else message

    def _refuse_sampling(self, answer: Message) -> None:
        """A server of the newest revision asks its client in its answer. Raises Refusal."""
        found = answer.get("result")
        wanted = found.get("inputRequests") if isinstance(found, dict) else None
        if not isinstance(wanted, dict) or self._server.sampling:
            return
        for each in wanted.values():
            if isinstance(each, dict) and each.get("method") == SAMPLING:
                why = f"{self._server.name} {_UNASKED}"
                raise Refusal(403, "denied", why, rule="mcp.sampling")


def _action(message: Message) -> tuple[str, Any]:
    """What a request does, as the pact names it. Raises Refusal."""
    params, method = rpc.params_of(message), message["method"]
    if method == "tools/call":
        name, arguments = params.get("name"), params.get("arguments")
        if not isinstance(name, str) or not name or not isinstance(arguments, dict | None):
            raise Refusal(
                400, "bad_request", "a call names a tool, and its arguments are an object"
            )
        if "task" in params:
            raise Refusal(
                400, "bad_request", "calls whose result is fetched later do not pass here"
            )
        return name, arguments or {}
    return method, {name: value for name, value in params.items() if name != "_meta"}


def _with_arguments(message: Message, arguments: Any) -> Message:
    """What was judged is what goes out. Raises Refusal."""
    params = rpc.params_of(message)
    if not isinstance(arguments, dict):
        raise Refusal(500, "guard_error", "a guard has made arguments that are no object")
    if message["method"] == "tools/call":
        if "arguments" not in params and not arguments:
            return message
        return message | {"params": params | {"arguments": arguments}}
    meta = {"_meta": params["_meta"]} if "_meta" in params else {}
    return message | {"params": arguments | meta}


def _said(message: Message, headers: Mapping[str, str]) -> Announced:
    """What a message says of itself, in its `_meta` or in headers."""
    meta, said = rpc.meta_of(message), said_in(headers)
    if not any(name.startswith(META) for name in meta):
        return said
    inner = said_in_meta(meta)
    return msgspec.structs.replace(
        inner,
        run=inner.run or said.run,
        traceparent=inner.traceparent or said.traceparent,
        task_type=said.task_type,
    )


def _verdict(kind: Any, rule: str, reason: str) -> Verdict:
    return Verdict(kind=kind, guard="mcp", rule=rule, reason=reason, advice="ESCALATE")


def _less(value: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: inner for name, inner in value.items() if name not in names}


def _private(result: dict[str, Any]) -> dict[str, Any]:
    """What one agent is shown is cached for no other."""
    return result | {"cacheScope": "private"} if "cacheScope" in result else result


def _without_tasks(result: dict[str, Any]) -> dict[str, Any]:
    found = result.get("capabilities")
    return result | {"capabilities": _less(found, "tasks")} if isinstance(found, dict) else result
