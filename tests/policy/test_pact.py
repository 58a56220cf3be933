"""A pact is read as it is meant, or refused with the place."""

import msgspec
import pytest

from checkrein.policy.pact import PactError, default_pact, load, merge, version_of
from checkrein.policy.types import Budgets, Loops, ToolRule

WHOLE = """\
pact: support-bot
job: resolve refund tickets up to 50 dollars
owner: payments-oncall
extends: default
models: [gpt-5-mini, claude-haiku-*]
tools:
  search_kb: {kind: read, timeout: 5s}
  refund:
    kind: compensable
    undo: reverse_refund
  close_ticket:
budgets: {steps: 35, tool_calls: 50, tokens: 200_000, usd: 2.00, wall: 10m}
warn_at: 60%
loops: {same_call: 3, similar_call: 4 in 2m, no_progress: 6}
unclear: ask
lost_contact: pause
"""


def test_everything_this_version_knows() -> None:
    pact = load(WHOLE, "support.yaml")
    assert (pact.pact, pact.owner, pact.extends) == ("support-bot", "payments-oncall", "default")
    assert pact.models == ("gpt-5-mini", "claude-haiku-*")
    assert pact.tools == {
        "search_kb": ToolRule(kind="read", timeout_s=5.0),
        "refund": ToolRule(kind="compensable", undo="reverse_refund"),
        "close_ticket": ToolRule(),
    }
    assert pact.budgets == Budgets(steps=35, tool_calls=50, tokens=200_000, usd=2.0, wall_s=600.0)
    assert pact.loops == Loops(same_call=3, similar_call=4, similar_window_s=120.0, no_progress=6)
    assert (pact.warn_at, pact.unclear, pact.lost_contact) == (0.6, "ask", "pause")


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("pact: a\nbudget: {}", "2:1", "did you mean `budgets`?"),
        ("pact: a\nbudgets: {wal: 3m}", "2:11", "unknown key `wal` in `budgets`"),
        ("pact: a\npact: b", "2:1", "given twice (first in line 1)"),
        ("pact: a\ntools:\n  x: {}\n  x: {}", "4:3", "given twice (first in line 3)"),
        ("pact: a\nbudgets: {wall: 3}", "2:17", "is not a duration"),
        ("pact: a\nbudgets: {steps: 0}", "2:18", "out of range"),
        ("pact: a\nbudgets: {steps: 1.5}", "2:18", "not a whole number"),
        ("pact: a\nbudgets: {usd: free}", "2:16", "not an amount"),
        ("pact: a\nwarn_at: 120%", "2:10", "outside what a share may be"),
        ("pact: a\nloops: {similar_call: 3 in soon}", "2:23", "is not a duration"),
        ("pact: a\nloops: {same_call: 40}", "2:20", "at most 15"),
        ("pact: a\nunclear: maybe", "2:10", "it may be deny, ask, allow"),
        ("pact: a\nmodels: gpt-5", "2:9", "should be a list"),
        ("pact: a\nmodels: []", "2:9", "no model could be called"),
        ("pact: a\ntools: [x]", "2:8", "should be a map"),
        ("pact: a\ntools: {x: {kind: reads}}", "2:19", "read, compensable, irreversible"),
        ("pact: a\ntools: {x: {kind: read, undo: y}}", "2:31", "has no undo"),
        ("pact: a\nextends: defaults", "2:10", "did you mean `default`?"),
        ("pact: [a", "1:9", "not YAML"),
        ("pact: &a [*a]", "1:7", "should be a single value"),
        ("pact: a\n<<: {unclear: allow}", "2:1", "a key should be a plain name"),
        ("job: nothing", "1:1", "`pact` is missing"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(text: str, place: str, says: str) -> None:
    with pytest.raises(PactError) as refused:
        load(text, "my.yaml")
    assert str(refused.value).startswith(f"my.yaml:{place}: ")
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "\x00", "[" * 30_000, "a: " * 30_000, "x" * 70_000, "- \ud800"]
)
def test_hostile_text_is_refused_and_nothing_else_happens(text: str) -> None:
    with pytest.raises(PactError):
        load(text)


def test_aliases_cannot_make_a_text_grow() -> None:
    levels = "".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9)}]\n" for n in range(1, 9))
    with pytest.raises(PactError, match="unknown key"):
        load("k0: &k0 [x]\n" + levels)


def test_what_is_not_said_comes_from_the_parent() -> None:
    parent = load("pact: company\nbudgets: {steps: 10, tokens: 50}\ntools: {a: , b: }")
    child = load(
        "pact: mine\nextends: company\nbudgets: {steps: 5}\ntools: {c: }",
        known={"company": parent},
    )
    assert child.budgets == Budgets(steps=5, tokens=50)
    assert list(child.tools or {}) == ["c"]
    assert (child.pact, child.extends) == ("mine", "company")


def test_the_version_names_the_content() -> None:
    pact = load(WHOLE)
    reordered = load(WHOLE.replace("kind: read, timeout: 5s", "timeout: 5000ms, kind: read"))
    assert pact.version == reordered.version == version_of(pact)
    assert len(pact.version) == 12
    assert load(WHOLE.replace("35", "36")).version != pact.version


def test_the_default_allows_all_but_loops() -> None:
    pact = default_pact()
    assert (pact.tools, pact.models, pact.budgets) == (None, None, Budgets())
    assert pact.loops.same_call == 3
    assert merge(pact, {}) == pact
    assert merge(pact, {"budgets": {"steps": 1}}).version != pact.version


def test_a_pact_goes_through_msgpack_whole() -> None:
    pact = load(WHOLE)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(pact), type=type(pact)) == pact


@pytest.mark.parametrize("steps", ["9" * 5000, "1__2", "1_", "1_000_"])
def test_a_number_that_python_does_not_read_is_refused_with_its_place(steps: str) -> None:
    with pytest.raises(PactError, match=r"budgets\.steps"):
        load(f"pact: x\nbudgets: {{steps: {steps}}}\n")
    with pytest.raises(PactError, match=r"loops\.similar_call"):
        load(f"pact: x\nloops: {{similar_call: {steps} in 90s}}\n")
    if "_" in steps:
        with pytest.raises(PactError, match=r"budgets\.usd"):
            load(f"pact: x\nbudgets: {{usd: {steps}}}\n")
