"""What is asked of a tool call and of a model call, in order.

Each guard answers with None (nothing against it) or a Finding; the strictest of all decides, and a
`deny` at once. A guard that raises has refused: the caller sees to that. The first guards look at
what the pact says of the tool alone; the later ones at what has happened so far.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from checkrein.policy import loop
from checkrein.policy.budgets import Spent
from checkrein.policy.case import Case
from checkrein.policy.conditions.types import EvaluationError
from checkrein.policy.nearest import did_you_mean
from checkrein.policy.rulebook import ToolBook
from checkrein.policy.types import Action, Budgets, Duty, Finding
from checkrein.policy.units import duration_text

if TYPE_CHECKING:
    from checkrein.policy.guard import RunGuard

_TOOLS_SHOWN_MAX = 20
ONCE_MAX = 10_000
Guard = Callable[["RunGuard", Case], Finding | None]


def judge_tools(run: "RunGuard", case: Case) -> Finding | None:
    """Tools that do not exist, or that the pact does not name."""
    action, known = case.action, case.action.known_tools
    if known and action.name not in known:
        shown = ", ".join(known[:_TOOLS_SHOWN_MAX])
        more = f" and {len(known) - _TOOLS_SHOWN_MAX} more" if len(known) > _TOOLS_SHOWN_MAX else ""
        return Finding(
            kind="deny", rule="tools.unknown", advice="RETRYABLE",
            reason=f"there is no tool `{action.name}`{did_you_mean(action.name, known)}; "
            f"the tools are: {shown}{more}",
        )  # fmt: skip
    pact = case.listed.missing
    if pact is None:
        return None
    allowed = list(pact.tools or ())
    return Finding(
        kind="deny", rule="tools.pact", advice="ESCALATE",
        reason=f"the tool `{action.name}` is not in the pact `{pact.pact}`"
        f"{did_you_mean(action.name, allowed)}, which allows: "
        f"{', '.join(allowed[:_TOOLS_SHOWN_MAX]) or 'no tool'}",
    )  # fmt: skip


def judge_arguments(run: "RunGuard", case: Case) -> Finding | None:
    """Arguments that are not what the tool's schema says."""
    for book in case.listed.books:
        if book.check is not None:
            problem = book.check(case.arguments, "args")
            if problem:
                return Finding(
                    kind="deny", rule=f"tools.{book.name}.arguments", advice="RETRYABLE",
                    reason=f"the arguments of `{case.action.name}` are not right: {problem}",
                )  # fmt: skip
    return None


def change_arguments(run: "RunGuard", case: Case) -> Finding | None:
    """`set`: arguments that the pact gives, before anything else is asked about them."""
    for book in case.listed.books:
        if not book.set:
            continue
        args = dict(case.deed.args)
        for name, expression in book.set:
            value = expression(case.deed.facts)
            _put(args, name.removeprefix("args.").split("."), value)
        if args != case.deed.args:
            case.change(args)
    return None


