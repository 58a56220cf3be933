"""Who may decide an approval, when, and how: the rules alone.

An approval is decided once, while it is open, by a person who is not the agent; a denial may still
come after an approval that nobody has used. Every refusal says what stands in the way.
"""

import math
import re

from checkrein.bus.approvals import ARGUMENT_BYTES_MAX, Acknowledge, Approval, Decide
from checkrein.bus.messages import encode
from checkrein.control.types import Limits
from checkrein.policy.accounts import is_shared

TEXT_MAX = 2_000
BUDGET_RULES = "budgets."
"""How the rules begin whose question is for a budget to be raised."""
UNPRICED = ".unpriced"
_BUDGET = re.compile(r"[a-z][a-z0-9_.]{0,39}")


def fault_of(request: Decide, limits: Limits) -> str:
    """Why nothing of this request can be decided, "" when it can."""
    fault = _fault_of_person(request.by, request.by_kind)
    if fault:
        return fault
    if not request.ids and not (request.agent or request.tool or request.rule):
        return "name the approvals, or an agent, a tool or a rule"
    if len(request.reason) > TEXT_MAX:
        return f"`reason` is longer than {TEXT_MAX} characters"
    if request.decision == "deny":
        if not request.reason.strip():
            return "a denial needs a reason: the agent reads it"
        if request.edit or request.for_s or request.raised:
            return "only an approval can change arguments, hold for a while or raise a budget"
        return ""
    return _fault_of_approval(request, limits)


def _fault_of_approval(request: Decide, limits: Limits) -> str:
    if request.edit and (len(request.ids) != 1 or request.for_s):
        return "changed arguments are approved for one call, named by its id"
    if request.edit and len(encode(request.arguments)) > ARGUMENT_BYTES_MAX:
        return f"the changed arguments take more than {ARGUMENT_BYTES_MAX} bytes"
    if not 0 <= request.for_s <= limits.grant_s_max:
        return f"a class can be approved for up to {limits.grant_s_max:.0f} s"
    for name, amount in request.raised.items():
        if not _BUDGET.fullmatch(name):
            return f"{name[:40]!r} is no budget"
        if not (math.isfinite(amount) and amount > 0):
            return f"the budget {name} can be raised by more than nothing only"
    return ""


def fault_of_acknowledgement(request: Acknowledge) -> str:
    fault = _fault_of_person(request.by, request.by_kind)
    if fault:
        return fault
    if not request.ids:
        return "name the escalations"
    return f"`note` is longer than {TEXT_MAX} characters" if len(request.note) > TEXT_MAX else ""


def _fault_of_person(by: str, kind: str) -> str:
    if kind != "operator":
        return "an agent's credential decides nothing: a person must"
    if not by.strip() or len(by) > TEXT_MAX:
        return f"say who decides, in 1 to {TEXT_MAX} characters"
    return ""


def is_itself(by: str, agent: str, session: str, run_id: str) -> bool:
    """Whether who decides is whom it is about, under any of its names."""
    names = {agent, f"agent:{agent}", session, f"session:{session}", run_id, f"run:{run_id}"}
    return by.strip() in names - {"", "session:", "run:"}


def objection(approval: Approval, request: Decide, now: int) -> str:
    """Why this approval may not be decided so ("": it may). `now` by control's clock."""
    if is_itself(request.by, approval.agent, approval.session, approval.run_id):
        return f"{request.by} asked for this itself: somebody else must decide it"
    if request.digest and request.digest != approval.digest:
        return "the digest is not that of the action that was asked about"
    withdraws = request.decision == "deny" and (
        approval.status == "approved" or approval.grant_until > now
    )
    if approval.status != "open" and not withdraws:
        return standing(approval)
    if now >= approval.expires_at and approval.status == "open":
        return "it has expired: no answer was a no"
    if request.raised and not approval.rule.startswith(BUDGET_RULES):
        return f"the rule {approval.rule} asks for no budget"
    budget = approval.rule.startswith(BUDGET_RULES) and request.decision == "approve"
    if request.for_s and budget:
        return "a budget is raised by an amount, not for a while"
    own = budget and not is_shared(approval.rule) and not approval.rule.endswith(UNPRICED)
    if own and not request.raised:
        return "a budget is used up: say by how much it is raised (--raise usd=2)"
    if request.edit and type(request.arguments) is not type(approval.arguments):
        return "the changed arguments are of another kind than those asked about (an object?)"
    return ""


def standing(approval: Approval) -> str:
    """What has become of an approval, in words."""
    by = f" by {approval.decided_by}" if approval.decided_by else ""
    because = f": {approval.decision_reason}" if approval.decision_reason else ""
    match approval.status:
        case "open":
            return "it waits for an answer"
        case "approved":
            return f"it was approved{by}, and not used yet"
        case "used":
            return f"it was approved{by} and is used up: an approval is good for one call"
        case "denied":
            return f"it was denied{by}{because}"
        case "expired":
            return "it has expired: no answer was a no"
        case "withdrawn":
            return f"it was withdrawn{because}"
