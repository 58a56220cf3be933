"""Sequence rules, compiled: judging by them, and telling them what happens."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from checkrein.policy.conditions.compiling import STANDARD, compile_condition
from checkrein.policy.conditions.types import Condition
from checkrein.policy.sequences.atoms import (
    FormerlyAtom,
    JoinNode,
    Look,
    Node,
    NotNode,
    OnceAtom,
    TallyAtom,
)
from checkrein.policy.sequences.operands import Compile, NamesOf, Operands, facts_of, matches
from checkrein.policy.sequences.reading import read_rule
from checkrein.policy.sequences.tracks import Followed, State, Track
from checkrein.policy.sequences.types import (
    Both,
    Either,
    Formerly,
    Formula,
    Not,
    Once,
    Past,
    Rule,
    SequenceError,
    Tally,
)
from checkrein.policy.types import Deed, Finding

RULES_MAX = 10_000
_PLANS_MAX = 4096
_RANK = {"steer": 1, "ask": 2, "deny": 3}


def compile_sequences(
    rules: Sequence[str],
    names_of: NamesOf = lambda tool: STANDARD,
    compile_condition: Compile = compile_condition,
) -> "Sequences":
    """The rules, ready to judge. `names_of` gives what conditions can read of a call of a tool, and
    for "" what they can read of any. Raises SequenceError for the first rule that is none."""
    if len(rules) > RULES_MAX:
        raise SequenceError(f"{len(rules)} rules; there may be {RULES_MAX}", RULES_MAX)
    tracks: dict[Any, Track] = {}
    made: list[Compiled] = []
    compiler = _Compiler(compile_condition, names_of, tracks)
    for index, text in enumerate(rules):
        try:
            made.append(compiler.rule(index, text))
        except SequenceError as error:
            raise SequenceError(error.problem, index, error.line, error.column) from None
    return Sequences(made, list(tracks.values()))


@dataclass(frozen=True, slots=True)
class Compiled:
    index: int
    rule: Rule
    condition: Condition | None
    applies: Node

    def says(self, look: Look, tool: str) -> Finding:
        """What is said when it applies. Raises whatever a condition raises."""
        told, rule = self.applies.why(look, True), self.rule
        done = {"deny": "is refused", "ask": "is asked about", "steer": "goes on"}[rule.verb]
        return Finding(
            kind=rule.verb,
            rule=f"sequence[{self.index}]",
            reason=f"`{tool}` {done}: {told.text}",
            advice="" if rule.verb == "steer" else told.advice,
            guidance=rule.say,
            inputs=told.inputs,
        )

    def erred(self, error: Exception, tool: str) -> Finding:
        return Finding(
            kind="deny",
            rule=f"sequence[{self.index}]",
            reason=f"`{tool}` is refused: the rule `{self.rule.text.strip()}` has no answer for "
            f"this call ({error}), so the answer is no",
            inputs={"error": f"{type(error).__name__}: {error}"},
        )


class Plan(msgspec.Struct, frozen=True):
    """What concerns the calls of one tool."""

    rules: tuple[Compiled, ...]
    tracks: Followed
    own: Followed
    """Those of `tracks` that follow the run's past, when the task's is kept apart in `shared`."""
    shared: Followed
    follows: frozenset[int]
    ends: bool
    shared_ends: bool


class Sequences:
    """The compiled rules of a pact; holds no past, and may be used from any thread. The past is in
    states: one for each run, and one for each task whose runs share it (`State` says how).

    Whoever judges tells what then happens: `began` for each call that is let pass, before it is
    made, and `ended` when it comes back. `Deed.at_ns` is of a clock that does not step back, the
    same for all that share a state. Where no task state is given, the run's own stands for it.
    """

    def __init__(self, rules: list[Compiled], tracks: list[Track]) -> None:
        self.rules = tuple(rules)
        self._tracks = tuple(tracks)
        self._strictest = sorted(rules, key=lambda each: -_RANK[each.rule.verb])
        self._plans: dict[tuple[str, str | None], Plan] = {}
        self.looks_at_tasks = any(each.in_task for each in tracks)

    def __len__(self) -> int:
        return len(self.rules)

    def new_state(self) -> State:
        """No past: for a run, or for a task."""
        return State([None] * len(self._tracks))

    def judge(self, state: State, deed: Deed, task_state: State | None = None) -> Finding | None:
        """What the strictest of the rules that concern the call says; None: nothing against it.
        Never raises: a rule that errs denies."""
        plan = self._plans.get((deed.tool, deed.kind)) or self._plan(deed)
        if not plan.rules:
            return None
        if task_state is None:
            return self._judge(plan, state, deed, state)
        with task_state.lock:
            return self._judge(plan, state, deed, task_state)

    def _judge(self, plan: Plan, state: State, deed: Deed, shared: State) -> Finding | None:
        state.see(deed.at_ns)
        shared.see(deed.at_ns)
        look = Look(state, shared, deed.facts or facts_of(deed), plan.follows)
        strictest: Finding | None = None
        for rule in plan.rules:
            try:
                if (rule.condition is not None and rule.condition(look.facts) is not True) or (
                    not rule.applies.holds(look)
                ):
                    continue
                finding = rule.says(look, deed.tool)
            except Exception as error:  # a rule that errs says no
                finding = rule.erred(error, deed.tool)
            if strictest is None or _RANK[finding.kind] > _RANK[strictest.kind]:
                strictest = finding
                if finding.kind == "deny":
                    break
        return strictest

    def began(self, state: State, deed: Deed, task_state: State | None = None) -> None:
        """A call was let pass and is about to be made."""
        plan = self._plans.get((deed.tool, deed.kind)) or self._plan(deed)
        if not plan.tracks:
            return
        facts = facts_of(deed)
        if task_state is None or task_state is state:
            state.began(deed.call_id or deed.tool, deed.at_ns, facts, plan.tracks)
            return
        if plan.own:
            state.began(deed.call_id or deed.tool, deed.at_ns, facts, plan.own)
        if plan.shared:
            with task_state.lock:
                task_state.began(_name(deed, facts), deed.at_ns, facts, plan.shared)

    def ended(
        self, state: State, deed: Deed, ok: bool, task_state: State | None = None, at_ns: int = 0
    ) -> None:
        """A call that began came back; `ok`: it succeeded. It is known by its `call_id` (by its
        tool without one), in a task state by its run's id too. `at_ns`: when."""
        plan = self._plans.get((deed.tool, deed.kind)) or self._plan(deed)
        if not plan.ends:
            return
        facts, now_ns = facts_of(deed), max(at_ns, deed.at_ns)
        if task_state is None or task_state is state:
            state.ended(deed.call_id or deed.tool, now_ns, ok, facts, plan.tracks)
            return
        if plan.own:
            state.ended(deed.call_id or deed.tool, now_ns, ok, facts, plan.own)
        if plan.shared_ends:
            with task_state.lock:
                task_state.ended(_name(deed, facts), now_ns, ok, facts, plan.shared)

    def warm(
        self,
        state: State,
        past: Iterable[tuple[Deed, bool | None]],
        task_state: State | None = None,
    ) -> None:
        """Takes in recorded calls, in the order they began, as if each had come back before the
        next; one whose outcome is None is still in flight."""
        for deed, ok in past:
            self.began(state, deed, task_state)
            if ok is not None:
                self.ended(state, deed, ok, task_state)

    def go_on(
        self, before: "Sequences", state: State, past: Iterable[tuple[Deed, bool | None]] = ()
    ) -> State:
        """A state for these rules that goes on from one of the rules `before`, which is then no
        longer to be used: what both follow is kept as it stands, only what is new is told the
        `past` (see `warm`; calls in flight, with an outcome of None, among it)."""
        mine = {track.name: track for track in self._tracks}
        kept = {track.index: mine[track.name] for track in before._tracks if track.name in mine}
        new = State([None] * len(self._tracks), tick=state.tick)
        fresh = frozenset(mine.values()) - frozenset(kept.values())
        for deed, ok in past:
            tracks = tuple(each for each in self._plan(deed).tracks if each in fresh)
            name, facts = deed.call_id or deed.tool, facts_of(deed)
            new.began(name, deed.at_ns, facts, tracks)
            if ok is not None:
                new.ended(name, deed.at_ns, ok, facts, tracks)
        for old, track in kept.items():
            new.slots[track.index] = state.slots[old]
        new.join(state.open, kept)
        new.see(state.now_ns)
        return new

    def _plan(self, deed: Deed) -> Plan:
        tool, kind = deed.tool, deed.kind
        tracks = tuple(
            each for each in self._tracks if matches(each.operand.tools, tool, kind, each.uncertain)
        )
        plan = Plan(
            rules=tuple(r for r in self._strictest if matches(r.rule.tools, tool, kind, True)),
            tracks=tracks,
            own=tuple(each for each in tracks if not each.in_task),
            shared=tuple(each for each in tracks if each.in_task),
            follows=frozenset(each.index for each in tracks),
            ends=any(each.at_end for each in tracks),
            shared_ends=any(each.at_end for each in tracks if each.in_task),
        )
        if len(self._plans) >= _PLANS_MAX:  # tool names are the agent's: they may be without end
            self._plans.clear()
        self._plans[tool, kind] = plan
        return plan


