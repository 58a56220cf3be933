"""The guards of one run: each action is judged before it is made.

`RunGuard` is pure: it opens nothing and reads no clock. The guards stand in `GUARDS` in the order
they are asked; the first that refuses decides. A guard that errs refuses, under its own name. Every
refusal carries the rule, a reason in plain words, and what the agent may do about it (`advice`).

What a refusal does not do: it does not spend. Only an allowed call counts towards a budget or a
loop. An agent that keeps asking for what is refused is cut off: the sixth refusal in a row without
an allowed tool call between is of the class that halts.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase
from threading import Lock
from typing import Any

import msgspec

from checkrein.policy import loop
from checkrein.policy.budgets import Spent, has_budgets, limits, warning_marks
from checkrein.policy.kinds import declared_kind, seems_read
from checkrein.policy.nearest import did_you_mean
from checkrein.policy.types import Action, Advice, Pact, Verdict
from checkrein.policy.units import duration_text

OPEN_CALLS_MAX = 256
REFUSALS_MAX = 5
_TOOLS_SHOWN_MAX = 20


class RunGuard:
    """Judges one run's actions by its pact. Safe to call from several threads.

    Times are nanoseconds of one clock that does not step back (`World.monotonic_ns`). State is
    bounded: 16 calls and 256 fingerprints for loops, 256 calls in flight, a few counters.
    """

    def __init__(self, pact: Pact, started_ns: int = 0) -> None:
        self.pact = pact
        self.spent = Spent(started_ns=started_ns)
        self.loops = loop.LoopState()
        self.open: dict[str, loop.Call] = {}
        self.now_ns = started_ns
        self.refused_in_a_row = 0
        self._warned: set[str] = set()
        self._budgeted = has_budgets(pact)
        self._marks = warning_marks(pact)
        self._lock = Lock()
        self._allow = self.verdict(kind="allow")
        self._models: dict[str, bool] = {}

    def judge(self, action: Action, now_ns: int) -> Verdict:
        """The verdict on an action about to be made: allow, deny, or steer (go on, and give the
        agent the `guidance`). An allowed tool call counts at once, and is in flight until
        `returned`. Never raises."""
        with self._lock:
            self._see(now_ns)
            call = None
            if action.kind == "tool":
                call = loop.call_of(action.name, action.arguments, now_ns)
            for name, guard in GUARDS:
                try:
                    refusal = guard(self, action, call)
                except Exception as error:  # a guard that errs says no
                    refusal = self._erred(name, error)
                if refusal is not None:
                    return self._refuse(refusal)
            if call is not None:
                self.refused_in_a_row = 0
                self.spent.tool_calls += 1
                if len(self.open) >= OPEN_CALLS_MAX:
                    del self.open[next(iter(self.open))]
                self.open[action.call_id or action.name] = call
            return self._warning() or self._allow

    def returned(self, action: Action, result: Any, error: str, now_ns: int) -> None:
        """A judged tool call came back; `error` is empty when it succeeded. Never raises."""
        with self._lock:
            self._see(now_ns)
            call = self.open.pop(action.call_id or action.name, None)
            if call is None:
                return
            if error and result is None:
                result = error
            kind = declared_kind(self.pact, action.name, action.declared_kind)
            reads = kind == "read" or (kind is None and seems_read(action.name))
            loop.returned(self.loops, call, result, bool(error), reads=reads)

    def model_returned(
        self, input_tokens: int, output_tokens: int, usd: float | None, now_ns: int, model: str = ""
    ) -> None:
        """A model call came back. `usd` None: nobody knows its price. That is counted, and never
        taken for zero: see `judge_budgets`."""
        with self._lock:
            self._see(now_ns)
            self.spent.tokens += input_tokens + output_tokens
            if usd is not None:
                self.spent.usd += usd
            else:
                self.spent.unpriced += 1
                self.spent.unpriced_model = model

    def step(self, now_ns: int) -> Verdict:
        """A new step is about to begin. Counts it if allowed."""
        with self._lock:
            self._see(now_ns)
            try:
                refusal = judge_budgets(self, Action(kind="model", name=""), None)
                steps = self.pact.budgets.steps
                if refusal is None and steps is not None and self.spent.steps >= steps:
                    refusal = self.over("steps", f"{self.spent.steps} of {steps} steps are used")
            except Exception as error:  # a guard that errs says no
                refusal = self._erred("budgets", error)
            if refusal is not None:
                return refusal
            self.spent.steps += 1
            return self._warning() or self._allow

    def paused(self, duration_ns: int) -> None:
        """The run stood still by order for so long: wall-clock budgets do not count it."""
        with self._lock:
            self.spent.paused_ns += max(0, duration_ns)

    def adopt(self, pact: Pact) -> None:
        """Another version of the pact, in the middle of the run: what was spent stays spent, what
        loops remember stays remembered. The next verdict is the new pact's, whole."""
        with self._lock:
            self.pact = pact
            self._budgeted = has_budgets(pact)
            self._marks = warning_marks(pact)
            self._warned.clear()
            self._models.clear()
            self._allow = self.verdict(kind="allow")

    def forked(self) -> None:
        """To be called in a forked child: the lock may be one that another thread of the parent
        held."""
        self._lock = Lock()

    def verdict(self, **fields: Any) -> Verdict:
        """A verdict under this run's pact."""
        return Verdict(pact=self.pact.pact, pact_version=self.pact.version, **fields)

    def refusal(
        self, guard: str, rule: str, reason: str, advice: Advice, *, runaway: bool = False
    ) -> Verdict:
        return self.verdict(
            kind="deny", guard=guard, rule=rule, reason=reason, advice=advice, runaway=runaway
        )

    def over(self, name: str, reason: str) -> Verdict:
        """A budget is used up: nothing the agent does helps, so this ends the run."""
        return self.refusal("budgets", f"budgets.{name}", reason, "TERMINAL", runaway=True)

    def _see(self, now_ns: int) -> None:
        self.now_ns = now_ns
        if not self.spent.started_ns:
            self.spent.started_ns = now_ns

    def _erred(self, name: str, error: Exception) -> Verdict:
        return self.refusal(
            name, f"{name}.erred", f"the guard `{name}` failed ({error!r}), so the answer is no",
            "ESCALATE",
        )  # fmt: skip

    def _refuse(self, refusal: Verdict) -> Verdict:
        self.refused_in_a_row += 1
        if self.refused_in_a_row <= REFUSALS_MAX or refusal.runaway:
            return refusal
        return msgspec.structs.replace(
            refusal,
            reason=f"{refusal.reason}; this is refusal {self.refused_in_a_row} in a row",
            advice="TERMINAL",
            runaway=True,
        )

    def _warning(self) -> Verdict | None:
        """Once for each budget, when the share `warn_at` of it is used."""
        if not self._budgeted:
            return None
        spent, marks = self.spent, self._marks
        if (
            spent.steps < marks[0]
            and spent.tool_calls < marks[1]
            and spent.tokens < marks[2]
            and spent.usd < marks[3]
            and spent.wall_s(self.now_ns) < marks[4]
        ):
            return None
        for limit in limits(self.pact, self.spent, self.now_ns):
            if limit.share >= self.pact.warn_at and limit.name not in self._warned:
                self._warned.add(limit.name)
                text = f"{limit} are used. Come to an end, or hand over what is left."
                return self.verdict(
                    kind="steer", guard="budgets", rule=f"budgets.{limit.name}",
                    reason=f"{limit} used, {self.pact.warn_at:.0%} is where the pact warns",
                    guidance=text,
                )  # fmt: skip
        return None


