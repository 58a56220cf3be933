"""The guard's seat in a run: a guard that errs denies."""

from collections.abc import Callable
from typing import Any, Protocol

from checkrein.policy.guard import RunGuard
from checkrein.policy.pair import PairGuard
from checkrein.policy.types import Action, Pact, Verdict
from checkrein.sdk import quiet


class Guard(Protocol):
    """What a run asks before it acts, and tells afterwards: `checkrein.policy.guard.RunGuard`.
    Safe from any thread."""

    def judge(self, action: Action, now_ns: int) -> Verdict: ...
    def returned(self, action: Action, result: Any, error: str, now_ns: int) -> None: ...
    def model_returned(
        self, input_tokens: int, output_tokens: int, usd: float | None, now_ns: int, model: str = ""
    ) -> None: ...
    def step(self, now_ns: int) -> Verdict: ...
    def paused(self, duration_ns: int) -> None: ...
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
    def of(cls, pact: Pact, shadow: Pact | None = None, revision: int = 0) -> "Seat":
        """A fresh guard for one run."""
        beside = None if shadow is None else RunGuard(shadow)
        return cls(PairGuard(RunGuard(pact), beside), pact, revision)

    def watch(self, tell: Callable[[Action, Verdict], None]) -> None:
        """`tell` hears what a pact in shadow would have decided."""
        if isinstance(self._guard, PairGuard):
            self._guard.tell = tell

    def adopt(
        self, pact: Pact, shadow: Pact | None, revision: int,
        tell: Callable[[Action, Verdict], None] | None = None,
    ) -> None:  # fmt: skip
        """Other pacts for the run under way: all of the next verdict is theirs, and what was
        counted stays counted. A guard that lost count goes on denying."""
        guard = self._guard
        if isinstance(guard, PairGuard):
            guard.adopt(pact, shadow)
        elif isinstance(guard, Failed) and not guard.lost_count:
            beside = None if shadow is None else RunGuard(shadow)
            fresh = PairGuard(RunGuard(pact), beside)
            if tell is not None:
                fresh.tell = tell
            self._guard = fresh
        self.pact, self.revision = pact, revision

    def judge(self, action: Action, now_ns: int) -> Verdict:
        try:
            return self._guard.judge(action, now_ns)
        except Exception as error:
            return _erred("judge", error)

    def step(self, now_ns: int) -> Verdict:
        try:
            return self._guard.step(now_ns)
        except Exception as error:
            return _erred("step", error)

    def returned(self, action: Action, result: Any, error: str, now_ns: int) -> None:
        try:
            self._guard.returned(action, result, error, now_ns)
        except Exception as fault:
            self._failed("returned", fault)

    def model_returned(
        self, input_tokens: int, output_tokens: int, usd: float | None, now_ns: int, model: str = ""
    ) -> None:
        try:
            self._guard.model_returned(input_tokens, output_tokens, usd, now_ns, model)
        except Exception as fault:
            self._failed("model_returned", fault)

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

    def __init__(self, where: str, error: Exception, *, lost_count: bool = False) -> None:
        self._verdict = _refusal(where, error)
        self.lost_count = lost_count

    def judge(self, action: Action, now_ns: int) -> Verdict:
        return self._verdict

    def step(self, now_ns: int) -> Verdict:
        return self._verdict

    def returned(self, action: Action, result: Any, error: str, now_ns: int) -> None:
        return None

    def model_returned(
        self, input_tokens: int, output_tokens: int, usd: float | None, now_ns: int, model: str = ""
    ) -> None:
        return None

    def paused(self, duration_ns: int) -> None:
        return None

    def forked(self) -> None:
        return None


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
