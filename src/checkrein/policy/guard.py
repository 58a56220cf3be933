"""The guard of one run: each action is judged before it is made.

`RunGuard` is pure: it opens nothing and reads no clock. What is asked, and in which order, stands
in `guards.GUARDS`; the strictest answer decides (deny, ask, modify, steer, allow), and one that
errs refuses, under its own name. Every refusal carries the rule, a reason in plain words, and what
the agent may do about it (`advice`).

What a refusal does not do: it does not spend. Only a call that goes on counts towards a budget, a
loop, a sequence. An agent that keeps asking for what is refused is cut off: the sixth refusal in a
row without an allowed tool call between is of the class that halts.
"""

from collections import deque
from contextlib import AbstractContextManager, nullcontext, suppress
from threading import Lock
from typing import Any

import msgspec

from checkrein.policy import guards, loop
from checkrein.policy.carried import flow_under, past_under
from checkrein.policy.case import Case
from checkrein.policy.conditions.types import EvaluationError
from checkrein.policy.facts import Facts
from checkrein.policy.kinds import seems_read
from checkrein.policy.rulebook import Book, Resolve, book_of
from checkrein.policy.run_budgets import RunBudgets
from checkrein.policy.types import Action, Deed, Finding, Pact, Place, Route, Verdict

OPEN_CALLS_MAX = 256
REFUSALS_MAX = 5
PAST_MAX = 256
_FREE: AbstractContextManager[Any] = nullcontext()
_STRICTNESS = {"deny": 4, "ask": 3, "modify": 2, "steer": 1, "allow": 0}