def _put(args: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        inner = args.get(name)
        args[name] = args = dict(inner) if isinstance(inner, dict) else {}
    args[path[-1]] = value


def judge_scopes(run: "RunGuard", case: Case) -> Finding | None:
    """What the tool may reach: paths, tables, hosts, repositories."""
    for book in case.listed.books:
        for scope in book.scopes:
            problem, pinned = scope.settle(case.deed.args)
            if problem:
                return Finding(
                    kind="deny", rule=f"tools.{book.name}.{scope.rule.kind}", advice="ESCALATE",
                    reason=f"`{case.action.name}` may not reach this: {problem}",
                )  # fmt: skip
            if pinned is not None:
                case.change(pinned)
    return None


def judge_allow(run: "RunGuard", case: Case) -> Finding | None:
    """`allow`: the condition that has to hold."""
    for book in case.listed.books:
        if book.allow is not None and not book.allow(case.deed.facts):
            return Finding(
                kind="deny", rule=f"tools.{book.name}.allow", advice="ESCALATE",
                reason=f"`{case.action.name}` is allowed when {book.allow.text}, and that does not "
                "hold for this call",
                inputs=inputs_of(book.allow, case.deed.facts),
            )  # fmt: skip
    return None


def judge_once(run: "RunGuard", case: Case) -> Finding | None:
    """`once_per`: one call for each value. What is in flight counts; what failed does not."""
    used: list[tuple[str, str]] = []
    for book in case.listed.books:
        if book.once_per is None:
            continue
        value = book.once_per(case.deed.facts)
        key = (book.name, _key(value))
        if key in run.once:
            return Finding(
                kind="deny", rule=f"tools.{book.name}.once_per", advice="TERMINAL",
                reason=f"`{case.action.name}` is allowed once per {book.once_per.text}, and has "
                f"been called for {_shown(value)} already",
                inputs={book.once_per.text: value},
            )  # fmt: skip
        if len(run.once) >= ONCE_MAX:
            return Finding(
                kind="deny", rule=f"tools.{book.name}.once_per", advice="ESCALATE",
                reason=f"more than {ONCE_MAX} calls of tools with `once_per` in one run: whether "
                "this one is the first for its value cannot be told any more",
            )  # fmt: skip
        used.append(key)
    if used:
        case.once = tuple(used)
    return None


def judge_sequences(run: "RunGuard", case: Case) -> Finding | None:
    """`sequence`: rules over what the run, and its task, did before."""
    found: Finding | None = run.book.sequences.judge(run.past, case.deed, run.task_past)
    return found


def judge_flow(run: "RunGuard", case: Case) -> Finding | None:
    """`flow`: where the values of this call come from."""
    found: Finding | None = run.book.flow.judge(run.flow, case.deed)
    return found


def judge_budgets(run: "RunGuard", case: Case | None) -> Finding | None:
    """Budgets that are used up. Steps are judged where a step begins."""
    if not run.budgeted:
        return None
    return over_budget(run.budgets, run.spent, run.now_ns, case is not None) or over_reserved(run)


def judge_step(run: "RunGuard") -> Finding | None:
    """The budgets, where a step begins."""
    found, budgets, used = judge_budgets(run, None), run.budgets, run.spent.steps
    if found is None and budgets.steps is not None and used >= budgets.steps:
        return over(budgets, "steps", f"{used} of {budgets.steps} steps are used")
    return found


def over_budget(budgets: Budgets, spent: Spent, now_ns: int, tool: bool) -> Finding | None:
    if tool and budgets.tool_calls is not None and spent.tool_calls >= budgets.tool_calls:
        return over(
            budgets, "tool_calls", f"{spent.tool_calls} of {budgets.tool_calls} tool calls are used"
        )
    if budgets.tokens is not None and spent.tokens >= budgets.tokens:
        return over(budgets, "tokens", f"{spent.tokens} of {budgets.tokens} tokens are used")
    if budgets.usd is not None and spent.usd >= budgets.usd:
        return over(budgets, "usd", f"{spent.usd:.4f} of {budgets.usd:g} US dollars are spent")
    if budgets.wall_s is not None and spent.wall_s(now_ns) >= budgets.wall_s:
        return over(
            budgets, "wall", f"the run has taken {duration_text(spent.wall_s(now_ns))}, "
            f"its budget is {duration_text(budgets.wall_s)}",
        )  # fmt: skip
    return None


def over_reserved(run: "RunGuard") -> Finding | None:
    name = run.reserved.over(run.budgets, run.spent)
    if not name:
        return None
    return Finding(
        kind="deny", rule=f"budgets.{name}.reserved", advice="WAIT",
        reason=f"the calls under way may use up what is left of the budget of {name}: wait until "
        "they are back",
    )  # fmt: skip


def over(budgets: Budgets, name: str, reason: str) -> Finding:
    """A budget is used up: nothing the agent does helps. Somebody may raise it, or the run ends."""
    kind = "ask" if budgets.exhausted == "pause" else "deny"
    return Finding(kind=kind, rule=f"budgets.{name}", reason=reason, advice="TERMINAL")  # type: ignore[arg-type] # one of the two


def judge_price(run: "RunGuard", action: Action) -> Finding | None:
    """A model whose price nobody knows, under a budget of money: the next model call follows the
    pact's `unclear`, since the budget cannot be kept; allowed, it is counted in tokens only."""
    budgets, spent, unclear = run.budgets, run.spent, run.book.pact.unclear
    if budgets.usd is None or not spent.unpriced or unclear == "allow":
        return None
    return Finding(
        kind="ask" if unclear == "ask" else "deny", rule="budgets.usd.unpriced", advice="ESCALATE",
        reason=f"no price is known for the model `{spent.unpriced_model}`, so the budget of "
        f"{budgets.usd:g} US dollars cannot be kept; `unclear: allow` would let it pass",
    )  # fmt: skip


def judge_model(run: "RunGuard", action: Action) -> Finding | None:
    """Models that the pact does not name."""
    pact = run.book.forbids_model(action.name) if action.name else None
    if pact is None:
        return None
    return Finding(
        kind="deny", rule="models", advice="ESCALATE",
        reason=f"the model `{action.name}` is not in the pact `{pact.pact}`, which allows: "
        f"{', '.join(pact.models or ())}",
    )  # fmt: skip


def judge_loops(run: "RunGuard", case: Case) -> Finding | None:
    """The call that would go on with a loop. Equal calls still in flight count as made."""
    loops, call = run.book.pact.loops, case.call
    stand = loop.standing(run.loops, call, loops)
    rule = loop.broken(stand, loops)
    if not rule and run.open:
        flying = sum(1 for other in run.open.values() if other.call.exact == call.exact)
        if flying and flying + stand.same >= loops.same_call:
            rule = "same_call"
            stand = loop.Standing(same=flying + stand.same)
    if not rule:
        return None
    return Finding(
        kind="deny", rule=f"loops.{rule}", advice="ESCALATE",
        reason=loop_reason(rule, case.action.name, stand),
    )  # fmt: skip


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


def judge_ask(run: "RunGuard", case: Case) -> Finding | None:
    """`ask`: somebody has to say yes."""
    for book in case.listed.books:
        if book.ask is not None and book.ask(case.deed.facts):
            return Finding(
                kind="ask", rule=f"tools.{book.name}.ask", advice="WAIT",
                reason=f"`{case.action.name}` needs somebody's yes when {book.ask.text}",
                inputs=inputs_of(book.ask, case.deed.facts),
            )  # fmt: skip
    return None


def judge_steer(run: "RunGuard", case: Case) -> Finding | None:
    """`steer`: what the agent is told when the condition holds."""
    for book in case.listed.books:
        for index, (condition, say) in enumerate(book.steer):
            if condition(case.deed.facts):
                return Finding(
                    kind="steer", rule=f"tools.{book.name}.steer[{index}]", advice="",
                    reason=f"{condition.text} holds", guidance=say,
                )  # fmt: skip
    return None


def judge_duties(run: "RunGuard", case: Case) -> Finding | None:
    """`escalate`: what somebody has to be told of. One with `hold` waits for the answer. A duty
    about an argument that this tool does not have is not about this call."""
    found: list[Duty] = []
    held = None
    for index, (condition, duty) in enumerate(run.book.duties):
        try:
            holds = condition(case.deed.facts)
        except EvaluationError:
            continue
        if not holds:
            continue
        found.append(duty)
        if duty.hold and held is None:
            held = Finding(
                kind="ask", rule=f"escalate[{index}]", advice="WAIT",
                reason=f"{condition.text}: {duty.to} has to acknowledge this first",
                inputs=inputs_of(condition, case.deed.facts),
            )  # fmt: skip
    case.duties = tuple(found)
    return held


def inputs_of(condition: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """The values that a condition read, for whoever reads the trace."""
    return {
        name: facts.get(name) for name in sorted(condition.names)
        if name != "goal"
    }  # fmt: skip


def erred(name: str, rule: str, error: Exception) -> Finding:
    """A guard that errs says no, and names itself."""
    if isinstance(error, EvaluationError):
        return Finding(
            kind="deny", rule=rule, advice="RETRYABLE",
            reason=f"{rule} has no answer for this call ({error}), so the answer is no",
        )  # fmt: skip
    return Finding(
        kind="deny", rule=f"{name}.erred", advice="ESCALATE",
        reason=f"the guard `{name}` failed ({error!r}), so the answer is no",
    )  # fmt: skip


def needed(books: tuple[ToolBook, ...], book: Any) -> tuple[tuple[str, Guard], ...]:
    """The guards that can have anything to say of a call of this tool, in order."""

    def some(name: str) -> bool:
        return any(getattr(one, name) for one in books)

    wanted = {
        "arguments": some("check"), "set": some("set"), "scope": some("scopes"),
        "allow": some("allow"), "once": some("once_per"), "ask": some("ask"),
        "steer": some("steer"), "sequence": book.sequences is not None,
        "flow": book.flow is not None, "escalate": bool(book.duties),
    }  # fmt: skip
    return tuple((name, guard) for name, guard in GUARDS if wanted.get(name, True))


def _key(value: Any) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


GUARDS: tuple[tuple[str, Guard], ...] = (
    ("tools", judge_tools),
    ("arguments", judge_arguments),
    ("set", change_arguments),
    ("scope", judge_scopes),
    ("allow", judge_allow),
    ("once", judge_once),
    ("sequence", judge_sequences),
    ("flow", judge_flow),
    ("budgets", judge_budgets),
    ("loops", judge_loops),
    ("ask", judge_ask),
    ("steer", judge_steer),
    ("escalate", judge_duties),
)
