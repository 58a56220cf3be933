"""Who asks at the gateway, and what a no looks like."""

from typing import Literal

import msgspec

from checkrein.events.joining import CALL_HEADER, META, RUN_HEADER, STEP_HEADER, TASK_TYPE_HEADER

__all__ = [
    "CALL_HEADER",
    "META",
    "RUN_HEADER",
    "STEP_HEADER",
    "TASK_TYPE_HEADER",
    "UNNAMED",
    "Announced",
    "Caller",
    "Cut",
    "Protocol",
    "Refusal",
]  # fmt: skip

UNNAMED = "unnamed"
"""What a model is called that nobody has named: on no list of allowed ones."""
Protocol = Literal["openai", "anthropic", "mcp", "decide"]


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, as the key proves it. `run_id` empty: the key is the agent's own. `key` is the
    beginning of the key's digest: safe to write down."""

    agent: str
    key: str
    room: str = ""
    environment: str = ""
    run_id: str = ""
    task_id: str = ""
    session: str = ""


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """What a call says of itself, in headers or in `_meta`: nothing of it is proved. `call_id` set:
    the agent's SDK has judged and recorded the call, and this is the same one. `task_type`: of a
    run that is begun here with this call."""

    run: str = ""
    call_id: str = ""
    step: int = 0
    traceparent: str = ""
    task_type: str = ""


class Refusal(Exception):
    """No, with all that the agent and its operator need to know. Every protocol has its own shape
    for it (`status` is HTTP's).

    `code`: `unauthenticated bad_request too_large denied halted contained no_route
    upstream_failed upstream_timeout held_too_long guard_error`. `advice` as in `Denied`. `by` is
    who decided, `appeal` what can be done about it.
    """

    def __init__(
        self, status: int, code: str, reason: str, *, rule: str = "", advice: str = "",
        by: str = "", appeal: str = "", retry_after_s: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(reason)
        self.status = status
        self.code = code
        self.reason = reason
        self.rule = rule
        self.advice = advice
        self.by = by
        self.appeal = appeal
        self.retry_after_s = retry_after_s

    @property
    def text(self) -> str:
        """One paragraph for whoever reads it, an agent or a person."""
        parts = [f"checkrein: {self.reason}"]
        if self.rule:
            parts.append(f"rule {self.rule}")
        if self.by:
            parts.append(f"by {self.by}")
        if self.advice:
            parts.append(self.advice)
        return "; ".join(parts) + (f". {self.appeal}" if self.appeal else "")


class Cut(Refusal):
    """The run was stopped while this call was in flight: what has begun is broken off here, and
    upstream."""
