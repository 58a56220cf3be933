"""An enforced pact with another watched beside it, and other versions in the middle of a run."""

from checkrein.policy.guard import RunGuard
from checkrein.policy.pact import load
from checkrein.policy.pair import PairGuard
from checkrein.policy.types import Action, Verdict

OPEN = load("pact: open\ntools: {a: {kind: read}, b: {kind: read}}\n")
CLOSED = load("pact: closed\ntools: {a: {kind: read}}\n")


def call(name: str, n: int = 0) -> Action:
    return Action(kind="tool", name=name, arguments={"n": n}, call_id=f"{name}{n}")


class Told:
    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []

    def __call__(self, action: Action, verdict: Verdict) -> None:
        self.verdicts.append(verdict)


def pair(enforced: RunGuard, shadow: RunGuard | None = None) -> tuple[PairGuard, Told]:
    guard, told = PairGuard(enforced, shadow), Told()
    guard.tell = told
    return guard, told


def test_what_the_shadow_refuses_is_told_and_let_pass() -> None:
    guard, told = pair(RunGuard(OPEN), RunGuard(CLOSED))
    assert guard.judge(call("b"), 1).kind == "allow"
    (verdict,) = told.verdicts
    assert (verdict.kind, verdict.shadow, verdict.runaway) == ("deny", True, False)
    assert verdict.pact_version == CLOSED.version
    assert guard.judge(call("a"), 2).kind == "allow"
    assert len(told.verdicts) == 1


def test_what_is_refused_is_not_judged_by_the_shadow() -> None:
    guard, told = pair(RunGuard(CLOSED), RunGuard(OPEN))
    assert guard.judge(call("b"), 1).kind == "deny"
    assert told.verdicts == []


def test_a_shadow_that_never_ends_its_refusals_halts_nothing() -> None:
    guard, told = pair(RunGuard(OPEN), RunGuard(CLOSED))
    kinds = {guard.judge(call("b", n), n + 1).kind for n in range(10)}
    assert kinds == {"allow"}
    assert not any(verdict.runaway for verdict in told.verdicts)


def test_a_shadow_that_fails_changes_nothing() -> None:
    class Broken(RunGuard):
        def judge(self, action: Action, now_ns: int) -> Verdict:
            raise RuntimeError("oops")

    guard, told = pair(RunGuard(OPEN), Broken(CLOSED))
    assert guard.judge(call("a"), 1).kind == "allow"
    assert (told.verdicts[0].rule, told.verdicts[0].shadow) == ("shadow.erred", True)


def test_another_version_keeps_what_was_spent() -> None:
    guard, _ = pair(RunGuard(load("pact: x\nbudgets: {tool_calls: 10}\n")))
    for n in range(3):
        guard.judge(call("a", n), n + 1)
        guard.returned(call("a", n), f"result {n}", "", n + 1)
    tight = load("pact: x\nbudgets: {tool_calls: 3}\n")
    guard.adopt(tight, None)
    verdict = guard.judge(call("a", 9), 9)
    assert (verdict.kind, verdict.rule, verdict.pact_version) == (
        "deny", "budgets.tool_calls", tight.version,
    )  # fmt: skip


def test_a_raised_budget_lets_the_run_go_on() -> None:
    guard, _ = pair(RunGuard(load("pact: x\nbudgets: {tool_calls: 2}\nwarn_at: 100%\n")))
    assert guard.judge(call("a"), 1).kind == "allow"
    assert guard.judge(call("c"), 1).kind == "steer"
    assert guard.judge(call("b"), 2).kind == "deny"
    guard.adopt(load("pact: x\nbudgets: {tool_calls: 5}\nwarn_at: 100%\n"), None)
    assert guard.judge(call("b"), 3).kind == "allow"


def test_a_call_in_flight_while_the_pact_changes_comes_back() -> None:
    guard, _ = pair(RunGuard(OPEN))
    guard.judge(call("a"), 1)
    guard.adopt(CLOSED, None)
    guard.returned(call("a"), "result", "", 2)
    assert guard.enforced.open == {}
    assert guard.judge(call("b"), 3).kind == "deny"


def test_a_shadow_that_comes_late_takes_over_what_was_spent() -> None:
    guard, told = pair(RunGuard(OPEN))
    for n in range(3):
        guard.judge(call("a", n), n + 1)
        guard.returned(call("a", n), f"result {n}", "", n + 1)
    guard.adopt(OPEN, load("pact: y\nbudgets: {tool_calls: 3}\n"))
    assert guard.judge(call("a", 5), 9).kind == "allow"
    assert [verdict.rule for verdict in told.verdicts] == ["budgets.tool_calls"]
    guard.adopt(OPEN, None)
    guard.judge(call("a", 6), 10)
    assert len(told.verdicts) == 1
