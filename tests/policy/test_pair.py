"""An enforced pact with another watched beside it, and other versions in the middle of a run."""

from checkrein.policy.guard import RunGuard
from checkrein.policy.pact import load
from checkrein.policy.pair import PairGuard
from checkrein.policy.types import Action, Verdict

OPEN = load("pact: open\ntools: {a: {kind: read}, b: {kind: read}}\n")
CLOSED = load("pact: closed\ntools: {a: {kind: read}}\n")


def call(name: str, n: int = 0) -> Action:
    return Action(kind="tool", name=name, arguments={"n": n}, call_id=f"{name}{n}")


def kinds(verdict: Verdict) -> tuple[str, str]:
    """What was decided, and what the pact in shadow says beside it ("": the same)."""
    return verdict.kind, verdict.beside.kind if verdict.beside is not None else ""


def test_what_the_shadow_refuses_stands_beside_and_is_let_pass() -> None:
    guard = PairGuard(RunGuard(OPEN), RunGuard(CLOSED, watching=True))
    verdict = guard.judge(call("b"), 1)
    assert kinds(verdict) == ("allow", "deny")
    assert verdict.beside is not None
    assert (verdict.beside.shadow, verdict.beside.pact_version) == (True, CLOSED.version)
    assert kinds(guard.judge(call("a"), 2)) == ("allow", "")


def test_what_is_refused_is_not_judged_by_the_shadow() -> None:
    guard = PairGuard(RunGuard(CLOSED), RunGuard(OPEN, watching=True))
    assert kinds(guard.judge(call("b"), 1)) == ("deny", "")


def test_another_version_keeps_what_was_spent() -> None:
    guard = PairGuard(RunGuard(load("pact: x\nbudgets: {tool_calls: 10}\n")))
    for n in range(3):
        guard.judge(call("a", n), n + 1)
        guard.returned(call("a", n), f"result {n}", "", n + 1)
    tight = load("pact: x\nbudgets: {tool_calls: 3}\n")
    guard.adopt(tight)
    verdict = guard.judge(call("a", 9), 9)
    assert verdict.kind in ("deny", "ask")
    assert (verdict.rule, verdict.pact_version) == ("budgets.tool_calls", tight.version)


def test_a_raised_budget_lets_the_run_go_on() -> None:
    guard = PairGuard(RunGuard(load("pact: x\nbudgets: {tool_calls: 2}\nwarn_at: 100%\n")))
    for name in ("a", "c"):
        assert guard.judge(call(name), 1).kind in ("allow", "steer")
    assert guard.judge(call("b"), 2).kind in ("deny", "ask")
    guard.adopt(load("pact: x\nbudgets: {tool_calls: 5}\nwarn_at: 100%\n"))
    assert guard.judge(call("b"), 3).kind == "allow"


def test_a_call_in_flight_while_the_pact_changes_comes_back() -> None:
    guard = PairGuard(RunGuard(OPEN))
    guard.judge(call("a"), 1)
    guard.adopt(CLOSED)
    guard.returned(call("a"), "result", "", 2)
    assert guard.enforced.open == {}
    assert guard.judge(call("b"), 3).kind == "deny"


def test_a_shadow_comes_and_goes() -> None:
    guard = PairGuard(RunGuard(OPEN))
    guard.adopt(OPEN, CLOSED)
    assert kinds(guard.judge(call("b", 1), 1)) == ("allow", "deny")
    guard.adopt(OPEN, None)
    assert kinds(guard.judge(call("b", 2), 2)) == ("allow", "")
