"""What is known of recorded runs while they are read: each has a guard, told all that a live one is
told and in the same order."""

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import msgspec

from checkrein.analysis.crews import crew_of, is_foreign, task_type_of
from checkrein.events.types import (
    Base,
    MemoryRead,
    MemoryWrite,
    ModelRequest,
    ModelResponse,
    RunStart,
    ScopeDecision,
    Status,
    ToolArguments,
    ToolInvoked,
    ToolReturned,
)
from checkrein.policy import estimates
from checkrein.policy.guard import RunGuard
from checkrein.policy.pact import version_of
from checkrein.policy.spoken import ROLES, spoken
from checkrein.policy.types import Action, Pact, Place, ToolKind, ToolRule, Verdict

RUNS_MAX = 4096
CALLS_MAX = 256
HEARD_MAX = 2000
MEMORIES_MAX = 10_000
KINDS_MAX = 10_000
SCHEMAS_MAX = 256

Schemas = Callable[[Mapping[str, str]], Mapping[str, Mapping[str, Any]]]
"""From a run's labels, the JSON schemas of its tools' arguments; empty when they are not known."""
ProfileOf = Callable[[str], Any]
"""From a crew (an agent's name: see `crews`) to its flow profile, or None."""


_MARK = "~"
_JUDGES = count(1)


class Run:
    """One run. Bounded: 256 calls whose end was not seen, 2,000 texts told."""

    __slots__ = ("_chosen", "_heard", "_open", "diverged", "guard", "kinds", "paused_ns", "tools")

    def __init__(self, guard: RunGuard, kinds: dict[tuple[str, str], ToolKind]) -> None:
        self.guard = guard
        self.kinds = kinds
        self.tools: tuple[str, ...] = ()
        self.diverged = False
        self.paused_ns = 0
        self._chosen: dict[str, Any] = {}
        self._open: dict[str, Action] = {}
        self._heard: set[int] = set()

    def heard(self, role: str, text: str) -> None:
        """Each text is passed on once: agents send the whole conversation again with each call."""
        if self.guard.flow is None or role not in ROLES:
            return
        mark = hash((role, text))
        if mark in self._heard:
            return
        if len(self._heard) >= HEARD_MAX:
            self._heard.clear()
        self._heard.add(mark)
        self.guard.heard(role, text)

    def asked_model(self, event: ModelRequest) -> Verdict:
        if self.guard.flow is not None:
            for role, text in spoken(event.messages):
                self.heard(role, text)
            for name in ("system", "instructions"):
                if isinstance(event.parameters.get(name), str):
                    self.heard("system", event.parameters[name])
        action = Action(
            kind="model", name=event.model, call_id=event.call_id, provider=event.provider,
            input_chars=event.input_chars, tokens_max=estimates.tokens_max(event.parameters),
        )  # fmt: skip
        return self.guard.judge(action, event.ts)

    def model_answered(self, event: ModelResponse) -> None:
        self.guard.model_returned(
            event.input_tokens, event.output_tokens, event.usd, event.ts, event.model,
            event.call_id,
        )  # fmt: skip

    def chosen(self, event: ToolArguments) -> Verdict | None:
        """A call whose arguments cannot be read is never made: nothing else judges it."""
        if len(self._chosen) >= CALLS_MAX:
            del self._chosen[next(iter(self._chosen))]
        self._chosen[event.call_id] = event.arguments
        if not event.parse_error:
            return None
        return self.guard.verdict(
            kind="deny", guard="arguments", rule=f"tools.{event.tool}.arguments",
            reason=f"the arguments cannot be read: {event.parse_error}", advice="RETRYABLE",
        )  # fmt: skip

    def called(self, event: ToolInvoked, kind: ToolKind | None) -> Verdict:
        action = Action(
            kind="tool", name=event.tool, call_id=event.call_id, declared_kind=kind,
            arguments=self._chosen.pop(event.call_id, None), known_tools=self.tools,
        )  # fmt: skip
        if len(self._open) >= CALLS_MAX:
            del self._open[next(iter(self._open))]
        self._open[event.call_id] = action
        return self.guard.judge(action, event.ts)

    def returned(self, event: ToolReturned) -> None:
        self._chosen.pop(event.call_id, None)
        action = self._open.pop(event.call_id, None)
        if action is not None:
            failed = event.error or ("" if event.status == "ok" else event.status)
            self.guard.returned(action, event.result, failed, event.ts)

    def decided(self, event: ScopeDecision) -> None:
        """A refusal of a tool that the agent was never offered is no pact's to lift."""
        if event.rule == "tools.unknown" and not event.shadow:
            self._chosen.pop(event.call_id, None)

    def would(self, event: ToolReturned) -> Verdict | None:
        if event.status != "denied" or event.call_id not in self._chosen:
            return None
        call = Action(
            kind="tool", name=event.tool, call_id=event.call_id, known_tools=self.tools,
            arguments=self._chosen[event.call_id],
            declared_kind=self.kinds.get((self.guard.place.agent, event.tool)),
        )  # fmt: skip
        return self.guard.would(call, event.ts)


