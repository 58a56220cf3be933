"""What the SDK raises into an agent's code: these two, and nothing else.

BaseException
└── Halted      the run was halted; every further call of it raises this again
Exception
└── Denied      this one action was refused; the agent may go on with another
"""

from typing import Final

from checkrein.policy.types import Advice

_MEANING: Final[dict[str, str]] = {
    "RETRYABLE": "it may be tried again",
    "WAIT": "wait before you try again",
    "ESCALATE": "ask a human",
    "TERMINAL": "do not try it again",
}


class Halted(BaseException):  # so that no framework's `except Exception` swallows it
    """The run was halted. Not an `Exception`: let it pass; `finally` blocks have two seconds."""

    def __init__(self, reason: str = "", run_id: str = "", issued_by: str = "") -> None:
        super().__init__(reason, run_id, issued_by)
        self.reason = reason
        self.run_id = run_id
        self.issued_by = issued_by

    def __str__(self) -> str:
        by = f" by {self.issued_by}" if self.issued_by else ""
        return f"run {self.run_id or '?'} was halted{by}: {self.reason or 'no reason given'}"


class Denied(Exception):
    """A guard refused an action before it was made. `advice` is RETRYABLE, WAIT, ESCALATE or
    TERMINAL (or empty); the text is written for the agent to read and act on."""

    def __init__(
        self, reason: str, *, action: str = "", rule: str = "", advice: Advice = ""
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.action = action
        self.rule = rule
        self.advice = advice

    def __str__(self) -> str:
        what = f"{self.action} denied" if self.action else "denied"
        rule = f" (rule {self.rule})" if self.rule else ""
        advice = f" [{self.advice}: {_MEANING[self.advice]}]" if self.advice in _MEANING else ""
        return f"{what}: {self.reason}{rule}{advice}"
