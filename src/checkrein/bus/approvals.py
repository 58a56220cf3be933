"""What travels about approvals and escalations: a holder's question, an operator's word.

    ask.<session>        holder -> control, request    `Ask` or `Raise`      -> `Asked`
    ctl.approvals        api -> control, request       `GateQuery`           -> list of `Approval`
    ctl.decide           api -> control, request       `Decide`              -> `Decided`
    ctl.escalations      api -> control, request       `GateQuery`           -> list of `Escalation`
    ctl.acknowledge      api -> control, request       `Acknowledge`         -> `Decided`

Asking is level-triggered: whoever waits asks the same thing again every few seconds and whenever an
order of verb `approve` or `deny` tells it to, and gets what is known by now. Times are ns since
1970 by control's clock (`_at`), or seconds (`_s`).
"""

from typing import Any, Literal

import msgspec

from checkrein.bus.messages import MessageError

ARGUMENT_BYTES_MAX = 200 * 1024
"""Arguments that take more are not asked about: nobody could read them."""

ApprovalStatus = Literal["open", "approved", "used", "denied", "expired", "withdrawn"]
AskedStatus = Literal[
    "open", "approved", "denied", "expired", "withdrawn", "acknowledged", "overdue", "unknown",
    "nobody",
]  # fmt: skip
EscalationStatus = Literal["open", "acknowledged", "overdue"]


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag="ask"):
    """May this call be made? `claim` names the one waiting call, and nobody else knows it: an
    approval is used up by the claim that first gets it. `digest` is `policy.digest.digest_of` of
    the action; control works it out for itself, and refuses one that differs. `words` is what the
    agent says of its call. `left`: nobody waits any more."""

    claim: str
    run_id: str
    task_id: str
    agent: str
    kind: str
    tool: str
    digest: str
    arguments: Any = None
    call_id: str = ""
    step: int = 0
    rule: str = ""
    reason: str = ""
    words: str = ""
    inputs: dict[str, Any] = {}
    pact: str = ""
    pact_version: str = ""
    undo: dict[str, str] = {}
    life_s: float = 900.0
    left: bool = False


class Raise(msgspec.Struct, frozen=True, kw_only=True, tag="raise"):
    """Somebody must look at this. `within_s` 0: no clock runs. `waited_s`: how long ago it was
    raised. Told again until it is answered; the same `escalation_id` is raised once."""

    escalation_id: str
    run_id: str
    task_id: str
    agent: str
    to: str = ""
    why: str = ""
    rule: str = ""
    tool: str = ""
    arguments: Any = None
    call_id: str = ""
    step: int = 0
    within_s: float = 0.0
    waited_s: float = 0.0
    hold: bool = False


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is known by now. `unknown`: control does not know this run (yet). `nobody`: there is no
    server. An approval carries control's signed order (`order`), made out to the asker's session
    with the approval, the digest and what was changed in its arguments."""

    claim: str
    status: AskedStatus
    approval_id: str = ""
    by: str = ""
    reason: str = ""
    left_s: float = 0.0
    edited: bool = False
    arguments: Any = None
    raised: dict[str, float] = {}
    order: bytes = b""


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """An approval as it stands, and as it is kept. `expires_at`: until when it can be decided, or,
    once approved, used. `similar`: the latest decisions about the same agent and tool. `epoch` is
    the one of the order that says what was decided. `grant_until`: until when all calls of the same
    agent, tool, rule and pact version are approved with it."""

    approval_id: str
    agent: str
    run_id: str
    tool: str
    arguments: Any
    rule: str
    reason: str
    asked_at: int
    expires_at: int
    undo: dict[str, str] = {}
    status: ApprovalStatus = "open"
    kind: str = "tool"
    task_id: str = ""
    room: str = ""
    environment: str = ""
    session: str = ""
    call_id: str = ""
    step: int = 0
    digest: str = ""
    words: str = ""
    inputs: dict[str, Any] = {}
    pact: str = ""
    pact_version: str = ""
    decided_by: str = ""
    decided_at: int = 0
    decision_reason: str = ""
    edited: bool = False
    edited_arguments: Any = None
    raised: dict[str, float] = {}
    grant_until: int = 0
    granted_by: str = ""
    """The approval whose grant decided this one."""
    used_at: int = 0
    used_run: str = ""
    claim: str = ""
    """The call that waits for it, or that used it up. Not to be shown."""
    joined: str = ""
    """The same call as it came to a gateway, which asked again. Not to be shown either."""
    epoch: int = 0
    similar: list[dict[str, Any]] = []


class Decide(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's word. Which: `ids`, or all open ones of `agent`, `tool`, `rule` (those given
    must fit). `by_kind` is what sort of credential speaks; an agent's is never accepted. `digest`:
    refused unless it is the approval's. `edit`: approve with `arguments` instead. `for_s`: and all
    like it for so long. `raised`: by how much budgets are raised."""

    decision: Literal["approve", "deny"]
    by: str
    by_kind: Literal["operator", "agent"] = "operator"
    ids: list[str] = []
    agent: str = ""
    tool: str = ""
    rule: str = ""
    reason: str = ""
    digest: str = ""
    edit: bool = False
    arguments: Any = None
    for_s: float = 0.0
    raised: dict[str, float] = {}