def _name(deed: Deed, facts: Mapping[str, Any]) -> tuple[Any, str]:
    return facts.get("run_id", ""), deed.call_id or deed.tool


class _Compiler:
    """One rule's. Tracks are shared by all rules: the same operand is followed once."""

    def __init__(self, compile: Compile, names_of: NamesOf, tracks: dict[Any, Track]) -> None:
        self._compile, self._names_of, self._tracks = compile, names_of, tracks

    def rule(self, index: int, text: str) -> Compiled:
        rule = read_rule(text)
        self._rule = rule
        self._operands = Operands(self._compile, self._names_of, rule.tools)
        condition = None
        if rule.condition is not None:
            condition = self._operands.expression(rule.condition, rule.tools)
        return Compiled(index, rule, condition, self.node(rule.applies, True))

    def node(self, formula: Formula, applies: bool) -> Node:
        """`applies`: that it holds makes the rule apply (else it lifts it)."""
        match formula:
            case Not(part):
                return NotNode(self.node(part, not applies))
            case Both(parts):
                return JoinNode(tuple(self.node(part, applies) for part in parts), False)
            case Either(parts):
                return JoinNode(tuple(self.node(part, applies) for part in parts), True)
            case Tally():
                more = applies if formula.relation in (">", ">=") else not applies
                more = more or formula.relation in ("==", "!=")
                return TallyAtom(formula, self.track("tally", formula.past, more, formula))
            case Formerly() | Once():
                sorts = ("succeeded", "reached")
                if isinstance(formula, Once):
                    sorts = ("reached", "succeeded")
                done = self.track(sorts[0], formula.past, applies, formula)
                undone = None
                if formula.since is not None:
                    undone = self.track(sorts[1], formula.since, not applies, formula)
                atom: Callable[..., Node] = OnceAtom if isinstance(formula, Once) else FormerlyAtom
                return atom(formula, done, undone)

    def track(self, sort: Any, past: Past, uncertain: bool, atom: Formerly | Once | Tally) -> Track:
        operand = self._operands.operand(past)
        expression, span_ns = None, None
        texts: list[Hashable] = [past.tools.text, past.condition and past.condition.text]
        if operand.keyed:
            texts.append(self._rule.tools.text)
        if not isinstance(atom, Tally) and atom.since is not None:
            # Those two are compared by their ticks: they are followed together, or not at all.
            texts += [atom.past, atom.since, self._rule.tools.text]
        if isinstance(atom, Tally):
            span_ns = atom.within_ns
            if atom.amount is not None:
                expression = self._operands.expression(atom.amount, past.tools, "any")
            texts.append(atom.amount and atom.amount.text)
        name = (sort, *texts, uncertain, span_ns, atom.in_task)
        if name not in self._tracks:
            self._tracks[name] = Track(
                len(self._tracks), name, sort, operand, uncertain, expression, span_ns, atom.in_task
            )
        return self._tracks[name]
