"""The official MCP client: a tool of a server is judged before it is called, and the call says to a
gateway on its way which one it is, so that both record one action. A no is raised as `Denied`.

Frameworks that bring MCP tools to a model have begun the call already: then it is theirs, under the
name that they gave it, and only told of here.
"""

import inspect
from typing import Any

from checkrein.sdk import context, quiet
from checkrein.sdk.calls import ToolCall
from checkrein.sdk.instruments.patches import Patches
from checkrein.sdk.tool_call import open_tool
from checkrein.sdk.traceparent import header_of

RUN, CALL, STEP = "checkrein/run", "checkrein/call", "checkrein/step"
_JOINTS = "_-.:/"
"""What frameworks put between a server's name and its tool's."""


def apply(patches: Patches) -> None:
    patches.wrap("mcp.client.session", "ClientSession.call_tool", _call_tool)


def _call_tool(original: Any) -> Any:
    tells = "meta" in inspect.signature(original).parameters

    async def call_tool(
        self: Any, name: str, arguments: Any = None, *given: Any, **more: Any
    ) -> Any:
        outer = open_tool()
        known_as = outer.name if outer is not None and _is_same(outer.name, name) else name
        call = await ToolCall.abegin(known_as, {} if arguments is None else arguments, own=True)
        if call.changed:
            arguments = call.arguments
        if tells:
            more["meta"] = _announced(call.call_id or (outer.call_id if outer else ""), more)
        try:
            result = await original(self, name, arguments, *given, **more)
        except BaseException as error:
            call.fail(error)
            raise
        _ended(call, result)
        return result

    return call_tool


def _is_same(outer: str, name: str) -> bool:
    return outer == name or (outer.endswith(name) and outer[-len(name) - 1] in _JOINTS)


def _announced(call_id: str, more: dict[str, Any]) -> Any:
    """The `_meta` of the request with the call's ids. Never raises."""
    meta = more.get("meta")
    with quiet.quiet("instruments: announcing a tool call"):
        run = context.current()
        if call_id:
            return {
                **(meta or {}), RUN: run.run_id, CALL: call_id, STEP: str(run.step),
                "traceparent": header_of(run.task_id, run.run_id),
            }  # fmt: skip
    return meta


def _ended(call: ToolCall, result: Any) -> None:
    """Records what came back: the structured content, else the text. Never raises."""
    with quiet.quiet("instruments: a tool's result"):
        blocks = getattr(result, "content", None) or []
        text = "\n".join(text for b in blocks if isinstance(text := getattr(b, "text", None), str))
        if _one_of(result, "is_error", "isError"):
            call.fail(RuntimeError(text or "the tool failed"))
            return
        structured = _one_of(result, "structured_content", "structuredContent")
        call.end(text if structured is None else structured)


def _one_of(value: Any, *names: str) -> Any:
    """The first of these attributes that is there: releases differ in how they write them."""
    return next((getattr(value, name) for name in names if hasattr(value, name)), None)
