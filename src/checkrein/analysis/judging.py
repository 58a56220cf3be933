"""Recorded runs through the very guards and detectors that judge live ones, with no network at all.

    judge = Judge(lambda agent: pact)
    for key, event in numbered_events_of(lines):
        for line in judge.see(key, event): ...

What was recorded did happen, so a call that the pact would have refused counts as made for what
comes after: from the first refusal of a run on, its later lines are what the rules would have said
of a history that they would have changed (`exact` is False). A call that was refused when it was
recorded did not happen: it counts for nothing, and `released` tells whether it would now be let
pass.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from checkrein.analysis.following import Following, ProfileOf, Run, Schemas, version_said
from checkrein.detect.catalogue import detectors
from checkrein.detect.engine import Engine
from checkrein.detect.types import Report
from checkrein.events.types import (
    Base,
    Iteration,
    MemoryRead,
    MemoryWrite,
    ModelRequest,
    ModelResponse,
    Output,
    Reasoning,
    RunEnd,
    RunStart,
    ScopeDecision,
    Signal,
    Status,
    StepStart,
    ToolArguments,
    ToolInvoked,
    ToolReturned,
)
from checkrein.policy.guard import RunGuard
from checkrein.policy.types import Pact, Verdict

Key = tuple[str, int]
"""The recorded run's id and the recorded event's `seq`."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What a guard or a detector said of one recorded event. `level` of a verdict is empty, and so
    is `verdict` of a signal."""

    run_id: str
    seq: int
    kind: Literal["signal", "verdict"]
    detector: str
    """The detector's name, or the guard's."""
    level: str = ""
    verdict: str = ""
    step: int = 0
    why: str = ""
    rule: str = ""
    tool: str = ""
    call_id: str = ""
    exact: bool = True
    runaway: bool = False
    pact_version: str = ""


class Judge:
    """Not for several threads. `see` takes events in the order of their recording. At most 4,096
    runs are followed at once; the one that began longest ago is let go of first.

    `ended`: called with each run's end and its guard, before the guard is let go of. `untaught`:
    the pact for runs of whose crew no profile is known, instead of their own.
    """

    def __init__(
        self,
        pact_of: Callable[[str], Pact],
        *,
        profile_of: ProfileOf = lambda agent: None,
        schemas_of: Schemas = lambda labels: {},
        detecting: bool = True,
        report: Report = lambda detector, error: None,
        ended: Callable[[RunEnd, RunGuard], None] = lambda end, guard: None,
        untaught: Pact | None = None,
    ) -> None:
        self._runs = Following(pact_of, profile_of, schemas_of, untaught)
        self._ended = ended
        self._engine = (
            Engine(detectors(), lambda agent, *_: pact_of(agent), report) if detecting else None
        )
        self._ways: dict[type[Base], Callable[[Run, Any], Verdict | None]] = {
            RunStart: self._runs.began,
            RunEnd: self._end,
            StepStart: lambda run, event: run.guard.step(event.ts),
            Reasoning: _reasoned,
            Iteration: _iterated,
            Status: self._runs.status,
            ModelRequest: Run.asked_model,
            ModelResponse: Run.model_answered,
            ToolArguments: Run.chosen,
            ToolInvoked: self._runs.called,
            ToolReturned: Run.returned,
            ScopeDecision: Run.decided,
            MemoryWrite: self._runs.wrote,
            MemoryRead: self._runs.read,
            Output: _output,
        }

    def see(self, key: Key, event: Base) -> list[Line]:
        """What is said of one event. A guard that errs has refused; a detector that errs is told to
        `report`."""
        kind = type(event)
        found: list[Line] = []
        way = self._ways.get(kind)
        if way is not None:
            run = self._runs.of(event)
            verdict = way(run, event)
            if verdict is not None and verdict.kind != "allow":
                found.append(_line(key, event, run, verdict))
        if self._engine is not None and self._engine.handles(kind):
            for one in self._engine.observe(event):
                if isinstance(one, Signal):
                    found.append(Line(
                        run_id=key[0], seq=key[1], kind="signal", detector=one.detector,
                        level=one.level, step=one.step, why=one.why, rule=one.subject,
                        runaway=one.runaway,
                    ))  # fmt: skip
        return found

    def released(self, event: ToolReturned) -> Verdict | None:
        """What is now said of a tool call that was refused when it was recorded; None when it was
        not refused by a pact. To be asked before the event is seen."""
        return self._runs.of(event).would(event)

    def spent(self, run_id: str) -> Any:
        """What a run that is still followed has spent so far, or None."""
        run = self._runs.known(run_id)
        return None if run is None else run.guard.spent

    def guard(self, run_id: str) -> RunGuard | None:
        """The guard of a run that is still followed."""
        run = self._runs.known(run_id)
        return None if run is None else run.guard

    def forget(self, run_id: str) -> None:
        """A run is not followed any more."""
        self._runs.let_go(run_id)

    def _end(self, run: Run, event: RunEnd) -> None:
        self._runs.let_go(event.run_id)
        self._ended(event, run.guard)


def _line(key: Key, event: Base, run: Run, verdict: Verdict) -> Line:
    line = Line(
        run_id=key[0], seq=key[1], kind="verdict", detector=verdict.guard,
        verdict=verdict.kind, step=event.step, why=verdict.reason, rule=verdict.rule,
        tool=getattr(event, "tool", ""), call_id=getattr(event, "call_id", ""),
        exact=not run.diverged, runaway=verdict.runaway,
        pact_version=version_said(verdict.pact_version),
    )  # fmt: skip
    if verdict.kind in ("deny", "ask") and type(event) is not ToolArguments:
        run.diverged = True
    return line


def _reasoned(run: Run, event: Reasoning) -> None:
    if event.role:
        run.heard(event.role, event.text)
    if event.confidence is not None:
        run.guard.said_confidence(event.confidence)


def _iterated(run: Run, event: Iteration) -> None:
    if event.confidence is not None:
        run.guard.said_confidence(event.confidence)


def _output(run: Run, event: Output) -> Verdict | None:
    wrong = run.guard.objections(event.content)
    if not wrong:
        return None
    return run.guard.verdict(
        kind="deny", guard="output", rule="output", reason="; ".join(wrong), advice="RETRYABLE",
    )  # fmt: skip
