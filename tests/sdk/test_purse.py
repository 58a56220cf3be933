"""Budgets that several runs share, from inside a process: what begins, what waits, what is
refused, and what is told to the ledger in the end."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import checkrein
from checkrein.bus.leases import LeaseAnswer, LeaseRequest, LedgerRequest, account_key
from checkrein.bus.messages import decode, encode
from checkrein.control.ledger import Kept, Ledger
from checkrein.policy.accounts import Account, Amounts
from checkrein.sdk import purse as module
from checkrein.sdk import quiet
from checkrein.sdk.calls import ModelCall, ToolCall
from checkrein.sdk.errors import Denied
from checkrein.sdk.links.types import NoLink
from checkrein.world import REAL
from tests.sdk.fakes import House, halted, house

FIVE = "pact: test\nbudgets: {task: {tool_calls: 5}}"
TASK = "0123456789abcdef0123456789abcdef"
ROOM = f"00-{TASK}-0123456789abcdef-01"


class LedgerLink(NoLink):
    """A link with a ledger behind it, in a thread of its own as a real one."""

    connected = True

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.ledger = ledger or Ledger("test")
        self.asked: list[LeaseRequest] = []
        self.answers = True
        self.error = ""
        self._lock = threading.Lock()

    def lease(self, request: bytes, answered: Callable[[bytes], None]) -> bool:
        def answer() -> None:
            with self._lock:
                asked = decode(request, LeaseRequest)
                self.asked.append(asked)
                taken = self.ledger.take(
                    "s", asked.number, asked.claims, REAL.monotonic_ns(), REAL.now_ns()
                )
                made = LeaseAnswer(purse=asked.purse, number=asked.number, grants=taken.grants)
            if self.error:
                made = LeaseAnswer(error=self.error)
            if self.answers:
                answered(encode(made))

        threading.Thread(target=answer).start()
        return True

    def kept(self) -> Kept:
        (key,) = self.ledger.entries
        kept = self.ledger.saved(key)
        assert kept is not None
        return kept

    def raise_by(self, amount: Amounts) -> None:
        (key,) = self.ledger.entries
        request = LedgerRequest(account=self.kept().account, raise_id="r", amount=amount)
        self.ledger.raise_by(request, 0, 0)
        assert account_key(request.account) == key


@contextmanager
def spending(pact: str, link: LedgerLink | NoLink | None = None) -> Iterator[tuple[House, Any]]:
    with (
        house(pact=pact, make_link=lambda _: link or LedgerLink()) as built,
        checkrein.run(traceparent=ROOM) as run,
    ):  # fmt: skip
        yield built, run


def act(number: int) -> None:
    call = ToolCall.begin("search", {"n": number})
    call.end({"found": number})


def think(provider: str = "openai", model: str = "gpt-4o-mini", **parameters: Any) -> ModelCall:
    return ModelCall.begin(provider, model, [{"role": "user", "content": "hello"}], parameters)


def test_a_shared_budget_ends_with_the_last_call_it_covers() -> None:
    link = LedgerLink()
    with spending(FIVE, link) as (built, _):
        for number in range(5):
            act(number)
        with pytest.raises(Denied) as caught:
            act(6)
    assert caught.value.rule == "budgets.task.tool_calls"
    assert "5 of 5 tool calls are spent" in str(caught.value)
    decided, refused = built.recorder.of("scope.decision")
    assert refused["verdict"] == "deny", "there is nobody to be asked"
    assert (decided["verdict"], decided["guard"]) == ("ask", "budgets")
    assert decided["reason"].startswith(f"the task budget of {TASK}")
    assert built.recorder.of("tool.returned")[-1]["status"] == "denied"
    assert len(built.recorder.of("tool.invoked")) == 5


def test_stop_ends_the_run_and_a_raise_lets_it_go_on() -> None:
    link = LedgerLink()
    pact = "pact: test\nbudgets: {task: {tool_calls: 1}, exhausted: stop}"
    with spending(pact, link) as (_, run):
        act(1)
        with pytest.raises(Denied) as caught:
            act(2)
        assert caught.value.advice == "TERMINAL"
        run._runaway_ns = None  # that it is halted then is tested with the guards
        link.raise_by(Amounts(tool_calls=1))
        act(2)
        with pytest.raises(Denied):
            act(3)
        run._runaway_ns = None


def test_what_is_left_goes_back_at_the_end() -> None:
    link = LedgerLink()
    with spending("pact: test\nbudgets: {task: {tool_calls: 1000}}", link):
        for number in range(10):
            act(number)
    kept = link.kept()
    assert not kept.lines
    assert kept.closed_used == Amounts(tool_calls=10)


def test_a_thousand_calls_ask_a_few_times() -> None:
    link = LedgerLink()
    with spending("pact: test\nbudgets: {task: {tool_calls: 100000}}", link):
        for number in range(1000):
            act(number)
    assert len(link.asked) < 60


def test_calls_at_once_never_spend_more_than_there_is() -> None:
    link = LedgerLink()
    made: list[int] = []
    with spending("pact: test\nbudgets: {task: {tool_calls: 100}}", link) as (_, run):

        def work() -> None:
            from checkrein.sdk.run import RUN

            RUN.set(run)
            while True:
                try:
                    act(len(made))
                except Denied as denied:
                    if denied.advice != "WAIT":
                        return
                else:
                    made.append(1)

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(made) == 100
    assert link.kept().closed_used == Amounts(tool_calls=100)


async def test_a_coroutine_waits_without_blocking_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    link = LedgerLink()
    link.answers = False
    turns = 0
    with spending(FIVE, link):

        async def turn() -> None:
            nonlocal turns
            while not link.answers:
                turns += 1
                await asyncio.sleep(0.001)
                link.answers = turns > 20

        monkeypatch.setattr(module, "ASK_S", 0.05)
        async with asyncio.TaskGroup() as group:
            group.create_task(turn())
            call = await ToolCall.abegin("search", {"n": 1})
        call.end("found")
        inner = await ModelCall.abegin("openai", "gpt-4o-mini", [], {})
        inner.end("ok", input_tokens=1, output_tokens=1)
    assert turns > 20
    assert link.kept().closed_used.tool_calls == 1


def test_without_a_server_the_pact_says_what_is_unclear() -> None:
    with spending(FIVE, NoLink()), pytest.raises(Denied) as caught:
        act(1)
    assert caught.value.rule == "budgets.task.unkept"
    assert "cannot be kept" in str(caught.value)


def test_without_a_server_unclear_allow_counts_here_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    quiet._WARNED.discard("shared budgets")
    with halted("5 tool calls are spent"), spending(FIVE + "\nunclear: allow", NoLink()):
        for number in range(5):
            act(number)
        with pytest.raises(Denied) as caught:
            act(6)
    assert caught.value.rule == "budgets.task.tool_calls"
    assert caught.value.advice == "TERMINAL"
    (said,) = [one for one in caplog.messages if "no ledger can be reached" in one]
    assert "counted in this process alone" in said


def test_what_is_leased_is_spent_while_the_server_is_away() -> None:
    link = LedgerLink()
    with spending("pact: test\nbudgets: {task: {tool_calls: 1000}}", link):
        act(0)
        act(1)
        link.connected = False
        made = 0
        while made < 1000:
            try:
                act(made + 2)
            except Denied as denied:
                assert denied.advice == "WAIT"  # noqa: PT017 # how many go through is not known
                break
            made += 1
        assert 1 <= made < 1000
        link.connected = True
        act(2000)


def test_a_ledger_that_does_not_lease_keeps_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    link = LedgerLink()
    link.error = "the disk is full"
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    with spending(FIVE, link), pytest.raises(Denied) as caught:
        act(1)
    assert caught.value.rule == "budgets.task.unkept"


def test_a_model_call_reserves_what_it_may_cost_and_settles_what_it_did() -> None:
    link = LedgerLink()
    with spending("pact: test\nbudgets: {task: {tokens: 1000}}", link):
        with pytest.raises(Denied) as caught:
            think(max_tokens=2000)
        assert caught.value.rule == "budgets.task.tokens"
        call = think(max_tokens=900)
        with pytest.raises(Denied) as caught:
            think(max_tokens=900)
        assert caught.value.advice == "WAIT"
        call.end("ok", input_tokens=20, output_tokens=30)
        think(max_tokens=900).end("ok", input_tokens=20, output_tokens=30)
    assert link.kept().closed_used.tokens == 100


def test_a_call_that_broke_off_costs_what_was_reserved() -> None:
    link = LedgerLink()
    with spending("pact: test\nbudgets: {task: {tokens: 1000}}", link):
        call = think(max_tokens=100)
        call.fail(ConnectionError("refused"))
        assert sum(one.used.tokens for one in link.kept().lines.values()) == 0
        call = think(max_tokens=100)
        call.first_token()
        call.fail(ConnectionError("broke off"))
        think(max_tokens=100).end("ok")
    used = link.kept().closed_used.tokens
    assert 200 <= used <= 300, "the one that broke off, and the one that did not say"


def test_a_model_without_a_price_is_never_free() -> None:
    for unclear, kind in (("deny", "deny"), ("ask", "ask")):
        pact = f"pact: test\nbudgets: {{task: {{usd: 1}}}}\nunclear: {unclear}"
        with spending(pact) as (built, _), pytest.raises(Denied) as caught:
            think(model="nobodys-model")
        assert caught.value.rule == "budgets.task.usd.unpriced"
        assert built.recorder.of("scope.decision")[0]["verdict"] == kind
    link = LedgerLink()
    pact = "pact: test\nbudgets: {task: {usd: 1, tokens: 500}}\nunclear: allow"
    with spending(pact, link):
        think(model="nobodys-model", max_tokens=10).end("x", input_tokens=5, output_tokens=5)
    assert link.kept().closed_used.tokens == 10


def test_what_the_guard_refuses_reserves_nothing() -> None:
    link = LedgerLink()
    with spending(FIVE + "\ntools: {search: }", link):
        with pytest.raises(Denied) as caught:
            ToolCall.begin("wander", {})
        assert caught.value.rule == "tools.pact"
        for number in range(5):
            act(number)
    assert link.kept().closed_used.tool_calls == 5


def test_what_is_forbidden_is_refused_though_the_budget_is_spent() -> None:
    with spending(FIVE + "\ntools: {search: }"):
        for number in range(5):
            act(number)
        with pytest.raises(Denied) as caught:
            ToolCall.begin("wander", {})
        assert caught.value.rule == "tools.pact"


def test_a_failure_of_the_purse_denies(monkeypatch: pytest.MonkeyPatch) -> None:
    with spending(FIVE) as (built, _):
        before = quiet.faults.copy()
        monkeypatch.setattr(
            built.client.purses.purse, "reserve", lambda *_: 1 / 0, raising=True
        )  # fmt: skip
        with pytest.raises(Denied) as caught:
            act(1)
        assert caught.value.rule == "budgets.erred"
        quiet.faults.clear()
        quiet.faults.update(before)


def test_a_recall_gives_back_at_once() -> None:
    link = LedgerLink()
    with spending("pact: test\nbudgets: {task: {tool_calls: 1000}}", link) as (built, _):
        for number in range(20):
            act(number)
        (name,) = link.kept().lines
        built.client.recalled([name])
        deadline = REAL.monotonic_ns() + 10 * 10**9
        while sum(one.granted[0] - one.returned[0] for one in link.kept().lines.values()) > 20:
            assert REAL.monotonic_ns() < deadline
        assert link.kept().lines[name].used.tool_calls == 20


def test_a_forked_child_has_a_purse_of_its_own() -> None:
    link = LedgerLink()
    with spending(FIVE, link) as (built, _):
        act(1)
        parent = built.client.purses.purse
        built.client.purses.forked()
        assert built.client.purses.purse is not parent
        assert not built.client.purses.purse.holds


def test_accounts_are_named_for_who_runs() -> None:
    link = LedgerLink()
    pact = "pact: test\nbudgets: {hour: {tool_calls: 9}}"
    with spending(pact, link):
        act(1)
    account = link.kept().account
    assert isinstance(account, Account)
    assert (account.scope, account.environment, account.name) == ("hour", "development", "bot")
