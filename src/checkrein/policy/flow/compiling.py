"""Flow rules, compiled: where did this value come from, and may it go there?

Pure and bounded: no clock, no model call. `judge` looks at one call's arguments, `returned` at one
result; neither looks at what came before except through the index. Method: information flow by
provenance of identifiers, with a learned profile of usual flows and directive-then-act rules (the
labels are those of FIDES, arXiv 2505.23643, kept without a planner in the loop).
"""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from checkrein.policy.conditions.compiling import compile_condition as compile_cel
from checkrein.policy.conditions.types import DYN, EvaluationError
from checkrein.policy.flow.addresses import Internal
from checkrein.policy.flow.builtin import BUILTINS, House, Judge, Objection
from checkrein.policy.flow.directives import find as find_directives
from checkrein.policy.flow.grammar import BuiltinRule, Derives, FlowError, WrittenRule, parse
from checkrein.policy.flow.identifiers import leaves, texts
from checkrein.policy.flow.normal import normal
from checkrein.policy.flow.profile import Profile
from checkrein.policy.flow.sources import UNTRUSTED, Trust, is_read, trust_of
from checkrein.policy.flow.state import MEMORY_KEYS_MAX, State
from checkrein.policy.flow.written import Compile, Names, check_names, judge_of, test_of
from checkrein.policy.types import Deed, Finding, ToolRule

RULES_MAX = 200
_CLASSES = frozenset({"untrusted", "trusted", "private", "user"})
_STRICTNESS = {"deny": 2, "ask": 1}


class _Rule(NamedTuple):
    name: str
    verdict: str
    tools: tuple[str, ...]
    judge: Judge
    written: bool

    def is_for(self, tool: str) -> bool:
        return not self.tools or any(fnmatchcase(tool, each) for each in self.tools)


class Flow:
    """The flow rules of a pact. Safe to share between runs; a state belongs to one run, and its
    calls come one at a time."""

    def __init__(
        self, rules: Sequence[_Rule], tools: Mapping[str, ToolRule], internal: Internal
    ) -> None:
        self._rules = tuple(rules)
        self._house = House(dict(tools), internal)
        self._for: dict[str, tuple[_Rule, ...]] = {}
        self._any_builtin = any(not each.written for each in self._rules)

    def new_state(self, profile: Profile | None = None, task_type: str = "") -> State:
        """A run begins. The profile is read, never written."""
        return State(profile, task_type)

    def heard(self, state: State, role: str, text: str) -> None:
        """Somebody spoke: `system` and `user` are trusted. What the model said itself is nobody's
        word and is not kept."""
        if role in ("user", "system", "developer") and text:
            state.settle()
            state.index.heard(text)

    def judge(self, state: State, deed: Deed) -> Finding | None:
        """The strictest finding on a call that is about to be made; None when nothing is held
        against it. Raises nothing."""
        rules = self._for.get(deed.tool)
        if rules is None:
            rules = tuple(each for each in self._rules if each.is_for(deed.tool))
            if len(self._for) < 2_048:
                self._for[deed.tool] = rules
        if not rules:
            return None
        try:
            return self._judge(state, deed, rules)
        except Exception as error:  # a guard that errs denies
            return Finding(
                kind="deny", rule="flow", reason=f"the flow rules failed ({error!r}), so no"
            )

    def _judge(self, state: State, deed: Deed, rules: tuple[_Rule, ...]) -> Finding | None:
        acts = not is_read(deed.tool, self._house.tools.get(deed.tool), deed.kind)
        lineage = state.lineage(deed.tool, acts, deed.args)
        state.await_return(deed.call_id or deed.tool, lineage)
        state.tools_seen.add(deed.tool)
        worst: Finding | None = None
        for rule in rules:
            if not rule.written and not acts and not lineage.origins:
                continue
            try:
                found = rule.judge(state, lineage, deed, self._house)
            except EvaluationError as error:
                found = Objection("deny", f"the rule has no answer for this call: {error}", {})
            if found is None:
                continue
            verdict = rule.verdict or found.verdict
            if worst is None or _STRICTNESS[verdict] > _STRICTNESS[worst.kind]:
                worst = Finding(
                    kind="deny" if verdict == "deny" else "ask", rule=rule.name,
                    reason=found.reason, inputs=found.inputs,
                )  # fmt: skip
                if verdict == "deny":
                    return worst
        return worst

    def returned(self, state: State, deed: Deed, result: Any, failed: bool) -> None:
        """A call came back with this result (or with the text of its error)."""
        state.settle()
        trust = trust_of(deed.tool, self._house.tools.get(deed.tool), deed.kind)
        if not failed:
            state.happened(deed.call_id or deed.tool)
        if not trust.untrusted:
            for leaf in leaves(deed.args):
                if not leaf.free:
                    state.index.pass_on(leaf.text)
        self._read(state, deed.tool, trust, deed.call_id, result)

    def remembered(self, state: State, key: str, value: Any, wrote: bool) -> None:
        """The agent's memory was written or read. What is written keeps its label under its key, so
        that writing and reading launders nothing; a key nobody has written in this run was written
        by an earlier one, and is taken as untrusted."""
        state.settle()
        index = state.index
        if wrote:
            tainted = any(
                not index.find(leaf.text).mask & index.trusted_mask
                for leaf in leaves({"value": value})
                if not leaf.free
            )
            if key in state.memory or len(state.memory) < MEMORY_KEYS_MAX:
                state.memory[key] = tainted or bool(state.untrusted_tool)
            return
        tainted = state.memory.get(key, True)
        self._read(state, "memory", UNTRUSTED if tainted else Trust(), key, value)

    def _read(self, state: State, tool: str, trust: Trust, call: str, result: Any) -> None:
        if trust.private and not state.private_tool:
            state.private_tool = tool
        if trust.untrusted and not state.untrusted_tool:
            state.untrusted_tool = tool
        if result is None:
            return
        index = state.index
        number = index.source(tool, trust, call)
        text = result if type(result) is str else "\n".join(texts(result))
        if not text:
            return
        if not text.isascii():  # half characters, which no encoding has
            text = text.encode("utf-8", "replace").decode()
        layers = index.add(number, text)
        if not trust.trusted:
            named = state.tools_seen.union(self._house.tools)
            for layer in layers:
                state.ordered(find_directives(normal(layer), named, tool, call))


