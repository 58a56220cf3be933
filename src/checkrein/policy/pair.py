"""Two pacts at once: the one that is in force, and one that is only watched before it is.

The watched pact (stage `shadow`) judges every action that goes on, and what it would not have let
pass stands beside the verdict (`Verdict.beside`). It never stops anything, and never counts
towards what is in force.
"""

from typing import Any

import msgspec

from checkrein.policy.guard import RunGuard
from checkrein.policy.types import Action, Pact, Place, Route, Verdict


class PairGuard:
    """The guard of one run. Safe from several threads. `shadow` None: nothing is watched."""

    def __init__(self, enforced: RunGuard, shadow: RunGuard | None = None) -> None:
        self.enforced = enforced
        self.shadow = shadow

    @property
    def pact(self) -> Pact:
        return self.enforced.pact

    def judge(self, action: Action, now_ns: int) -> Verdict:
        verdict = self.enforced.judge(action, now_ns)
        return verdict if self.shadow is None else self._beside(verdict, action, now_ns)

    def granted(self, action: Action, now_ns: int) -> Verdict:
        return self._beside(self.enforced.granted(action, now_ns), action, now_ns)

    def would(self, action: Action, now_ns: int) -> Verdict:
        """What the pact in force would say of a tool call that is not made for another reason."""
        return self.enforced.would(action, now_ns)

    def asked(self, kind: str, name: str) -> tuple[str, ...]:
        return self.enforced.asked(kind, name)

    def routed(self, model: str, now_ns: int) -> Route | None:
        """As the pact in force says."""
        return self.enforced.routed(model, now_ns)

    def step(self, now_ns: int) -> Verdict:
        if self.shadow is not None:
            self.shadow.step(now_ns)
        return self.enforced.step(now_ns)

    def returned(self, action: Action, result: Any, error: str, now_ns: int) -> None:
        self.enforced.returned(action, result, error, now_ns)
        shadow = self.shadow
        if shadow is not None:
            shadow.returned(action, result, error, now_ns)

    def model_returned(
        self, input_tokens: int, output_tokens: int, usd: float | None, now_ns: int,
        model: str = "", call_id: str = "",
    ) -> None:  # fmt: skip
        for guard in self._both():
            guard.model_returned(input_tokens, output_tokens, usd, now_ns, model, call_id)

    @property
    def listens(self) -> bool:
        """Whether what the user and the system say matters to a rule."""
        return any(guard.flow is not None for guard in self._both())

    def placed(self, place: Place) -> None:
        for guard in self._both():
            guard.placed(place)

    def heard(self, role: str, text: str) -> None:
        for guard in self._both():
            guard.heard(role, text)

    def remembered(self, key: str, value: Any, *, wrote: bool) -> None:
        for guard in self._both():
            guard.remembered(key, value, wrote=wrote)

    def said_confidence(self, confidence: float) -> None:
        for guard in self._both():
            guard.said_confidence(confidence)

    def objections(self, output: Any) -> list[str]:
        return self.enforced.objections(output)

    def paused(self, duration_ns: int) -> None:
        for guard in self._both():
            guard.paused(duration_ns)

    def raised(self, name: str, amount: float) -> None:
        for guard in self._both():
            guard.raised(name, amount)

    def adopt(self, enforced: Pact, shadow: Pact | None = None) -> None:
        """From now on these: one assignment each, so that no action is judged by a mixture. What
        the run has done stays known to the pact in force; a pact newly watched begins from now."""
        self.enforced.adopt(enforced)
        if shadow is None:
            self.shadow = None
        elif self.shadow is not None:
            self.shadow.adopt(shadow)
        else:
            self.shadow = RunGuard(
                shadow, self.enforced.now_ns, self.enforced.place, watching=True,
                resolve=self.enforced.resolve, profile=self.enforced.profile,
            )  # fmt: skip

    def know(self, profile: Any) -> None:
        """Which flows are usual, for guards that know of none."""
        for guard in self._both():
            guard.know(profile)

    def forked(self) -> None:
        for guard in self._both():
            guard.forked()

    def _both(self) -> tuple[RunGuard, ...]:
        shadow = self.shadow
        return (self.enforced,) if shadow is None else (self.enforced, shadow)

    def _beside(self, verdict: Verdict, action: Action, now_ns: int) -> Verdict:
        shadow = self.shadow
        if shadow is None or verdict.kind in ("deny", "ask"):
            return verdict
        watched = shadow.judge(action, now_ns)
        if watched.kind == "allow" or (watched.kind, watched.rule) == (verdict.kind, verdict.rule):
            return verdict
        return msgspec.structs.replace(verdict, beside=watched)
