"""The guard's seat in a run: a guard that errs denies."""

import os
from typing import Any, Protocol

from checkrein.policy.guard import RunGuard
from checkrein.policy.pair import PairGuard
from checkrein.policy.types import Action, Pact, Place, Route, Verdict
from checkrein.sdk import quiet


class Guard(Protocol):
    """What a run asks before it acts, and tells afterwards: `checkrein.policy.pair.PairGuard`.
    Safe from any thread."""

    @property
    def listens(self) -> bool: ...
    def judge(self, action: Action, now_ns: int) -> Verdict: ...
    def granted(self, action: Action, now_ns: int) -> Verdict: ...
    def would(self, action: Action, now_ns: int) -> Verdict: ...
    def routed(self, model: str, now_ns: int) -> Route | None: ...
    def returned(self, action: Action, result: Any, error: str, now_ns: int) -> None: ...
    def model_returned(
        self, input_tokens: int, output_tokens: int, usd: float | None, now_ns: int,
        model: str = "", call_id: str = "",
    ) -> None: ...  # fmt: skip
    def asked(self, kind: str, name: str) -> tuple[str, ...]: ...
    def step(self, now_ns: int) -> Verdict: ...
    def placed(self, place: Place) -> None: ...
    def heard(self, role: str, text: str) -> None: ...
    def remembered(self, key: str, value: Any, *, wrote: bool) -> None: ...
    def said_confidence(self, confidence: float) -> None: ...
    def objections(self, output: Any) -> list[str]: ...
    def paused(self, duration_ns: int) -> None: ...
    def raised(self, name: str, amount: float) -> None: ...
    def adopt(self, enforced: Pact, shadow: Pact | None = None) -> None: ...
    def know(self, profile: Any) -> None: ...
    def forked(self) -> None:
        """In a forked child: no lock may be one that another thread of the parent held."""


