"""What of an approval goes to others: to the ledger, and to people outside."""

from typing import Any

from checkrein.bus import subjects
from checkrein.bus.approvals import Approval
from checkrein.bus.leases import LedgerRequest
from checkrein.bus.messages import encode
from checkrein.control.types import Send
from checkrein.policy.accounts import NANO, Account, Amounts, Scope, window_of
from checkrein.policy.shortage import is_shared

_SCOPES: dict[str, Scope] = {"task": "task", "agent": "agent", "room": "room", "hour": "hour"}


def raises(record: Approval, now: int) -> tuple[Send, ...]:
    """What the ledger is told when somebody has raised a budget that several runs share: as often
    as may be, it is raised once."""
    if not record.raised or not is_shared(record.rule) or record.status not in ("approved", "used"):
        return ()
    names = {"task": record.task_id, "room": record.room}
    scope = _SCOPES.get(record.rule.split(".")[1])
    if scope is None:
        return ()
    raised = record.raised
    request = LedgerRequest(
        account=Account(
            scope, record.environment, names.get(scope, record.agent), window_of(scope, now)
        ),
        raise_id=record.approval_id, by=record.decided_by, reason=record.decision_reason,
        amount=Amounts(
            round(raised.get("tool_calls", 0)), round(raised.get("tokens", 0)),
            round(raised.get("usd", 0.0) * NANO),
        ),
    )  # fmt: skip
    return (Send(subjects.CONTROL_LEDGER, encode(request)),)


def short(texts: dict[str, str]) -> dict[str, str]:
    return {key[:50]: text[:500] for key, text in list(texts.items())[:10]}


def shown(record: Approval) -> dict[str, Any]:
    """An approval as people outside are told of it."""
    return {
        "approval_id": record.approval_id, "agent": record.agent, "run_id": record.run_id,
        "room": record.room, "tool": record.tool, "arguments": record.arguments,
        "digest": record.digest, "rule": record.rule, "reason": record.reason,
        "pact": record.pact, "pact_version": record.pact_version, "undo": record.undo,
        "asked_at": record.asked_at, "expires_at": record.expires_at,
    }  # fmt: skip
