"""What people are asked before a call is made, what they must look at, and their word on it."""

from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from checkrein.bus.approvals import (
    Acknowledge,
    Approval,
    Decide,
    Decided,
    DecidedOne,
    Escalation,
    GateQuery,
)
from checkrein.server.api.problems import BadRequest, NotThere, Problem, Refused
from checkrein.server.api.roles import who
from checkrein.server.api.routes.common import API, Limit
from checkrein.server.api.services import Services
from checkrein.server.api.shapes import (
    AcknowledgeBody,
    ApprovalLine,
    DecidedLine,
    DecisionBody,
    DecisionsBody,
    EscalationLine,
)

OPERATOR = "operator"
NAME_CHARS_MAX = 200
_DO = "GET /api/v1/approvals/ID says how it stands."

All = Annotated[bool, QueryParameter(name="all", description="Those that are done, too.")]


@get(f"{API}/approvals", operation_id="listApprovals")
async def list_approvals(
    services: NamedDependency[Services], every: All = False, limit: Limit = 100,
    agent: FromQuery[str] = "", run_id: FromQuery[str] = "",
) -> list[ApprovalLine]:  # fmt: skip
    """What waits for an answer, the newest first; with `all`, what was decided of late, too."""
    found = await services.controls.approvals(GateQuery(all=every, limit=1000))
    return [
        approval_line(one) for one in found
        if agent in ("", one.agent) and run_id in ("", one.run_id)
    ][:limit]  # fmt: skip


@get(f"{API}/approvals/{{approval_id:str}}", operation_id="getApproval")
async def get_approval(
    services: NamedDependency[Services], approval_id: FromPath[str]
) -> ApprovalLine:
    """One approval as it stands."""
    return await _one(services, approval_id)


@post(f"{API}/approvals/{{approval_id:str}}/decision", operation_id="decideApproval",
      status_code=200)  # fmt: skip
async def decide(
    services: NamedDependency[Services], approval_id: FromPath[str],
    data: JSONBody[DecisionBody], request: Request[Any, Any, Any],
) -> ApprovalLine:  # fmt: skip
    """Approves or denies, durably. 409 with the reason when it was decided, used or withdrawn
    already, has expired, is for another action, or when the caller may not decide it."""
    edit = data.arguments is not msgspec.UNSET
    decided = await services.controls.decide(
        Decide(
            decision=data.decision, by=_who(data.by, request), ids=[approval_id[:NAME_CHARS_MAX]],
            reason=data.reason, digest=data.digest, edit=edit,
            arguments=data.arguments if edit else None, for_s=data.for_s, raised=data.raised,
        )
    )  # fmt: skip
    one = _only(decided)
    if not one.ok:
        raise _problem(one, "approval", approval_id)
    return await _one(services, one.id)


@post(f"{API}/approvals/decisions", operation_id="decideApprovals", status_code=200)
async def decide_many(
    services: NamedDependency[Services], data: JSONBody[DecisionsBody],
    request: Request[Any, Any, Any],
) -> list[DecidedLine]:  # fmt: skip
    """Approves or denies several at once, and says of each what became of it."""
    decided = await services.controls.decide(
        Decide(
            decision=data.decision, by=_who(data.by, request), ids=data.ids, agent=data.agent,
            tool=data.tool, rule=data.rule, reason=data.reason, for_s=data.for_s,
        )
    )  # fmt: skip
    return _lines(decided)


@get(f"{API}/escalations", operation_id="listEscalations")
async def list_escalations(
    services: NamedDependency[Services], every: All = False, limit: Limit = 100
) -> list[EscalationLine]:
    """What waits for somebody to take note, the newest first; with `all`, the others, too."""
    found = await services.controls.escalations(GateQuery(all=every, limit=limit))
    return [escalation_line(one) for one in found]


@post(f"{API}/escalations/{{escalation_id:str}}/acknowledge", operation_id="acknowledge",
      status_code=200)  # fmt: skip
async def acknowledge(
    services: NamedDependency[Services], escalation_id: FromPath[str],
    data: JSONBody[AcknowledgeBody], request: Request[Any, Any, Any],
) -> EscalationLine:  # fmt: skip
    """Somebody has taken note, and answers for it from now on. Stops its clock, durably."""
    by = _who(data.by, request)
    said = Acknowledge(ids=[escalation_id[:NAME_CHARS_MAX]], by=by, note=data.note)
    one = _only(await services.controls.acknowledge(said))
    if not one.ok:
        raise _problem(one, "escalation", escalation_id)
    found = await services.controls.escalations(GateQuery(ids=[one.id]))
    if not found:
        raise NotThere(f"no escalation {one.id}", "GET /api/v1/escalations lists them.")
    return escalation_line(found[0])


async def _one(services: Services, approval_id: str) -> ApprovalLine:
    found = await services.controls.approvals(GateQuery(ids=[approval_id[:NAME_CHARS_MAX]]))
    if not found:
        raise _not_there(approval_id)
    return approval_line(found[0])


def approval_line(approval: Approval) -> ApprovalLine:
    return msgspec.convert(approval, ApprovalLine, from_attributes=True)


def escalation_line(escalation: Escalation) -> EscalationLine:
    return msgspec.convert(escalation, EscalationLine, from_attributes=True)


def _who(by: str, request: Request[Any, Any, Any]) -> str:
    """The token's own name; only who holds the server's first token may say who it was."""
    caller = who(request.scope)
    if not caller.owner:
        return caller.name
    if len(by) > NAME_CHARS_MAX:
        raise BadRequest(f"`by` is longer than {NAME_CHARS_MAX} characters", "Name one person.")
    return by.strip() or OPERATOR


def _only(decided: Decided) -> DecidedOne:
    if decided.error or not decided.done:
        raise BadRequest(decided.error or "nothing was decided", _DO)
    return decided.done[0]


def _lines(decided: Decided) -> list[DecidedLine]:
    if decided.error:
        raise BadRequest(decided.error, _DO)
    return [
        DecidedLine(id=one.id, ok=one.ok, status=one.status, error=one.error)
        for one in decided.done
    ]


def _problem(one: DecidedOne, what: str, ident: str) -> Problem:
    if not one.status:
        return _not_there(ident, what)
    return Refused(f"{what} {one.id}: {one.error}", _DO, f"{what}_{one.status}")


def _not_there(ident: str, what: str = "approval") -> NotThere:
    return NotThere(f"no {what} {ident[:80]!r}", f"GET /api/v1/{what}s?all=true lists them.")


ROUTES = [
    list_approvals, get_approval, decide, decide_many, list_escalations, acknowledge,
]  # fmt: skip
