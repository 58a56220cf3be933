"""What of an approval goes to people outside."""

from typing import Any

from checkrein.bus.approvals import Approval


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
