"""How long what is kept: facts long, payload short.

Counted from the day an event was stored, not from its own time, which an agent's clock may have
wrong and which for a replayed run lies far back.
"""

DETAIL_DAYS = 30
SUMMARY_DAYS = 180
FOREVER = 0

KEPT_FOREVER = frozenset({
    "scope.decision", "command", "receipt", "approval.requested", "approval.decided",
    "escalation.raised", "escalation.acknowledged",
})  # fmt: skip
SUMMARIES = frozenset({
    "run.start", "run.end", "iteration", "status", "signal", "incident", "feedback", "loss",
})  # fmt: skip


def keep_days(kind: str) -> int:
    """Days an event of this type is kept; 0 is for ever. Unknown types are detail."""
    if kind in KEPT_FOREVER:
        return FOREVER
    return SUMMARY_DAYS if kind in SUMMARIES else DETAIL_DAYS
