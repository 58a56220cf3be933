"""Each guard refuses what it should, before the call, with a reason; and nothing else."""

from typing import Any

import pytest

from checkrein.policy import guards
from checkrein.policy.guard import OPEN_CALLS_MAX, REFUSALS_MAX, RunGuard
from checkrein.policy.pact import default_pact, load
from checkrein.policy.types import Action, Verdict

SECOND_NS = 1_000_000_000


class Agent:
    """Makes calls under a guard on a clock of its own."""

    def __init__(self, pact: str = "", **fields: Any) -> None:
        self.guard = RunGuard(load(f"pact: test\n{pact}") if pact else default_pact())
        self.now_ns = SECOND_NS
        self.calls = 0

    def asks(self, tool: str, known: tuple[str, ...] = (), **arguments: Any) -> Verdict:
        """Judged, not made."""
        self.now_ns += SECOND_NS
        self.calls += 1
        self.action = Action(
            kind="tool", name=tool, arguments=arguments, call_id=f"c{self.calls}", known_tools=known
        )
        return self.guard.judge(self.action, self.now_ns)

    def uses(self, tool: str, result: Any, error: str = "", **arguments: Any) -> Verdict:
        """Judged, and made if allowed."""
        verdict = self.asks(tool, **arguments)
        if verdict.kind in ("allow", "steer"):
            self.guard.returned(self.action, result, error, self.now_ns)
        return verdict

    def thinks(self, tokens: int = 10, usd: float | None = 0.01, model: str = "m") -> Verdict:
        self.now_ns += SECOND_NS
        verdict = self.guard.judge(Action(kind="model", name=model), self.now_ns)
        if verdict.kind in ("allow", "steer"):
            self.guard.model_returned(tokens, 0, usd, self.now_ns, model)
        return verdict


def test_a_tool_that_does_not_exist_is_refused_with_those_that_do() -> None:
    agent = Agent()
    verdict = agent.asks("serch_kb", known=("search_kb", "refund"))
    assert (verdict.kind, verdict.rule, verdict.advice) == ("deny", "tools.unknown", "RETRYABLE")
    assert "did you mean `search_kb`?" in verdict.reason
    assert "search_kb, refund" in verdict.reason


def test_a_tool_outside_the_pact_is_refused() -> None:
    agent = Agent("tools: {search_kb: }")
    assert agent.asks("search_kb").kind == "allow"
    verdict = agent.asks("delete_all", known=("search_kb", "delete_all"))
    assert (verdict.kind, verdict.rule) == ("deny", "tools.pact")
    assert verdict.pact == "test"
    assert verdict.pact_version == agent.guard.pact.version


@pytest.mark.parametrize(
    ("model", "kind"),
    [("gpt-5-mini", "allow"), ("openai/gpt-5-mini", "allow"), ("claude-haiku-4", "allow"),
     ("gpt-5", "deny"), ("gpt-5-mini-x", "deny")],
)  # fmt: skip
def test_models_match_by_pattern(model: str, kind: str) -> None:
    agent = Agent("models: [gpt-5-mini, claude-haiku-*]")
    assert agent.thinks(model=model).kind == kind


def test_tool_calls_end_at_the_budget_and_warn_before() -> None:
    agent = Agent("budgets: {tool_calls: 5}")
    kinds = [agent.uses("get", {"n": n}, n=n).kind for n in range(6)]
    assert kinds == ["allow", "allow", "steer", "allow", "allow", "ask"]
    verdict = agent.asks("get", n=99)
    assert (verdict.rule, verdict.advice, verdict.runaway) == (
        "budgets.tool_calls", "TERMINAL", True,
    )  # fmt: skip
    assert agent.guard.spent.tool_calls == 5


def test_a_budget_that_stops_is_not_asked_about() -> None:
    agent = Agent("budgets: {tool_calls: 1, exhausted: stop}\nwarn_at: 100%")
    agent.uses("get", 1, n=1)
    verdict = agent.asks("get", n=2)
    assert (verdict.kind, verdict.advice, verdict.runaway) == ("deny", "TERMINAL", True)


def test_a_raised_budget_lets_the_run_go_on() -> None:
    agent = Agent("budgets: {tool_calls: 1}\nwarn_at: 100%")
    agent.uses("get", 1, n=1)
    assert agent.asks("get", n=2).kind == "ask"
    agent.guard.raised("tool_calls", 1)
    assert agent.uses("get", 2, n=2).kind == "steer"
    assert agent.asks("get", n=3).kind == "ask"
    agent.guard.raised("unicorns", 5)
    assert agent.asks("get", n=3).kind == "ask"


def test_the_warning_tells_the_agent_what_is_used() -> None:
    agent = Agent("budgets: {tool_calls: 2}\nwarn_at: 50%")
    verdict = agent.uses("get", 1, n=1)
    assert verdict.kind == "steer"
    assert "1 of 2 tool calls are used" in verdict.guidance


def test_steps_end_at_the_budget() -> None:
    guard = RunGuard(load("pact: t\nbudgets: {steps: 2}\nwarn_at: 100%"))
    assert [guard.step(n).kind for n in range(1, 4)] == ["allow", "steer", "ask"]
    assert guard.spent.steps == 2


