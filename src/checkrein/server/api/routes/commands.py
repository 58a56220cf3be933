"""Commands and what became of them."""

import re
from typing import Annotated, Any

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from checkrein.bus.messages import CommandRequest
from checkrein.server.api.problems import BadRequest, NotThere
from checkrein.server.api.roles import who
from checkrein.server.api.routes.common import API, Limit, full_run_id
from checkrein.server.api.services import Services
from checkrein.server.api.shapes import CommandBody, CommandLine, command_line
from checkrein.world import is_uuid7

WAIT_MS_MAX = 30_000
REASON_CHARS_MAX = 2_000
NAME_CHARS_MAX = 200
_TARGET = re.compile(r"(agent|run|room|task):(.+)", re.DOTALL)
_DO_TARGET = "Name `agent:NAME`, `run:ID`, `room:NAME`, `task:ID` or `all`."

WaitMs = Annotated[int, QueryParameter(ge=0, le=WAIT_MS_MAX)]


@post(f"{API}/commands", operation_id="giveCommand", status_code=200)
async def give(
    services: NamedDependency[Services],
    request: Request[Any, Any, Any],
    data: JSONBody[CommandBody],
) -> CommandLine:
    """Orders, and answers with the receipts that came within `wait_ms`. What is not confirmed says
    so: `confirmed` is "" until somebody outside the agent has seen it."""
    _check(data)
    target = await _resolved(services, data.target)
    state = await services.controls.command(
        CommandRequest(
            verb=data.verb, target=target, reason=data.reason, issued_by=who(request.scope).name,
            arguments=data.arguments, wait_ms=data.wait_ms,
            command_id=data.command_id or services.world.uuid7(),
        )
    )  # fmt: skip
    services.metrics.count("checkrein_commands_total", labels=(("verb", data.verb),))
    return command_line(state)


@get(f"{API}/commands", operation_id="listCommands")
async def list_commands(
    services: NamedDependency[Services], limit: Limit = 100
) -> list[CommandLine]:
    """The commands given lately, newest first."""
    return [command_line(state) for state in await services.controls.commands(limit)]


@get(f"{API}/commands/{{command_id:str}}", operation_id="getCommand")
async def get_command(
    services: NamedDependency[Services], command_id: FromPath[str], wait_ms: WaitMs = 0
) -> CommandLine:
    """One command as it stands; with `wait_ms`, as soon as something about it changes."""
    if not is_uuid7(command_id):
        raise BadRequest(f"{command_id[:80]!r} is no command id", "It is a UUIDv7.")
    state = await services.controls.settled(command_id, wait_ms / 1000)
    if state is None:
        raise NotThere(f"no command {command_id}", "GET /api/v1/commands lists them.")
    return command_line(state)


def _check(body: CommandBody) -> None:
    if not body.reason.strip() or len(body.reason) > REASON_CHARS_MAX:
        raise BadRequest(
            f"`reason` needs 1 to {REASON_CHARS_MAX} characters",
            "Say why: it is shown to the agent's owner and kept in the audit log.",
        )
    if not 0 <= body.wait_ms <= WAIT_MS_MAX:
        raise BadRequest(f"`wait_ms` is 0 to {WAIT_MS_MAX}", "Ask again for what comes later.")
    if body.command_id and not is_uuid7(body.command_id):
        raise BadRequest("`command_id` is no UUIDv7", "Leave it out to have one made.")
    if body.verb == "probe":
        raise BadRequest("`probe` is asked by the control role itself", "See `can_halt` of a run.")


async def _resolved(services: Services, target: str) -> str:
    """The target with the whole id of a run. Raises BadRequest, NotThere, Ambiguous."""
    if target == "all":
        return target
    found = _TARGET.fullmatch(target)
    if found is None or len(target) > NAME_CHARS_MAX:
        raise BadRequest(f"{target[:80]!r} is no target", _DO_TARGET, "bad_target")
    kind, name = found.groups()
    if kind != "run":
        return target
    return f"run:{await full_run_id(services, name)}"


ROUTES = [give, list_commands, get_command]
