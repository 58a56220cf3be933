"""What must hold of any pact: adding a refusal never allows more, and who is within another's pact
never has more than that one."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from checkrein.policy.guard import RunGuard
from checkrein.policy.pact import load
from checkrein.policy.types import Action, Pact

TOOLS = ("look", "pay", "send")
CONDITIONS = ("args.n < 5", "args.n > 2", 'args.who == "a"', "args.n % 2 == 0", "true")
SEQUENCES = (
    "deny pay unless formerly look", "deny send if once send", "deny * if count pay > 2",
    "ask pay if count pay >= 2", "deny send if sum args.n of pay > 6",
    'deny pay(args.who == "b") unless formerly send since look',
)  # fmt: skip

rules = st.fixed_dictionaries({}, optional={
    "allow": st.sampled_from(CONDITIONS), "ask": st.sampled_from(CONDITIONS[:4]),
    "once_per": st.just("args.n"),
})  # fmt: skip
pacts = st.fixed_dictionaries({
    "tools": st.dictionaries(st.sampled_from(TOOLS), rules, min_size=1),
    "sequence": st.lists(st.sampled_from(SEQUENCES), max_size=3, unique=True),
    "budget": st.none() | st.integers(1, 8),
})  # fmt: skip
calls = st.lists(
    st.tuples(st.sampled_from(TOOLS), st.integers(0, 7), st.sampled_from("ab"), st.booleans()),
    max_size=14,
)


def text_of(said: dict[str, Any], name: str = "p", extends: str = "") -> str:
    lines = [f"pact: {name}", *([f"extends: {extends}"] if extends else []), "tools:"]
    for tool, rule in said["tools"].items():
        lines.append(f"  {tool}:")
        lines += [f"    {key}: {value}" for key, value in rule.items()]
    sequence = [rule for rule in said["sequence"] if target(rule) in ("*", *said["tools"])]
    if sequence:
        lines += ["sequence:", *(f"  - {rule!r}" for rule in sequence)]
    if said["budget"]:
        lines.append(f"budgets: {{tool_calls: {said['budget']}}}")
    return "\n".join(lines) + "\nloops: {same_call: 15, similar_call: 15, no_progress: 15}\n"


def target(rule: str) -> str:
    """The tool that a rule is about: a pact refuses a rule about one that it does not name."""
    return rule.split()[1].partition("(")[0]


class Pair:
    """Two guards that see the same history: what the stricter lets pass happens in both."""

    def __init__(self, wider: Pact, stricter: Pact) -> None:
        self.wider, self.stricter = RunGuard(wider), RunGuard(stricter)
        self.at_ns = 0
        self.number = 0

    def call(self, tool: str, n: int, who: str, ok: bool) -> None:
        self.at_ns += 10**9
        self.number += 1
        action = Action(
            kind="tool", name=tool, arguments={"n": n, "who": who}, call_id=str(self.number)
        )
        strict = self.stricter.would(action, self.at_ns).kind
        wide = self.wider.would(action, self.at_ns).kind
        if wide == "deny":
            assert strict == "deny"
        if wide == "ask":
            assert strict in ("ask", "deny")
        if strict in ("deny", "ask"):
            return
        for guard in (self.wider, self.stricter):
            guard.judge(action, self.at_ns)
            guard.returned(action, {"n": self.number}, "" if ok else "no", self.at_ns)


@settings(max_examples=200, deadline=None)
@given(pacts, calls, st.sampled_from([one for one in SEQUENCES if one.startswith("deny")]))
def test_adding_a_refusal_never_allows_more(
    said: dict[str, Any], made: list[tuple[str, int, str, bool]], rule: str
) -> None:
    pair = Pair(load(text_of(said)), load(text_of({**said, "sequence": [*said["sequence"], rule]})))
    for call in made:
        pair.call(*call)


@settings(max_examples=200, deadline=None)
@given(pacts, pacts, calls)
def test_who_is_within_a_pact_never_has_more_than_it(
    parent: dict[str, Any], child: dict[str, Any], made: list[tuple[str, int, str, bool]]
) -> None:
    outer = load(text_of(parent, "parent"))
    lowest = [one for one in (parent["budget"], child["budget"]) if one]
    child = {**child, "budget": min(lowest) if lowest else None}
    inner = load(text_of(child, "child", "parent"), known={"parent": outer})
    pair = Pair(outer, inner)
    for call in made:
        pair.call(*call)
