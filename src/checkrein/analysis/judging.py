"""Recorded runs through the very guards and detectors that judge live ones, with no network at all.

    judge = Judge(lambda agent: pact)
    for key, event in numbered_events_of(lines):
        for line in judge.see(key, event): ...

What was recorded did happen, so a call that the pact would have refused counts as made for what
comes after: from the first refusal of a run on, its later lines are what the rules would have said
of a history that they would have changed (`exact` is False).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

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
    StepStart,
    ToolArguments,
    ToolInvoked,
    ToolReturned,
)
from checkrein.policy.guard import RunGuard
from checkrein.policy.types import Action, Pact, Place, ToolRule, Verdict

RUNS_MAX = 4096
"""So many runs are followed at once; the one heard of longest ago is let go of first."""
CALLS_MAX = 256

Key = tuple[str, int]
"""The recorded run's id and the recorded event's `seq`."""
Schemas = Callable[[Mapping[str, str]], Mapping[str, Mapping[str, Any]]]
"""From a run's labels, the JSON schemas of its tools' arguments; empty when they are not known."""
ProfileOf = Callable[[str], Any]
"""An agent's flow profile, or None."""


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
    exact: bool = True
    runaway: bool = False
    pact_version: str = ""


class _Run:
    """A run being followed."""

    __slots__ = ("arguments", "diverged", "guard", "open", "paid", "tools")

    def __init__(self, guard: RunGuard) -> None:
        self.guard = guard
        self.tools: tuple[str, ...] = ()
        self.arguments: dict[str, Any] = {}
        self.open: dict[str, Action] = {}
        self.diverged = False
        self.paid = 0.0