class DecidedOne(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    ok: bool
    status: str = ""
    error: str = ""


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each; `error` when nothing could be decided at all."""

    done: list[DecidedOne] = []
    error: str = ""


class Escalation(msgspec.Struct, frozen=True, kw_only=True):
    """A duty to look at something. `due_at` 0: no clock runs."""

    escalation_id: str
    agent: str
    run_id: str
    to: str
    why: str
    raised_at: int
    due_at: int = 0
    status: EscalationStatus = "open"
    rule: str = ""
    tool: str = ""
    arguments: Any = None
    call_id: str = ""
    step: int = 0
    hold: bool = False
    task_id: str = ""
    room: str = ""
    environment: str = ""
    session: str = ""
    acknowledged_by: str = ""
    acknowledged_at: int = 0
    note: str = ""
    overdue_at: int = 0


class Acknowledge(msgspec.Struct, frozen=True, kw_only=True):
    ids: list[str]
    by: str
    by_kind: Literal["operator", "agent"] = "operator"
    note: str = ""


class GateQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What `ctl.approvals` and `ctl.escalations` are asked: open ones first, the newest of each
    first; with `ids`, just these; without `all`, only what still waits for somebody."""

    ids: list[str] = []
    all: bool = False
    limit: int = 1000


_WORD: msgspec.msgpack.Decoder[Ask | Raise] = msgspec.msgpack.Decoder(Ask | Raise)


def word_of(data: bytes) -> Ask | Raise:
    """What a message on `ask.` says. Raises MessageError."""
    try:
        return _WORD.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"not an Ask or a Raise: {error}") from error


def checked(answer: Asked, key: bytes, session: str, digest: str) -> Asked:
    """The answer as control has signed it: an approval counts only with control's order, made out
    to this session and this very action; what was changed or raised is what stands in the order.
    Raises OrderRefused."""
    from checkrein.bus.orders import GARBAGE, OTHER_SESSION, OrderRefused, verify

    if answer.status != "approved":
        return answer
    # 1. It is control's.
    order = verify(answer.order, key)
    # 2. It is for us.
    if order.session != session:
        raise OrderRefused(OTHER_SESSION, f"for session {order.session}, this is {session}")
    # 3. It is a yes, to this action.
    said = order.arguments
    if order.verb != "approve" or said.get("decision") != "approved":
        raise OrderRefused(GARBAGE, f"the order says {order.verb}, not approve", order.command_id)
    if said.get("digest") != digest or said.get("approval_id") != answer.approval_id:
        raise OrderRefused(GARBAGE, "the approval is for another action", order.command_id)
    raised = said.get("raised") or {}
    return msgspec.structs.replace(
        answer, by=order.issued_by, reason=order.reason, edited=said.get("edited") is True,
        arguments=said.get("arguments"), raised=msgspec.convert(raised, dict[str, float]),
    )  # fmt: skip