def compile_flow(
    rules: Sequence[str],
    tools: Mapping[str, ToolRule],
    internal: Sequence[str],
    names_of: Names,
    compile_condition: Compile = compile_cel,
) -> Flow:
    """The `flow` list of a pact. `names_of(tool)` gives what a condition on it can read. Raises
    FlowError for a rule that is none, names a tool or an argument that does not exist, or holds a
    condition that is none."""
    if len(rules) > RULES_MAX:
        raise FlowError(f"at most {RULES_MAX} rules", RULES_MAX)
    made = []
    for index, text in enumerate(rules):
        if not isinstance(text, str):
            raise FlowError("a rule is a text", index)
        rule = parse(text, index)
        check_names(rule.tools, tools, index)
        names = tuple(each.text for each in rule.tools)
        if isinstance(rule, BuiltinRule):
            judge = BUILTINS[rule.name]
            made.append(_Rule(f"flow[{index}]", rule.verdict, names, judge, False))
            continue
        judge = _written(rule, text, index, tools, names_of, compile_condition)
        made.append(_Rule(f"flow[{index}]", rule.verdict, names, judge, True))
    return Flow(made, tools, Internal(internal))


def _written(
    rule: WrittenRule,
    text: str,
    index: int,
    tools: Mapping[str, ToolRule],
    names_of: Names,
    compile_condition: Compile,
) -> Callable[..., Objection | None]:
    tests = []
    for clause in rule.clauses:
        if isinstance(clause, Derives):
            check_names(clause.sources, tools, index, _CLASSES)
        path = getattr(clause, "path", None)
        if path is not None:
            _check_path(path, rule, names_of, index)
        tests.append(test_of(clause, rule, index, names_of, compile_condition))
    return judge_of(tests, rule, " ".join(text.split()))


def _check_path(path: Any, rule: WrittenRule, names_of: Names, index: int) -> None:
    """The argument must be one of every tool the rule names, as far as their schemas are known."""
    parts = path.text.split(".")[1:]
    for tool in rule.tools:
        kind = names_of(tool.text).get("args", DYN)
        for part in parts:
            if kind is None or kind.fields is None:
                break
            if part not in kind.fields:
                raise FlowError(
                    f"`{tool.text}` has no argument `{part}`; there are: "
                    f"{', '.join(sorted(kind.fields)) or 'none'}",
                    index, path.line, path.column,
                )  # fmt: skip
            kind = kind.fields[part]