class RunGuard:
    """Judges one run's actions by its pact. Safe to call from several threads.

    Times are nanoseconds of one clock that does not step back (`World.monotonic_ns`). State is
    bounded: 16 calls and 256 fingerprints for loops, 256 calls in flight, 256 past calls for rules
    that are added later, 10,000 values of `once_per`, and what sequences and flow state.

    `watching`: the verdicts are for the record only; a call that would be refused counts as made.
    """

    def __init__(
        self, pact: Pact, started_ns: int = 0, place: Place | None = None, *,
        resolve: Resolve | None = None, profile: Any = None, watching: bool = False,
    ) -> None:  # fmt: skip
        self.place = place or Place()
        self._run_budgets = RunBudgets(pact, started_ns)
        self.spent = self._run_budgets.spent
        self.reserved = self._run_budgets.reserved
        self._facts = Facts(self.place, self.spent)
        self.loops = loop.LoopState()
        self.open: dict[str, Case] = {}
        self.once: set[tuple[str, str]] = set()
        self.now_ns = started_ns
        self.refused_in_a_row = 0
        self.watching = watching
        self.task_past: Any = None
        self.resolve = resolve
        self.profile = profile
        self._ended: deque[tuple[Deed, bool]] = deque(maxlen=PAST_MAX)
        self._lock = Lock()
        self.past: Any = None
        self.flow: Any = None
        self._put_in_force(pact, None)
        self._see_budgets()

    # -- before an action ---------------------------------------------------------------------

    def judge(self, action: Action, now_ns: int) -> Verdict:
        """The verdict on an action about to be made. A tool call that goes on (allow, modify,
        steer) counts at once, and is in flight until `returned`. Never raises."""
        with self._lock:
            self._see(now_ns)
            if action.kind != "tool":
                return self._judge_model(action)
            if self.task_past is None:
                return self._judge_tool(action, granted=False)
            with self.task_past.lock:  # no call of another run of the task comes in between
                return self._judge_tool(action, granted=False)

    def granted(self, action: Action, now_ns: int) -> Verdict:
        """As `judge`, of a call that somebody has said yes to: nothing is asked again, what is
        forbidden stays forbidden. `action.arguments` are what was approved."""
        with self._lock:
            self._see(now_ns)
            if action.kind == "tool":
                with self.task_past.lock if self.task_past is not None else _FREE:
                    return self._judge_tool(action, granted=True)
            verdict = self._judge_model(action)
            return self._allow if verdict.kind == "ask" else verdict

    def would(self, action: Action, now_ns: int) -> Verdict:
        """What `judge` would say of a tool call; nothing is counted, and nothing begins."""
        with self._lock:
            self._see(now_ns)
            return self._judge_tool(action, granted=False, counts=False)

    def asked(self, kind: str, name: str) -> tuple[str, ...]:
        """The guards that are asked about an action of this kind and name, in order."""
        if kind == "tool":
            found = self._guards.get(name)
            if found is None:
                found = self._asked_of(self._case(Action(kind="tool", name=name)))
            return tuple(each for each, _ in found)
        return ("models", "budgets") if self.budgeted else ("models",)

    def step(self, now_ns: int) -> Verdict:
        """A new step is about to begin. Counts it if allowed."""
        with self._lock:
            self._see(now_ns)
            try:
                found = guards.judge_step(self)
            except Exception as error:  # a guard that errs says no
                found = guards.erred("budgets", "budgets", error)
            if found is not None and not self.watching:
                return self._said("budgets", found)
            self.spent.steps += 1
            if found is not None:
                return self._said("budgets", found)
            return self._run_budgets.warning(self.now_ns, self.verdict) or self._allow

    def routed(self, model: str, now_ns: int) -> Route | None:
        """The route that the pact gives a call of this model; None: as it was asked. A condition
        that has no answer does not hold."""
        with self._lock:
            if not self.book.routes:
                return None
            self._see(now_ns)
            facts = self._facts.of_model(model, now_ns)
            for condition, route in self.book.routes:
                with suppress(EvaluationError):
                    if condition(facts):
                        return route
            return None

    # -- what the run tells -------------------------------------------------------------------

    def returned(self, action: Action, result: Any, error: str, now_ns: int) -> None:
        """A judged tool call came back; `error` is empty when it succeeded. Never raises."""
        with self._lock:
            self._see(now_ns)
            case = self.open.pop(action.call_id or action.name, None)
            if case is None:
                return
            if error and result is None:
                result = error
            failed = bool(error)
            deed = case.deed
            reads = deed.kind == "read" or (deed.kind is None and seems_read(action.name))
            loop.returned(self.loops, case.call, result, failed, reads=reads)
            if failed:
                self.once.difference_update(case.once)
            self._ended.append((deed, not failed))
            if self.book.sequences is not None:
                self.book.sequences.ended(self.past, deed, not failed, self.task_past, now_ns)
            if self.book.flow is not None:
                self.book.flow.returned(self.flow, deed, result, failed)

    def model_returned(
        self, input_tokens: int, output_tokens: int, usd: float | None, now_ns: int,
        model: str = "", call_id: str = "",
    ) -> None:  # fmt: skip
        """A model call came back. `usd` None: nobody knows its price. That is counted, and never
        taken for zero."""
        with self._lock:
            self._see(now_ns)
            self._facts.model = model or self._facts.model
            self._run_budgets.returned(call_id, model, input_tokens, output_tokens, usd)

    def placed(self, place: Place) -> None:
        """Whose run this is, as soon as that is known; the goal's own words are the user's."""
        with self._lock:
            before, self.place = self.place, place
            self._facts.placed(place)
            if place.task_id != before.task_id:
                self.task_past = self.book.task_past(place.task_id)
            if self.flow is None:
                return
            if place.task_type != before.task_type:
                self.flow = self.book.flow.new_state(self.profile, place.task_type)
            if place.goal:
                self.book.flow.heard(self.flow, "user", place.goal)

    def heard(self, role: str, text: str) -> None:
        """What the user or the system said: where a value that stands there comes from is known."""
        with self._lock:
            if self.book.flow is not None:
                self.book.flow.heard(self.flow, role, text)

    def remembered(self, key: str, value: Any, *, wrote: bool) -> None:
        """Something went into the agent's memory, or came out of it."""
        with self._lock:
            if self.book.flow is not None:
                self.book.flow.remembered(self.flow, key, value, wrote)

    def said_confidence(self, confidence: float) -> None:
        """How sure the agent says it is, from 0 to 1."""
        self._facts.confidence = float(confidence)

    def objections(self, output: Any) -> list[str]:
        """What the pact's `output` schema has against what the run hands over."""
        if self.book.output is None:
            return []
        found: list[str] = self.book.output.objections(output)
        return found

    def paused(self, duration_ns: int) -> None:
        """The run stood still by order for so long: wall-clock budgets do not count it."""
        with self._lock:
            self.spent.paused_ns += max(0, duration_ns)

    def raised(self, name: str, amount: float) -> None:
        """Somebody has raised a budget of this run (`usd`, `tokens`, `tool_calls`, `steps`,
        `wall_s`) by so much. A name that is no budget changes nothing."""
        with self._lock:
            self._run_budgets.raised(name, amount)
            self._see_budgets()

    def know(self, profile: Any) -> None:
        """Which flows are usual, for a run that began before that was known; one that began with a
        profile keeps it."""
        with self._lock:
            if self.profile is None and profile is not None:
                self.profile = profile
                if self.flow is not None:
                    self.flow.know(profile)

    def adopt(self, pact: Pact) -> None:
        """From now on this pact. What the run has spent and done stays; rules that are new are told
        what the run did before (its last 256 calls)."""
        with self._lock:
            if pact.version != self.book.pact.version or not pact.version:
                self._put_in_force(pact, self.book)
                self._run_budgets.put_in_force(pact)
                self._see_budgets()

    def forked(self) -> None:
        """To be called in a forked child: the lock may be one that another thread of the parent
        held."""
        self._lock = Lock()
        if self.task_past is not None:
            self.task_past.forked()

    # -- inside -------------------------------------------------------------------------------

    @property
    def pact(self) -> Pact:
        return self.book.pact

    def _put_in_force(self, pact: Pact, before: Book | None) -> None:
        book = book_of(pact, self.resolve)
        task_past = book.task_past(self.place.task_id)
        in_flight = [(case.deed, None) for case in self.open.values()]
        past = past_under(book, before, self.past, [*self._ended, *in_flight])
        flow = flow_under(book, self.place, self.profile)
        self.book: Book = book
        self.past, self.task_past = past, task_past
        self.flow = flow if self.flow is None or flow is None else self.flow
        self._guards: dict[str, tuple[tuple[str, guards.Guard], ...]] = {}
        self._told = past is not None or self.flow is not None or bool(book.duties)
        self._allow = self.verdict(kind="allow")

    def _see_budgets(self) -> None:
        self.budgets, self.budgeted = self._run_budgets.budgets, self._run_budgets.some

    def _judge_tool(self, action: Action, *, granted: bool, counts: bool = True) -> Verdict:
        name, worst = "tools", None
        try:
            case = self._case(action)
            for name, guard in self._asked_of(case):
                finding = guard(self, case)
                if finding is None or (granted and finding.kind == "ask"):
                    continue
                if finding.kind == "deny":
                    worst = (name, finding)
                    break
                if worst is None or _STRICTNESS[finding.kind] > _STRICTNESS[worst[1].kind]:
                    worst = (name, finding)
        except Exception as error:  # a guard that errs says no
            rule = f"tools.{action.name}.{name}"
            broken = self._said(name, guards.erred(name, rule, error))
            return self._refuse(broken) if counts else broken
        verdict = None if worst is None else self._said(*worst, case=case)
        if not counts:
            return verdict or self._allow
        if verdict is not None and not self.watching:
            if verdict.kind == "deny":
                return self._refuse(verdict)
            if verdict.kind == "ask":
                return verdict
        self._begin(case)
        if verdict is None and case.changed:
            verdict = self.verdict(
                kind="modify", guard="set", rule=f"tools.{action.name}.set",
                reason="the pact gives these arguments", arguments=case.arguments,
            )  # fmt: skip
        verdict = verdict or self._run_budgets.warning(self.now_ns, self.verdict) or self._allow
        if case.duties and not verdict.duties:
            verdict = msgspec.structs.replace(verdict, duties=case.duties)
        return verdict

    def _case(self, action: Action) -> Case:
        arguments = action.arguments
        args = arguments if type(arguments) is dict else {"value": arguments}
        listed = self.book.tool(action.name)
        kind = listed.kind or action.declared_kind
        facts: dict[str, Any] = {}
        if self._told or listed.reads:
            reads_spent = "spent" in listed.reads or self.past is not None
            facts = self._facts.of_tool(action, args, kind, self.now_ns if reads_spent else None)
        deed = Deed(
            tool=action.name, args=args, call_id=action.call_id, kind=kind, at_ns=self.now_ns,
            facts=facts,
        )  # fmt: skip
        return Case(action, listed, deed)

    def _asked_of(self, case: Case) -> tuple[tuple[str, guards.Guard], ...]:
        asked = self._guards.get(case.action.name)
        if asked is None:
            asked = guards.needed(case.listed.books, self.book)
            if len(self._guards) < 1024:
                self._guards[case.action.name] = asked
        return asked

    def _begin(self, case: Case) -> None:
        """The call goes on: it counts, and is in flight."""
        self.refused_in_a_row = 0
        self.spent.tool_calls += 1
        if len(self.open) >= OPEN_CALLS_MAX:
            del self.open[next(iter(self.open))]
        self.open[case.action.call_id or case.action.name] = case
        if case.once:
            self.once.update(case.once)
        if self.past is not None:
            self.book.sequences.began(self.past, case.deed, self.task_past)

    def _judge_model(self, action: Action) -> Verdict:
        try:
            found = guards.judge_model(self, action)
            if found is None and self.budgeted:
                found = guards.judge_budgets(self, None) or guards.judge_price(self, action)
            name = "models" if found is not None and found.rule == "models" else "budgets"
        except Exception as error:  # a guard that errs says no
            name, found = "models", guards.erred("models", "models", error)
        if found is not None and not self.watching:
            verdict = self._said(name, found)
            return self._refuse(verdict) if verdict.kind == "deny" else verdict
        if self.budgeted:
            self._run_budgets.reserve(action)
        said = self._said(name, found) if found is not None else None
        return said or self._run_budgets.warning(self.now_ns, self.verdict) or self._allow

    def verdict(self, **fields: Any) -> Verdict:
        """A verdict under this run's pact."""
        pact = self.book.pact
        return Verdict(pact=pact.pact, pact_version=pact.version, shadow=self.watching, **fields)

    def _said(self, guard: str, finding: Finding, case: Case | None = None) -> Verdict:
        """A budget that is used up is of the class that halts, unless somebody raises it."""
        exhausted = guard == "budgets" and finding.advice == "TERMINAL"
        changed = case is not None and case.changed
        return self.verdict(
            kind="modify" if changed and finding.kind == "steer" else finding.kind,
            guard=guard, rule=finding.rule, reason=finding.reason, advice=finding.advice,
            guidance=finding.guidance, inputs=finding.inputs, runaway=exhausted,
            duties=case.duties if case is not None else (),
            arguments=case.arguments if case is not None and changed else finding.arguments,
        )  # fmt: skip

    def _see(self, now_ns: int) -> None:
        self.now_ns = now_ns
        if not self.spent.started_ns:
            self.spent.started_ns = now_ns

    def _refuse(self, refusal: Verdict) -> Verdict:
        if self.watching:
            return refusal
        self.refused_in_a_row += 1
        if self.refused_in_a_row <= REFUSALS_MAX or refusal.runaway:
            return refusal
        return msgspec.structs.replace(
            refusal,
            reason=f"{refusal.reason}; this is refusal {self.refused_in_a_row} in a row",
            advice="TERMINAL",
            runaway=True,
        )