def judge_tools(run: RunGuard, action: Action, call: loop.Call | None) -> Verdict | None:
    """Tools that do not exist, or that the pact does not name."""
    if call is None:
        return None
    known, allowed = action.known_tools, run.pact.tools
    if known and action.name not in known:
        shown = ", ".join(known[:_TOOLS_SHOWN_MAX])
        more = f" and {len(known) - _TOOLS_SHOWN_MAX} more" if len(known) > _TOOLS_SHOWN_MAX else ""
        return run.refusal(
            "tools", "tools.unknown",
            f"there is no tool `{action.name}`{did_you_mean(action.name, known)}; "
            f"the tools are: {shown}{more}",
            "RETRYABLE",
        )  # fmt: skip
    if allowed is not None and action.name not in allowed:
        return run.refusal(
            "tools", "tools.pact",
            f"the tool `{action.name}` is not in the pact `{run.pact.pact}`, which allows: "
            f"{', '.join(list(allowed)[:_TOOLS_SHOWN_MAX]) or 'no tool'}",
            "ESCALATE",
        )  # fmt: skip
    return None


def judge_models(run: RunGuard, action: Action, call: loop.Call | None) -> Verdict | None:
    """Models that the pact does not name. A pattern matches the whole name, or the part of it
    behind the provider's (`openai/gpt-5-mini`)."""
    if call is not None or run.pact.models is None or not action.name:
        return None
    allowed = run._models.get(action.name)
    if allowed is None:
        names = (action.name, action.name.rpartition("/")[2])
        allowed = any(fnmatchcase(name, rule) for rule in run.pact.models for name in names)
        if len(run._models) < 64:
            run._models[action.name] = allowed
    if allowed:
        return None
    return run.refusal(
        "models", "models",
        f"the model `{action.name}` is not in the pact `{run.pact.pact}`, which allows: "
        f"{', '.join(run.pact.models)}",
        "ESCALATE",
    )  # fmt: skip