class Seat:
    """A run's guard. A failing guard denies, by name and with the error. `revision` counts the sets
    of pacts that the server has put in force for its agent; 0: none."""

    __slots__ = ("_guard", "pact", "revision")

    def __init__(self, guard: Guard, pact: Pact, revision: int = 0) -> None:
        self._guard = guard
        self.pact = pact
        self.revision = revision

    @classmethod
    def of(
        cls, pact: Pact, shadow: Pact | None = None, revision: int = 0, profile: Any = None
    ) -> "Seat":
        """A fresh guard for one run. Raises what reading the pacts' rules raises."""
        guard = PairGuard(RunGuard(pact, resolve=os.path.realpath, profile=profile))
        if shadow is not None:
            guard.adopt(pact, shadow)
        return cls(guard, pact, revision)

    def judge(self, action: Action, now_ns: int) -> Verdict:
        try:
            return self._guard.judge(action, now_ns)
        except Exception as error:
            return _erred("judge", error)

    def granted(self, action: Action, now_ns: int) -> Verdict:
        """As `judge`, of an action that somebody has said yes to."""
        try:
            return self._guard.granted(action, now_ns)
        except Exception as error:
            return _erred("granted", error)

    def would(self, action: Action, now_ns: int) -> Verdict:
        """What `judge` would say of a tool call that is not made for another reason; it does not
        count."""
        try:
            return self._guard.would(action, now_ns)
        except Exception as error:
            return _erred("would", error)

    def asked(self, kind: str, name: str) -> tuple[str, ...]:
        """The names of the guards that are asked about an action; () where that is not known."""
        try:
            return self._guard.asked(kind, name)
        except Exception as fault:
            quiet.fault("guard.asked", fault)
            return ()

    def step(self, now_ns: int) -> Verdict:
        try:
            return self._guard.step(now_ns)
        except Exception as error:
            return _erred("step", error)

    def routed(self, model: str, now_ns: int) -> Route | None:
        """Where a gateway sends a call of this model, when the pact says so. What it is sent to is
        judged all the same; so a fault here leaves it as it was asked."""
        try:
            return self._guard.routed(model, now_ns)
        except Exception as fault:
            quiet.fault("guard.routed", fault)
            return None

    def returned(self, action: Action, result: Any, error: str, now_ns: int) -> None:
        try:
            self._guard.returned(action, result, error, now_ns)
        except Exception as fault:
            self._failed("returned", fault)

    def model_returned(
        self, input_tokens: int, output_tokens: int, usd: float | None, now_ns: int,
        model: str = "", call_id: str = "",
    ) -> None:  # fmt: skip
        try:
            self._guard.model_returned(input_tokens, output_tokens, usd, now_ns, model, call_id)
        except Exception as fault:
            self._failed("model_returned", fault)

    @property
    def listens(self) -> bool:
        """Whether what the user and the system say matters to a rule."""
        try:
            return self._guard.listens
        except Exception as fault:
            self._failed("listens", fault)
            return False

    def placed(self, place: Place) -> None:
        """Whose run this is: told when it begins, and again when its goal changes."""
        try:
            self._guard.placed(place)
        except Exception as fault:
            self._failed("placed", fault)

    def heard(self, role: str, text: str) -> None:
        try:
            self._guard.heard(role, text)
        except Exception as fault:
            self._failed("heard", fault)

    def remembered(self, key: str, value: Any, *, wrote: bool) -> None:
        try:
            self._guard.remembered(key, value, wrote=wrote)
        except Exception as fault:
            self._failed("remembered", fault)

    def said_confidence(self, confidence: float) -> None:
        try:
            self._guard.said_confidence(confidence)
        except Exception as fault:
            self._failed("said_confidence", fault)

    def objections(self, output: Any) -> list[str]:
        """What the pact has against handing this over; a check that fails is an objection."""
        try:
            return self._guard.objections(output)
        except Exception as fault:
            quiet.fault("guard.objections", fault)
            return [f"the check of the output failed: {type(fault).__name__}: {fault}"]

    def raised(self, name: str, amount: float) -> None:
        try:
            self._guard.raised(name, amount)
        except Exception as fault:
            self._failed("raised", fault)

    def adopt(self, enforced: Pact, shadow: Pact | None = None, revision: int = 0) -> bool:
        """Puts other pacts in force; False, and the old ones stay, when that fails. Where no pact
        could be read, a good one decides from now on; a guard that lost count goes on denying."""
        try:
            if isinstance(self._guard, Failed) and not self._guard.lost_count:
                self._guard = Seat.of(enforced, shadow)._guard
            else:
                self._guard.adopt(enforced, shadow)
        except Exception as fault:
            quiet.fault("guard.adopt", fault)
            return False
        self.pact, self.revision = enforced, revision
        return True

    def know(self, profile: Any) -> None:
        """Which flows are usual, for a run that knows of none; one that has a profile keeps it."""
        try:
            self._guard.know(profile)
        except Exception as fault:
            self._failed("know", fault)

    def paused(self, duration_ns: int) -> None:
        try:
            self._guard.paused(duration_ns)
        except Exception as fault:
            self._failed("paused", fault)

    def forked(self) -> None:
        """In a forked child: as `Guard.forked`."""
        try:
            self._guard.forked()
        except Exception as fault:
            self._failed("forked", fault)

    def _failed(self, where: str, error: Exception) -> None:
        """A guard that lost count cannot be trusted with the next answer: it denies from now on."""
        self._guard = Failed(where, error, lost_count=True)
        quiet.fault(f"guard.{where}", error)


class Failed:
    """Stands where a guard broke, and denies."""

    listens = False

    def __init__(self, where: str, error: Exception, *, lost_count: bool = False) -> None:
        self._verdict = _refusal(where, error)
        self.lost_count = lost_count

    def judge(self, action: Action, now_ns: int) -> Verdict:
        return self._verdict

    granted = would = judge

    def step(self, now_ns: int) -> Verdict:
        return self._verdict

    def objections(self, output: Any) -> list[str]:
        return [self._verdict.reason]

    def asked(self, kind: str, name: str) -> tuple[str, ...]:
        return ("guard",)

    def adopt(self, enforced: Pact, shadow: Pact | None = None) -> None:
        raise RuntimeError(self._verdict.reason)

    def _nothing(self, *_: Any, **__: Any) -> None:
        return None

    placed = returned = model_returned = heard = remembered = said_confidence = _nothing
    paused = raised = forked = know = routed = _nothing


def _erred(where: str, error: Exception) -> Verdict:
    quiet.fault(f"guard.{where}", error)
    return _refusal(where, error)


def _refusal(where: str, error: Exception) -> Verdict:
    return Verdict(
        kind="deny",
        guard="guard",
        rule="guard-error",
        reason=f"the guard failed in {where}, so no: {type(error).__name__}: {error}",
        advice="ESCALATE",
    )
