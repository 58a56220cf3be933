"""What is odd about a pact that is not wrong: rules that can never fire, always fire, or are in the
shadow of another; more power than one job needs; rules that have not fired for a month.

Nothing here refuses a pact. Each remark names the rule, says what is odd, and what to do about it.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import msgspec

from checkrein.policy.compiling import names_for
from checkrein.policy.kinds import first_verb, seems_read
from checkrein.policy.rulebook import is_pattern
from checkrein.policy.types import Pact, ToolRule

GROUPS_MAX = 8
"""One job seldom needs tools of more than eight different things."""
DAYS = 30


class Remark(msgspec.Struct, frozen=True, kw_only=True):
    rule: str
    problem: str
    proposal: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.problem}. {self.proposal}"


def lint(pact: Pact, fired: Mapping[str, int] | None = None, days: int = DAYS) -> list[Remark]:
    """The remarks on a pact, in its own order. `fired`: how often each rule decided something in
    the last `days` days (a rule that is not in it never did); None: nobody has counted."""
    found: list[Remark] = []
    if not pact.job:
        found.append(Remark(
            rule="job", problem="it says no job",
            proposal="One sentence: what the agent is for. Whoever reviews the tools needs it",
        ))  # fmt: skip
    tools = pact.tools
    if tools is None:
        found.append(Remark(
            rule="tools", problem="any tool may be called",
            proposal="Name the tools of the job; `checkrein pact learn` lists those really used",
        ))  # fmt: skip
    else:
        found.extend(_too_many(tools))
        for name, rule in tools.items():
            found.extend(_tool(name, rule))
        found.extend(_unreachable(pact, tools))
        found.extend(_flows(pact, tools))
    if pact.budgets.usd is None and pact.budgets.tokens is None:
        found.append(Remark(
            rule="budgets", problem="neither money nor tokens are limited",
            proposal="Set `usd` to a few times what a run costs, so that a loop ends early",
        ))  # fmt: skip
    if fired is not None:
        for rule_name in rules_of(pact):
            if not fired.get(rule_name):
                found.append(Remark(
                    rule=rule_name, problem=f"it has decided nothing in {days} days",
                    proposal="Check that it still says what was meant, or take it out",
                ))  # fmt: skip
    return found


def rules_of(pact: Pact) -> list[str]:
    """The names of all rules of a pact, as verdicts carry them."""
    found = []
    for name, rule in (pact.tools or {}).items():
        said = [part for part in ("allow", "ask", "once_per", "set") if getattr(rule, part)]
        said += [f"steer[{index}]" for index in range(len(rule.steer))]
        said += [scope.kind for scope in rule.scopes]
        found += [f"tools.{name}.{part}" for part in dict.fromkeys(said)]
    found += [f"sequence[{index}]" for index in range(len(pact.sequence))]
    found += [f"flow[{index}]" for index in range(len(pact.flow))]
    found += [f"escalate[{index}]" for index, duty in enumerate(pact.escalate) if duty.hold]
    return found


def groups_of(tools: Iterable[str]) -> list[list[str]]:
    """The tools by what they are about: two belong together when their names share a word that is
    not the verb (`get_invoice`, `pay_invoice`), or the part before a dot. The largest first."""
    groups: list[tuple[set[str], list[str]]] = []
    for name in tools:
        about = _about(name)
        touching = [group for group in groups if group[0] & about]
        merged = (about.union(*(group[0] for group in touching)),
                  [one for group in touching for one in group[1]] + [name])  # fmt: skip
        groups = [group for group in groups if group not in touching] + [merged]
    return sorted((names for _, names in groups), key=len, reverse=True)


def _about(name: str) -> set[str]:
    verb = first_verb(name)
    scope, _, rest = name.rpartition(".")
    words = {word.rstrip("s") for word in _words(rest) if word != verb and len(word) > 2}
    return words | ({f"{scope}."} if scope else set()) or {name}


def _words(text: str) -> list[str]:
    spread = "".join(f" {char.lower()}" if char.isupper() else char for char in text)
    return "".join(char if char.isalnum() else " " for char in spread).split()


def _too_many(tools: Mapping[str, ToolRule]) -> list[Remark]:
    groups = groups_of(tools)
    if len(groups) <= GROUPS_MAX:
        return []
    shown = "; ".join(", ".join(names[:4]) for names in groups[:4])
    return [Remark(
        rule="tools", problem=f"{len(tools)} tools of {len(groups)} unrelated things are too many "
        "for one job",
        proposal=f"Split the agent by what it works on, for example: {shown}; and let one hand "
        "over to the other",
    )]  # fmt: skip


def _tool(name: str, rule: ToolRule) -> list[Remark]:
    found = []
    reads = rule.kind == "read" or (rule.kind is None and seems_read(name.replace("*", "")))
    where = f"tools.{name}"
    if is_pattern(name) and not reads:
        found.append(Remark(
            rule=where, problem="a pattern over tools that change things",
            proposal="Name each of them: a tool that is added later should be a decision",
        ))  # fmt: skip
    limited = rule.allow or rule.ask or rule.once_per or rule.scopes
    if rule.kind == "irreversible" and not limited:
        found.append(Remark(
            rule=where, problem="it cannot be undone, and nothing limits it",
            proposal="Give it `allow`, `ask`, `once_per` or a scope",
        ))  # fmt: skip
    if rule.allow and rule.ask:
        found.extend(_shadowed(where, rule))
    return found


def _shadowed(where: str, rule: ToolRule) -> list[Remark]:
    from checkrein.policy.conditions.compiling import compile_condition, constancy
    from checkrein.policy.conditions.types import ConditionError

    names = names_for(rule.arguments)
    try:
        both = constancy(compile_condition(f"({rule.allow}) && ({rule.ask})", names))
        implied = constancy(compile_condition(f"!({rule.allow}) || ({rule.ask})", names))
    except ConditionError:
        return []  # together they are too long to look at
    if both == "false":
        return [Remark(
            rule=f"{where}.ask", problem=f"it can never fire: what it asks about ({rule.ask}) is "
            f"refused by `allow` ({rule.allow}) already",
            proposal="Widen `allow`, or take `ask` out",
        )]  # fmt: skip
    if implied == "true":
        return [Remark(
            rule=f"{where}.ask", problem="it fires for every call that `allow` lets pass",
            proposal="Write `ask: true` when that is meant",
        )]  # fmt: skip
    return []


def _unreachable(pact: Pact, tools: Mapping[str, ToolRule]) -> list[Remark]:
    if not pact.sequence or any(is_pattern(name) for name in tools):
        return []
    from checkrein.policy.sequences.reach import unavoidable, unreachable

    known = {name: rule.kind for name, rule in tools.items()}
    never = [
        Remark(
            rule=f"sequence[{index}]", problem=f"it can never fire: {why}",
            proposal="Add the tool to `tools`, or take the rule out",
        )
        for index, why in unreachable(pact.sequence, known)
    ]  # fmt: skip
    always = [
        Remark(
            rule=f"sequence[{index}]", problem=f"it fires at every call: {why}",
            proposal="Add the tool that is missing, or say so plainly with `allow: false`",
        )
        for index, why in unavoidable(pact.sequence, known)
    ]  # fmt: skip
    return never + always


def _flows(pact: Pact, tools: Mapping[str, ToolRule]) -> list[Remark]:
    if not pact.flow:
        return []
    from checkrein.policy.flow.grammar import WrittenRule, parse

    found = []
    for index, text in enumerate(pact.flow):
        rule = parse(text, index)
        if not isinstance(rule, WrittenRule):
            continue
        named = [one.text for one in rule.tools]
        if not any(fnmatchcase(tool, name) for tool in tools for name in named):
            found.append(Remark(
                rule=f"flow[{index}]", problem=f"it can never fire: no tool is `{named[0]}`",
                proposal="Add the tool to `tools`, or take the rule out",
            ))  # fmt: skip
    return found
