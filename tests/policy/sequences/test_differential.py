"""The compiled rules against the naive reading of the same rules, over whole histories."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.policy.sequences.acting import compiled
from tests.policy.sequences.naive import RANK, Naive

from checkrein.policy.types import Deed, Finding

SECOND_NS = 1_000_000_000
TOOLS = ("a", "b", "ab", "c")
KINDS: dict[str, Any] = {"a": "read", "b": "compensable", "ab": None, "c": "irreversible"}

calls = st.sampled_from(["a", "b", "a*", "a|c", "*", "kind:compensable|irreversible", "kind:read"])
conditions = st.sampled_from(
    ["", "", "", "(args.k == call.args.k)", "(args.n > 3)", "(args.k == call.args.k && args.n > 3)"]
)
pasts = st.builds(lambda tools, condition: tools + condition, calls, conditions)
within = st.sampled_from(["", "", " within 2s", " within 5s"])
in_task = st.sampled_from(["", "", " in task"])
since = st.one_of(st.just(""), pasts.map(lambda past: f" since {past}"))
relation = st.sampled_from([">=", ">", "<=", "<", "==", "!="])
atoms = st.one_of(
    st.builds(
        lambda word, past, y, d, t: f"{word} {past}{y}{d}{t}",
        st.sampled_from(["formerly", "once", "never before"]), pasts, since, within, in_task,
    ),
    st.builds(
        lambda what, past, d, t, op, limit: f"{what} {past}{d}{t} {op} {limit}",
        st.sampled_from(["count", "sum args.n of"]), pasts, within, in_task, relation,
        st.integers(-2, 12),
    ),
)  # fmt: skip
formulas = st.recursive(
    atoms,
    lambda inner: st.one_of(
        inner.map(lambda text: f"not ({text})"),
        st.builds(lambda one, word, other: f"({one} {word} {other})", inner,
                  st.sampled_from(["and", "or"]), inner),
    ),
    max_leaves=3,
)  # fmt: skip
short = st.sampled_from(["a", "b", "a", "b", "a(args.k == call.args.k)"])
short_atoms = st.one_of(
    st.builds(
        lambda word, past, y, d: f"{word} {past} {y} {d}",
        st.sampled_from(["formerly", "once"]), short,
        st.one_of(st.just(""), short.map("since {}".format)), st.sampled_from(["", "within 2s"]),
    ),
    st.builds(
        lambda what, d, limit: f"{what} a {d} >= {limit}",
        st.sampled_from(["count", "sum args.n of"]), st.sampled_from(["", "within 2s"]),
        st.integers(1, 4),
    ),
)  # fmt: skip
short_rules = st.builds(
    lambda clause, atom: f"deny * {clause} {atom}", st.sampled_from(["if", "unless"]), short_atoms
)
long_rules = st.builds(
    lambda verb, tools, condition, clause, formula: (
        f"{verb} {tools}{condition} {clause} {formula}" + (' say "x"' if verb == "steer" else "")
    ),
    st.sampled_from(["deny", "ask", "steer"]),
    calls,
    st.sampled_from(["", "", "(args.n > 3)"]),
    st.sampled_from(["if", "unless"]),
    formulas,
)
rules = st.one_of(short_rules, long_rules)
args = st.fixed_dictionaries(
    {}, optional={"k": st.integers(0, 2), "n": st.one_of(st.integers(-3, 9), st.just(2.5))}
)
steps = st.lists(
    st.tuples(
        st.sampled_from(TOOLS), args, st.sampled_from(["r", "s"]),
        st.sampled_from(["ok", "failed", "flies", "lands", "asked"]), st.integers(0, 3),
    ),
    max_size=25,
)  # fmt: skip


def word(found: Finding | None) -> str:
    return found.kind if found else ""


class Twin:
    """The same things told to both."""

    def __init__(self, texts: list[str]) -> None:
        self.ours, self.naive = compiled(*texts), Naive(texts)
        self.states = {"r": self.ours.new_state(), "s": self.ours.new_state()}
        self.task = self.ours.new_state()
        self.flying: list[tuple[Deed, str, Any]] = []
        self.number = self.now_ns = 0

    def deed(self, tool: str, args: dict[str, Any], run: str) -> Deed:
        self.number += 1
        facts = {"args": args, "tool": tool, "step": 1, "run_id": run}
        return Deed(
            tool=tool, args=args, kind=KINDS[tool], at_ns=self.now_ns, facts=facts,
            call_id=str(self.number),
        )  # fmt: skip

    def judged(self, deed: Deed, run: str) -> tuple[str, str]:
        return (
            word(self.ours.judge(self.states[run], deed, self.task)),
            self.naive.judge(deed, run),
        )

    def begins(self, deed: Deed, run: str) -> None:
        self.ours.began(self.states[run], deed, self.task)
        self.flying.append((deed, run, self.naive.began(deed, run)))

    def lands(self, index: int, ok: bool) -> None:
        deed, run, event = self.flying.pop(index)
        self.ours.ended(self.states[run], deed, ok, self.task)
        self.naive.ended(event, ok)

    def does(self, step: tuple[str, dict[str, Any], str, str, int]) -> None:
        tool, args, run, what, seconds = step
        self.now_ns += seconds * SECOND_NS
        if what == "lands" and self.flying:
            self.lands(seconds % len(self.flying), True)
        elif what in ("ok", "failed", "flies"):
            self.begins(self.deed(tool, args, run), run)
            if what != "flies":
                self.lands(-1, what == "ok")


@settings(max_examples=400, deadline=None)
@given(st.lists(rules, min_size=1, max_size=4), steps)
def test_compiled_rules_say_what_the_naive_reading_says(texts: list[str], done: Any) -> None:
    twin = Twin(texts)
    for step in done:
        tool, args, run, _, _ = step
        ours, naive = twin.judged(twin.deed(tool, args, run), run)
        assert ours == naive, (texts, step)
        twin.does(step)


@settings(max_examples=100, deadline=None)
@given(st.lists(rules, max_size=3), rules, steps)
def test_a_rule_more_never_allows_more(texts: list[str], more: str, done: Any) -> None:
    fewer, all_of_them = Twin(texts), Twin([*texts, more])
    for step in done:
        tool, args, run, _, _ = step
        before, _ = fewer.judged(fewer.deed(tool, args, run), run)
        after, _ = all_of_them.judged(all_of_them.deed(tool, args, run), run)
        assert RANK[after] >= RANK[before]
        fewer.does(step)
        all_of_them.does(step)


@settings(max_examples=100, deadline=None)
@given(st.lists(rules, min_size=1, max_size=3), steps)
def test_warmed_is_as_if_it_had_been_there(texts: list[str], done: Any) -> None:
    seen, past = Twin(texts), []
    for tool, args, _, what, seconds in done:
        seen.now_ns += seconds * SECOND_NS
        if what in ("ok", "failed"):
            deed = seen.deed(tool, args, "r")
            past.append((deed, what == "ok"))
            seen.begins(deed, "r")
            seen.lands(-1, what == "ok")
    state, task = seen.ours.new_state(), seen.ours.new_state()
    seen.ours.warm(state, past, task)
    for tool in TOOLS:
        for k in range(3):
            deed = seen.deed(tool, {"k": k, "n": 4}, "r")
            warm = seen.ours.judge(state, deed, task)
            assert warm == seen.ours.judge(seen.states["r"], deed, seen.task)


@settings(max_examples=150, deadline=None)
@given(st.lists(rules, min_size=1, max_size=3), st.lists(rules, max_size=2), steps)
def test_other_rules_go_on_from_what_was_seen(texts: list[str], more: list[str], done: Any) -> None:
    """Half of the rules go, others come: all say what they would say had they been there."""
    later = [*more, *texts[::2]]
    seen, always = Twin(texts), Twin(later)
    past: list[tuple[Deed, bool | None]] = []
    for tool, args, _, what, seconds in done:
        for twin in (seen, always):
            twin.now_ns += seconds * SECOND_NS
        if what in ("ok", "failed", "flies"):
            deed = seen.deed(tool, args, "r")
            ok = None if what == "flies" else what == "ok"
            past.append((deed, ok))
            for twin in (seen, always):
                twin.ours.warm(twin.states["r"], [(deed, ok)])
    state = always.ours.go_on(seen.ours, seen.states["r"], past)
    for landing in (None, *(deed for deed, ok in past if ok is None)):
        if landing is not None:
            for each in (state, always.states["r"]):
                always.ours.ended(each, landing, True)
        for tool in TOOLS:
            deed = always.deed(tool, {"k": 1, "n": 4}, "r")
            went_on = always.ours.judge(state, deed)
            assert went_on == always.ours.judge(always.states["r"], deed)
