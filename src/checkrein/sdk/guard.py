"""The guard's seat in a run: a guard that errs denies."""

from typing import Any, Protocol

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


class Approvable(Protocol):
    """What a guard may offer besides, if approvals and raised budgets matter to it."""

    def granted(self, action: Action, arguments: Any, now_ns: int) -> Verdict | None:
        """A person approved an action that was judged `ask`, with these arguments: it counts as
        begun from now. A verdict of kind deny: not any more."""

    def raised(self, name: str, amount: float) -> None:
        """A person raised a budget by so much."""


class Seat:
    """A run's guard. A failing guard denies, by name and with the error."""

    __slots__ = ("_guard", "pact")

    def __init__(self, guard: Guard, pact: Pact) -> None:
        self._guard = guard
        self.pact = pact

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

    def granted(self, action: Action, arguments: Any, now_ns: int) -> Verdict | None:
        """As `Guard.granted`; None also when the guard does not care."""
        try:
            granted = getattr(self._guard, "granted", None)
            return granted(action, arguments, now_ns) if granted is not None else None
        except Exception as error:
            return _erred("granted", error)

    def raised(self, name: str, amount: float) -> None:
        """As `Guard.raised`."""
        try:
            raised = getattr(self._guard, "raised", None)
            if raised is not None:
                raised(name, amount)
        except Exception as fault:
            self._failed("raised", fault)

    def forked(self) -> None:
        """In a forked child: as `Guard.forked`."""
        try:
            self._guard.forked()
        except Exception as fault:
            self._failed("forked", fault)

    def _failed(self, where: str, error: Exception) -> None:
        """A guard that lost count cannot be trusted with the next answer: it denies from now on."""
        self._guard = Failed(where, error)
        quiet.fault(f"guard.{where}", error)


class Failed:
    """Stands where a guard broke, and denies."""

    def __init__(self, where: str, error: Exception) -> None:
        self._verdict = _refusal(where, error)

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

    def granted(self, action: Action, arguments: Any, now_ns: int) -> Verdict | None:
        return self._verdict

    def raised(self, name: str, amount: float) -> None:
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