class Judge:
    """Not for several threads. `see` takes events in the order of their recording."""

    def __init__(
        self,
        pact_of: Callable[[str], Pact],
        *,
        profile_of: ProfileOf = lambda agent: None,
        schemas_of: Schemas = lambda labels: {},
        detecting: bool = True,
        report: Report = lambda detector, error: None,
    ) -> None:
        self._pact_of = pact_of
        self._profile_of = profile_of
        self._schemas_of = schemas_of
        self._runs: dict[str, _Run] = {}
        self._with_schemas: dict[tuple[str, str], Pact] = {}
        self._engine = (
            Engine(detectors(), lambda agent, *_: pact_of(agent), report) if detecting else None
        )

    def see(self, key: Key, event: Base) -> list[Line]:
        """What is said of one event. A guard that errs has refused; a detector that errs is told to
        `report`."""
        found = self._guarded(key, event)
        if self._engine is not None and self._engine.handles(type(event)):
            for one in self._engine.observe(event):
                if isinstance(one, Signal):
                    found.append(Line(
                        run_id=key[0], seq=key[1], kind="signal", detector=one.detector,
                        level=one.level, step=one.step, why=one.why, rule=one.subject,
                        runaway=one.runaway,
                    ))  # fmt: skip
        return found

    def spent(self, run_id: str) -> Any:
        """What a run that is still followed has spent so far, or None."""
        run = self._runs.get(run_id)
        return None if run is None else run.guard.spent

    def would_pass(self, event: ScopeDecision) -> bool:
        """Whether a tool call that was refused when it was recorded would now be let pass."""
        run, action = self._follow(event), event.action
        if action.get("kind") != "tool":
            return False
        call = Action(
            kind="tool", name=str(action.get("name", "")), call_id=event.call_id,
            arguments=action.get("arguments"), known_tools=run.tools,
        )  # fmt: skip
        return run.guard.would(call, event.ts).kind not in ("deny", "ask")

    def _guarded(self, key: Key, event: Base) -> list[Line]:
        run = self._follow(event)
        guard, now_ns = run.guard, event.ts
        verdict: Verdict | None = None
        tool = ""
        match event:
            case RunStart():
                self._begin(run, event)
            case StepStart():
                verdict = guard.step(now_ns)
            case Reasoning():
                if event.role in ("user", "system", "developer"):
                    guard.heard(event.role, event.text)
                if event.confidence is not None:
                    guard.said_confidence(event.confidence)
            case Iteration() if event.confidence is not None:
                guard.said_confidence(event.confidence)
            case ModelRequest():
                verdict = self._asked(run, event)
            case ModelResponse():
                guard.model_returned(
                    event.input_tokens, event.output_tokens, event.usd, now_ns, event.model,
                    event.call_id,
                )  # fmt: skip
            case ToolArguments():
                if len(run.arguments) < CALLS_MAX:
                    run.arguments[event.call_id] = event.arguments
                if event.parse_error:
                    tool = event.tool
                    verdict = guard.verdict(
                        kind="deny", guard="arguments", rule=f"tools.{event.tool}.arguments",
                        reason=f"the arguments cannot be read: {event.parse_error}",
                        advice="RETRYABLE",
                    )  # fmt: skip
            case ToolInvoked():
                tool = event.tool
                verdict = self._called(run, event)
            case ToolReturned():
                action = run.open.pop(event.call_id, None)
                if action is not None:
                    failed = event.error or ("" if event.status == "ok" else event.status)
                    guard.returned(action, event.result, failed, now_ns)
            case MemoryWrite() | MemoryRead():
                value = event.value if isinstance(event, MemoryWrite) else None
                guard.remembered(event.key, value, wrote=isinstance(event, MemoryWrite))
            case Output():
                wrong = guard.objections(event.content)
                if wrong:
                    verdict = guard.verdict(
                        kind="deny", guard="output", rule="output", reason="; ".join(wrong),
                        advice="RETRYABLE",
                    )  # fmt: skip
            case RunEnd():
                self._runs.pop(event.run_id, None)
            case _:
                pass
        if verdict is None or verdict.kind == "allow":
            return []
        return [self._line(key, event, run, verdict, tool)]

    def _line(self, key: Key, event: Base, run: _Run, verdict: Verdict, tool: str) -> Line:
        line = Line(
            run_id=key[0], seq=key[1], kind="verdict", detector=verdict.guard,
            verdict=verdict.kind, step=event.step, why=verdict.reason, rule=verdict.rule,
            tool=tool, exact=not run.diverged, runaway=verdict.runaway,
            pact_version=verdict.pact_version,
        )  # fmt: skip
        if verdict.kind in ("deny", "ask"):
            run.diverged = True
        return line

    def _follow(self, event: Base) -> _Run:
        run = self._runs.get(event.run_id)
        if run is None:
            if len(self._runs) >= RUNS_MAX:
                del self._runs[next(iter(self._runs))]
            run = self._runs[event.run_id] = _Run(self._guard(event, self._pact_of(event.agent)))
        return run

    def _guard(self, event: Base, pact: Pact, task_type: str = "", goal: str = "") -> RunGuard:
        place = Place(
            agent=event.agent, room=event.room, environment=event.environment,
            run_id=event.run_id, task_id=event.task_id, task_type=task_type, goal=goal,
        )  # fmt: skip
        return RunGuard(pact, event.ts, place, profile=self._profile_of(event.agent), watching=True)

    def _begin(self, run: _Run, event: RunStart) -> None:
        pact = self._pact_of(event.agent)
        schemas = self._schemas_of(event.labels)
        if schemas:
            key = (pact.version, event.labels.get("tool_schema", ""))
            if key not in self._with_schemas:
                self._with_schemas[key] = with_schemas(pact, schemas)
            pact = self._with_schemas[key]
        run.guard = self._guard(event, pact, event.task_type, event.goal)
        run.tools = tuple(event.tools)
        system = event.labels.get("system", "")
        if system:
            run.guard.heard("system", system)

    def _asked(self, run: _Run, event: ModelRequest) -> Verdict:
        if event.messages is not None:
            for message in event.messages if isinstance(event.messages, list) else ():
                if isinstance(message, dict) and isinstance(message.get("content"), str):
                    role = str(message.get("role", ""))
                    if role in ("user", "system", "developer"):
                        run.guard.heard(role, message["content"])
        action = Action(
            kind="model", name=event.model, call_id=event.call_id, provider=event.provider,
            input_chars=event.input_chars,
        )  # fmt: skip
        return run.guard.judge(action, event.ts)

    def _called(self, run: _Run, event: ToolInvoked) -> Verdict:
        kind = event.kind if event.kind in ("read", "compensable", "irreversible") else None
        action = Action(
            kind="tool", name=event.tool, call_id=event.call_id, declared_kind=kind,  # type: ignore[arg-type] # just looked at
            arguments=run.arguments.pop(event.call_id, None), known_tools=run.tools,
        )  # fmt: skip
        if len(run.open) >= CALLS_MAX:
            del run.open[next(iter(run.open))]
        run.open[event.call_id] = action
        return run.guard.judge(action, event.ts)


def with_schemas(pact: Pact, schemas: Mapping[str, Mapping[str, Any]]) -> Pact:
    """The pact with the tools' schemas put where it says nothing itself. A pact that allows any
    tool still does. Its version stays: what it says is the same."""
    texts = {
        name: msgspec.json.encode(schema, order="deterministic").decode()
        for name, schema in schemas.items()
    }
    if pact.tools is None:
        tools = {name: ToolRule(arguments=text) for name, text in texts.items()}
        tools["*"] = ToolRule()
    else:
        tools = {
            name: rule if rule.arguments else msgspec.structs.replace(
                rule, arguments=texts.get(name, "")
            )
            for name, rule in pact.tools.items()
        }  # fmt: skip
    return msgspec.structs.replace(pact, tools=tools, version="")
