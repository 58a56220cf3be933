"""Tools of MCP servers, as they are pinned, and a person's word on those that have changed."""

from typing import Any

import msgspec
from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from checkrein.bus import subjects
from checkrein.bus.messages import MessageError, decode, encode
from checkrein.bus.tool_pins import ToolPin
from checkrein.bus.types import Bucket, BusError, Entry, WrongRevision
from checkrein.server.api.problems import Ambiguous, NotThere, Unready
from checkrein.server.api.roles import who
from checkrein.server.api.routes.common import API
from checkrein.server.api.services import Services

NAME_CHARS_MAX = 300


class McpToolLine(msgspec.Struct, frozen=True, kw_only=True):
    """One tool. `state`: `trusted`, or `changed`: held until somebody approves. `what` names the
    parts that differ, `now` is the description as it is listed now, `digest` of the tool as it is
    listed now (of a trusted one, as it is trusted)."""

    server: str
    tool: str
    state: str
    digest: str
    description: str
    first_at: int
    approved_by: str = ""
    approved_at: int = 0
    what: list[str] = []
    now: str = ""
    changed_at: int = 0
    agent: str = ""
    run_id: str = ""


class McpToolBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/mcp-tools/approve. `digest`: of the change that was looked at, so that nothing
    newer is approved unseen; empty: whatever it is now."""

    server: str
    tool: str
    digest: str = ""


@get(f"{API}/mcp-tools", operation_id="listMcpTools")
async def list_mcp_tools(services: NamedDependency[Services]) -> list[McpToolLine]:
    """The tools of MCP servers that gateways have seen; first those that have changed."""
    try:
        bucket = await services.control_bus.bucket(subjects.BUCKET_MCP_TOOLS)
        pins = [_read(entry) for entry in await bucket.entries()]
    except BusError as error:
        raise _unready(error) from error
    lines = [_line(pin) for pin in pins if pin is not None]
    return sorted(lines, key=lambda line: (line.state != "changed", line.server, line.tool))


@post(f"{API}/mcp-tools/approve", operation_id="approveMcpTool", status_code=200)
async def approve_mcp_tool(
    services: NamedDependency[Services],
    request: Request[Any, Any, Any],
    data: JSONBody[McpToolBody],
) -> McpToolLine:
    """Trusts a tool as it is now: gateways show and call it again within a moment."""
    if max(len(data.server), len(data.tool)) > NAME_CHARS_MAX:
        raise _none(data)
    try:
        key = subjects.tool_key(data.server, data.tool)
        bucket = await services.control_bus.bucket(subjects.BUCKET_MCP_TOOLS)
        return _line(await _approve(services, bucket, key, data, who(request.scope).name))
    except UnicodeEncodeError:
        raise _none(data) from None
    except WrongRevision as error:
        raise Ambiguous(
            "the tool has changed again just now", "Look at it again: `checkrein mcp-tools`."
        ) from error
    except BusError as error:
        raise _unready(error) from error


async def _approve(
    services: Services, bucket: Bucket, key: str, data: McpToolBody, by: str
) -> ToolPin:
    """Raises NotThere, Ambiguous, BusError."""
    entry = await bucket.get(key)
    pin = _read(entry) if entry is not None else None
    if entry is None or pin is None:
        raise _none(data)
    if pin.changed is None:
        return pin
    if data.digest and data.digest != pin.changed.digest:
        raise Ambiguous(
            "the tool is not what you have looked at: it has changed again",
            "Look at it again: `checkrein mcp-tools`.",
        )
    now = services.world.now_ns()
    approved = pin.approved(by, now)
    await bucket.update(key, encode(approved), entry.revision)
    line = {
        "kind": "mcp_tool", "verb": "approve", "server": pin.server, "tool": pin.tool,
        "digest": approved.digest, "before": pin.digest, "by": by, "at": now,
    }  # fmt: skip
    await services.control_bus.append(
        "audit.mcp_tool", encode(line), message_id=services.world.uuid7()
    )
    return approved


def _read(entry: Entry) -> ToolPin | None:
    try:
        return decode(entry.value, ToolPin) if entry.value else None
    except MessageError:
        return None


def _line(pin: ToolPin) -> McpToolLine:
    change = pin.changed
    line = McpToolLine(
        server=pin.server, tool=pin.tool, state="trusted", digest=pin.digest,
        description=pin.description, first_at=pin.first_at, approved_by=pin.approved_by,
        approved_at=pin.approved_at,
    )  # fmt: skip
    if change is None:
        return line
    return msgspec.structs.replace(
        line, state="changed", digest=change.digest, what=change.what, now=change.description,
        changed_at=change.at, agent=change.agent, run_id=change.run_id,
    )  # fmt: skip


def _none(data: McpToolBody) -> NotThere:
    return NotThere(
        f"no tool {data.tool[:80]!r} of a server {data.server[:80]!r} was seen",
        "GET /api/v1/mcp-tools lists them.",
    )


def _unready(error: BusError) -> Unready:
    return Unready(f"the control bus does not answer: {error}", "Ask again in a moment.")


ROUTES = [list_mcp_tools, approve_mcp_tool]
