"""The pact that decides, and beside it one that is only watched."""

from collections.abc import Callable
from copy import copy
from threading import Lock
from typing import Any

import msgspec

from checkrein.policy.guard import RunGuard
from checkrein.policy.types import Action, Pact, Verdict

Tell = Callable[[Action, Verdict], None]


def _nobody(action: Action, verdict: Verdict) -> None:
    return None


class PairGuard:
    """Judges by `enforced`; what it lets pass is judged by `shadow`, too, and `tell` hears what
    that one would not have let pass as it is (a verdict with `shadow` set). Nothing that the shadow
    does, failing included, changes what is decided. Safe from any thread; pure but for `tell`."""

    def __init__(self, enforced: RunGuard, shadow: RunGuard | None = None) -> None:
        self.enforced = enforced
        self.shadow = shadow
        self.tell: Tell = _nobody
        self._lock = Lock()

    def judge(self, action: Action, now_ns: int) -> Verdict:
        """The enforced pact's verdict. `adopt` comes before or after both judgements, never
        between them."""
        with self._lock:
            verdict = self.enforced.judge(action, now_ns)
            shadow = self.shadow
            if shadow is None or verdict.kind in ("deny", "ask"):
                return verdict
            watched = self._watched(lambda: shadow.judge(action, now_ns))
        if watched.kind != "allow":
            self._say(action, watched)
        return verdict

    def step(self, now_ns: int) -> Verdict:
        with self._lock:
            verdict = self.enforced.step(now_ns)
            shadow = self.shadow
            if shadow is None or verdict.kind in ("deny", "ask"):
                return verdict
            watched = self._watched(lambda: shadow.step(now_ns))
        if watched.kind != "allow":
            self._say(Action(kind="model", name="step"), watched)
        return verdict

    def returned(self, action: Action, result: Any, error: str, now_ns: int) -> None:
        self.enforced.returned(action, result, error, now_ns)
        if self.shadow is not None:
            self.shadow.returned(action, result, error, now_ns)

    def model_returned(
        self, input_tokens: int, output_tokens: int, usd: float | None, now_ns: int, model: str = ""
    ) -> None:
        self.enforced.model_returned(input_tokens, output_tokens, usd, now_ns, model)
        if self.shadow is not None:
            self.shadow.model_returned(input_tokens, output_tokens, usd, now_ns, model)

    def paused(self, duration_ns: int) -> None:
        self.enforced.paused(duration_ns)
        if self.shadow is not None:
            self.shadow.paused(duration_ns)

    def forked(self) -> None:
        self._lock = Lock()
        self.enforced.forked()
        if self.shadow is not None:
            self.shadow.forked()

    def adopt(self, pact: Pact, shadow: Pact | None) -> None:
        """Both at once. The enforced one keeps the run's counters; so does the shadow, or it takes
        over what was spent so far."""
        with self._lock:
            if pact.version != self.enforced.pact.version:
                self.enforced.adopt(pact)
            if shadow is None:
                self.shadow = None
            elif self.shadow is not None:
                self.shadow.adopt(shadow)
            else:
                fresh = RunGuard(shadow)
                fresh.spent = copy(self.enforced.spent)
                self.shadow = fresh

    def _watched(self, judge: Callable[[], Verdict]) -> Verdict:
        try:
            return judge()
        except Exception as error:
            pact = self.shadow.pact if self.shadow is not None else self.enforced.pact
            return Verdict(
                kind="deny", guard="shadow", rule="shadow.erred",
                reason=f"the pact in shadow could not judge: {error!r}", advice="ESCALATE",
                pact=pact.pact, pact_version=pact.version,
            )  # fmt: skip

    def _say(self, action: Action, verdict: Verdict) -> None:
        self.tell(action, msgspec.structs.replace(verdict, shadow=True, runaway=False))