@pytest.mark.parametrize("budget", ["tokens: 100", "usd: 0.10"])
def test_tokens_and_money_stop_models_and_tools(budget: str) -> None:
    agent = Agent(f"budgets: {{{budget}}}\nwarn_at: 100%")
    assert agent.thinks(tokens=99, usd=0.09).kind == "allow"
    assert agent.thinks(tokens=99, usd=0.09).kind == "allow", "the call in flight may overshoot"
    assert agent.thinks().runaway
    assert agent.asks("get").runaway
    assert agent.guard.step(agent.now_ns).runaway


def test_a_price_nobody_knows_is_never_zero() -> None:
    agent = Agent("budgets: {usd: 1.00}")
    assert agent.thinks(usd=None, model="home-made").kind == "allow"
    verdict = agent.thinks(usd=None, model="home-made")
    assert (verdict.kind, verdict.rule) == ("deny", "budgets.usd.unpriced")
    assert "home-made" in verdict.reason
    assert agent.asks("get").kind == "allow", "tools cost no money by themselves"
    lenient = Agent("budgets: {usd: 1.00}\nunclear: allow")
    assert [lenient.thinks(usd=None).kind for _ in range(3)] == ["allow"] * 3


def test_wall_clock_stands_still_in_a_pause() -> None:
    agent = Agent("budgets: {wall: 1m}\nwarn_at: 100%")
    assert agent.asks("get", n=1).kind == "allow"
    agent.now_ns += 100 * SECOND_NS
    agent.guard.paused(80 * SECOND_NS)
    assert agent.asks("get", n=2).kind == "allow"
    agent.now_ns += 60 * SECOND_NS
    verdict = agent.asks("get", n=3)
    assert (verdict.rule, verdict.runaway) == ("budgets.wall", True)


def test_the_call_after_the_third_equal_one_is_refused_before_it_is_made() -> None:
    agent = Agent()
    made = []
    for _ in range(6):
        verdict = agent.uses("search", {"found": "the same long answer as before"}, q="x")
        made.append(verdict.kind)
    assert made == ["allow", "allow", "allow", "deny", "deny", "deny"]
    assert verdict.rule == "loops.same_call"
    assert "3 times" in verdict.reason


def test_equal_calls_in_flight_count() -> None:
    agent = Agent()
    assert [agent.asks("search", q="x").kind for _ in range(4)] == ["allow"] * 3 + ["deny"]


def test_something_else_is_still_allowed_in_a_loop_and_ends_it() -> None:
    agent = Agent()
    for _ in range(4):
        agent.uses("search", "nothing but this same sentence, again and again, as before", q="x")
    assert agent.asks("search", q="x").kind == "deny"
    news = agent.uses("read", "a text that was not there before, in which all is said", p=1)
    assert news.kind == "allow"
    assert agent.asks("search", q="x").kind == "allow"


def test_an_agent_that_keeps_asking_is_cut_off() -> None:
    agent = Agent("tools: {ok: }")
    verdicts = [agent.asks("forbidden", n=n) for n in range(REFUSALS_MAX + 1)]
    assert [each.runaway for each in verdicts] == [False] * REFUSALS_MAX + [True]
    assert verdicts[-1].advice == "TERMINAL"
    agent.uses("ok", 1)
    assert not agent.asks("forbidden").runaway


def test_a_guard_that_errs_refuses_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Verdict | None:
        raise ZeroDivisionError("no")

    monkeypatch.setattr(guards, "GUARDS", (("broken", broken),))
    verdict = Agent().asks("get")
    assert (verdict.kind, verdict.guard, verdict.rule) == ("deny", "broken", "broken.erred")
    assert "ZeroDivisionError" in verdict.reason


def _cyclic() -> Any:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def _deep() -> Any:
    value: Any = 1
    for _ in range(10_000):
        value = [value]
    return value


class _Rude:
    def __repr__(self) -> str:
        raise RuntimeError("do not look at me")


@pytest.mark.parametrize(
    "value",
    [_cyclic(), _deep(), _Rude(), float("nan"), "\ud800", b"\xff\xfe", "x" * 10_000_000, 2**200,
     {1: 2, "a": {3}}, object()],
    ids=["cyclic", "deep", "rude", "nan", "surrogate", "bytes", "10 MB", "huge", "keys", "object"],
)  # fmt: skip
def test_hostile_arguments_and_results_are_judged_all_the_same(value: Any) -> None:
    agent = Agent()
    for _ in range(3):
        assert agent.uses("tool", value, x=value).kind == "allow"
    assert agent.asks("tool", x=value).kind == "deny"


def test_calls_that_never_return_are_forgotten_at_the_bound() -> None:
    agent = Agent()
    for n in range(OPEN_CALLS_MAX + 50):
        assert agent.asks("tool", n=n).kind == "allow"
    assert len(agent.guard.open) == OPEN_CALLS_MAX
    agent.guard.returned(Action(kind="tool", name="tool", call_id="c1"), 1, "", agent.now_ns)


def test_a_forked_child_does_not_wait_for_a_lock_of_its_parents_threads() -> None:
    agent = Agent()
    with agent.guard._lock:  # as a thread that the child does not have left it
        agent.guard.forked()
        assert agent.asks("tool").kind == "allow"