class Following:
    """The runs being followed, and what is known across them: which kind an agent's tools declared,
    and what stands in its memory. Not for several threads."""

    def __init__(
        self, pact_of: Callable[[str], Pact], profile_of: ProfileOf, schemas_of: Schemas,
        untaught: Pact | None = None,
    ) -> None:  # fmt: skip
        """`untaught`: the pact for runs of crews that have no profile, instead of their own."""
        self._pact_of = pact_of
        self._untaught = untaught
        self._profile_of = profile_of
        self._schemas_of = schemas_of
        self._runs: dict[str, Run] = {}
        self._kinds: dict[tuple[str, str], ToolKind] = {}
        self._memories: dict[str, Any] = {}
        self._with_schemas: dict[tuple[str, str], Pact] = {}
        self._mark = f"{_MARK}{next(_JUDGES)}"
        self._own: dict[str, Pact] = {}

    def of(self, event: Base) -> Run:
        """The event's run, which may have begun before the recording did."""
        run = self._runs.get(event.run_id)
        return run if run is not None else self._put(event, self._pact(event.agent), _at(event))

    def known(self, run_id: str) -> Run | None:
        return self._runs.get(run_id)

    def let_go(self, run_id: str) -> None:
        self._runs.pop(run_id, None)

    def began(self, run: Run, event: RunStart) -> None:
        pact = self._pact(event.agent, crew_of(event))
        schemas = self._schemas_of(event.labels)
        if schemas:
            pact = self._schooled(pact, event.labels, schemas)
        run = self._put(event, pact, _at(event, task_type_of(event), event.goal), crew_of(event))
        # What our own processes name there are the tools they have declared, not all there are.
        run.tools = tuple(event.tools) if is_foreign(event) else ()
        if event.labels.get("system"):
            run.heard("system", event.labels["system"])

    def called(self, run: Run, event: ToolInvoked) -> Verdict:
        kind: ToolKind | None = None
        if event.kind in ("read", "compensable", "irreversible"):
            kind = event.kind  # type: ignore[assignment] # just looked at
            if kind is not None and len(self._kinds) < KINDS_MAX:
                self._kinds[event.agent, event.tool] = kind
        return run.called(event, kind)

    def status(self, run: Run, event: Status) -> None:
        """Time spent paused is not the run's; what a run calls itself later is what it is."""
        if event.status == "paused":
            run.paused_ns = run.paused_ns or event.ts
        elif run.paused_ns:
            run.guard.paused(event.ts - run.paused_ns)
            run.paused_ns = 0
        before = run.guard.place
        goal, task_type = event.goal or before.goal, event.task_type or before.task_type
        if (goal, task_type) != (before.goal, before.task_type):
            run.guard.placed(msgspec.structs.replace(before, goal=goal, task_type=task_type))

    def wrote(self, run: Run, event: MemoryWrite) -> None:
        if event.value_hash and event.value is not None:
            if len(self._memories) >= MEMORIES_MAX:
                del self._memories[next(iter(self._memories))]
            self._memories[event.value_hash] = event.value
        run.guard.remembered(event.key, event.value, wrote=True)

    def read(self, run: Run, event: MemoryRead) -> None:
        """A read is recorded with the hash of what was read; what that is, its writing told."""
        if event.found:
            value = self._memories.get(event.value_hash)
            run.guard.remembered(event.key, value, wrote=False)

    def _pact(self, agent: str, crew: str = "") -> Pact:
        """The agent's pact under a version of our own: what runs of one task share is kept with the
        compiled pact, and must not be shared with another judge's or with live runs."""
        pact = self._pact_of(agent)
        if self._untaught is not None and self._profile_of(crew or agent) is None:
            pact = self._untaught
        own = self._own.get(pact.version)
        if own is None or not pact.version:
            version = pact.version or version_of(pact)
            own = msgspec.structs.replace(pact, version=version + self._mark)
            if len(self._own) < SCHEMAS_MAX:
                self._own[version] = own
        return own

    def _put(self, event: Base, pact: Pact, place: Place, crew: str = "") -> Run:
        self._runs.pop(event.run_id, None)
        if len(self._runs) >= RUNS_MAX:
            del self._runs[next(iter(self._runs))]
        profile = self._profile_of(crew or event.agent)
        guard = RunGuard(pact, event.ts, place, profile=profile, watching=True)
        run = self._runs[event.run_id] = Run(guard, self._kinds)
        return run

    def _schooled(
        self, pact: Pact, labels: Mapping[str, str], schemas: Mapping[str, Mapping[str, Any]]
    ) -> Pact:
        key = (pact.version, labels.get("tool_schema", "") or labels.get("domain", ""))
        known = self._with_schemas.get(key)
        if known is None:
            known = with_schemas(pact, schemas)
            known = msgspec.structs.replace(known, version=known.version + self._mark)
            if len(self._with_schemas) < SCHEMAS_MAX:
                self._with_schemas[key] = known
        return known


def version_said(version: str) -> str:
    """The version of a pact as it was given."""
    return version.partition(_MARK)[0]


def _at(event: Base, task_type: str = "", goal: str = "") -> Place:
    return Place(
        agent=event.agent, room=event.room, environment=event.environment, run_id=event.run_id,
        task_id=event.task_id, task_type=task_type, goal=goal,
    )  # fmt: skip


def with_schemas(pact: Pact, schemas: Mapping[str, Mapping[str, Any]]) -> Pact:
    """The pact with the tools' schemas put where it says nothing itself, as another version. A pact
    that allows any tool still does."""
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
    schooled = msgspec.structs.replace(pact, tools=tools)
    return msgspec.structs.replace(schooled, version=version_of(schooled))