def judge_budgets(run: RunGuard, action: Action, call: loop.Call | None) -> Verdict | None:
    """Budgets that are used up. Steps are judged where a step begins.

    A model whose price nobody knows, under a budget of money: the next model call is refused, since
    the budget cannot be kept; with `unclear: allow` it goes on, counted in tokens only.
    """
    if not run._budgeted:
        return None
    budgets, spent = run.pact.budgets, run.spent
    if (
        call is not None
        and budgets.tool_calls is not None
        and spent.tool_calls >= budgets.tool_calls
    ):
        return run.over(
            "tool_calls", f"{spent.tool_calls} of {budgets.tool_calls} tool calls are used"
        )
    if budgets.tokens is not None and spent.tokens >= budgets.tokens:
        return run.over("tokens", f"{spent.tokens} of {budgets.tokens} tokens are used")
    if budgets.usd is not None:
        if spent.usd >= budgets.usd:
            return run.over("usd", f"{spent.usd:.4f} of {budgets.usd:g} US dollars are spent")
        if spent.unpriced and call is None and run.pact.unclear != "allow":
            return run.refusal(
                "budgets", "budgets.usd.unpriced",
                f"no price is known for the model `{spent.unpriced_model}`, so the budget of "
                f"{budgets.usd:g} US dollars cannot be kept; `unclear: allow` would let it pass",
                "ESCALATE",
            )  # fmt: skip
    if budgets.wall_s is not None and spent.wall_s(run.now_ns) >= budgets.wall_s:
        return run.over(
            "wall", f"the run has taken {duration_text(spent.wall_s(run.now_ns))}, "
            f"its budget is {duration_text(budgets.wall_s)}",
        )  # fmt: skip
    return None


def judge_loops(run: RunGuard, action: Action, call: loop.Call | None) -> Verdict | None:
    """The call that would go on with a loop. Equal calls still in flight count as made."""
    if call is None:
        return None
    loops = run.pact.loops
    stand = loop.standing(run.loops, call, loops)
    rule = loop.broken(stand, loops)
    if not rule and run.open:
        flying = sum(1 for other in run.open.values() if other.exact == call.exact)
        if flying and flying + stand.same >= loops.same_call:
            rule = "same_call"
            stand = loop.Standing(same=flying + stand.same)
    if not rule:
        return None
    return run.refusal("loops", f"loops.{rule}", loop_reason(rule, action.name, stand), "ESCALATE")


def loop_reason(rule: loop.Rule, tool: str, stand: loop.Standing) -> str:
    """What an agent or an operator reads about a loop."""
    match rule:
        case "same_call":
            what = f"the same call of `{tool}` has been made {stand.same} times"
        case "similar_call":
            what = f"nearly the same call of `{tool}` has been made {stand.similar} times"
        case "cycle":
            what = f"the same round of {stand.cycle} tools is being made for the third time"
        case _:
            what = f"the last {stand.stale} calls"
            return f"{what} brought nothing new. Do something else, or hand over"
    return f"{what} and brings nothing new. Do something else, or hand over"


Guard = Callable[[RunGuard, Action, loop.Call | None], Verdict | None]

GUARDS: tuple[tuple[str, Guard], ...] = (
    ("tools", judge_tools),
    ("models", judge_models),
    ("budgets", judge_budgets),
    ("loops", judge_loops),
)
