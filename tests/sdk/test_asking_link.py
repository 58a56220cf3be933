"""Questions over the buses: asked again until they are answered, and only control's word counts."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from nacl.signing import SigningKey

import checkrein
from checkrein.bus import subjects
from checkrein.bus.approvals import Ask, Asked, Raise, word_of
from checkrein.bus.messages import SessionGrant, encode
from checkrein.bus.types import Bus, Message
from checkrein.policy.types import Duty, Pact, Verdict
from checkrein.sdk import client as clients
from checkrein.sdk.errors import Denied
from checkrein.sdk.guard import Seat
from checkrein.sdk.links import questions
from tests.sdk.fakes import ScriptedGuard
from tests.sdk.test_asking import in_thread, with_run
from tests.sdk.test_bus_link import SESSION, Control, Linked, wait_for

ASK = Verdict(kind="ask", guard="tools", rule="tools.pay.ask", reason="over 20 dollars")
paid: list[int] = []


@checkrein.tool
def pay(cents: int) -> int:
    paid.append(cents)
    return cents


class Answering(Control):
    """Answers questions as the test says; None: says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[Ask | Raise] = []
        self.answer: Callable[[Ask | Raise], Asked | None] = lambda _: None

    async def connect(self, grant: SessionGrant) -> tuple[Bus, Bus]:
        made = await super().connect(grant)
        assert self.bus is not None
        await self.bus.subscribe(subjects.ask(SESSION), self._asked)
        return made

    async def _asked(self, message: Message) -> None:
        word = word_of(message.data)
        self.words.append(word)
        answer = self.answer(word)
        if answer is not None and self.bus is not None:
            await self.bus.respond(message, encode(answer))

    def approved(self, word: Ask | Raise, **changes: Any) -> Asked:
        assert isinstance(word, Ask)
        said = {
            "approval_id": "a1", "digest": word.digest, "decision": "approved", "edited": False,
            "arguments": None, "raised": {},
        } | changes.pop("said", {})  # fmt: skip
        order = self.order("approve", word.run_id, arguments=said, **changes)
        return Asked(claim=word.claim, status="approved", approval_id="a1", order=order)

    def open(self, word: Ask | Raise) -> Asked:
        claim = word.claim if isinstance(word, Ask) else word.escalation_id
        return Asked(claim=claim, status="open", approval_id="a1", left_s=60.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    paid.clear()
    monkeypatch.setattr(questions, "AGAIN_NS", 50_000_000)
    monkeypatch.setattr(questions, "EARLY_NS", 20_000_000)
    monkeypatch.setattr(questions, "ANSWER_S", 0.2)


class Scene(Linked):
    """A linked process whose guard asks."""

    def __init__(self, verdict: Verdict = ASK) -> None:
        super().__init__()
        self.control: Answering = Answering()
        self.verdict = verdict

    def __enter__(self) -> "Scene":
        super().__enter__()
        clients.make_seat = lambda text, source: Seat(
            ScriptedGuard(pay=self.verdict), Pact(pact="p", version="v1")
        )
        return self


def test_a_question_is_asked_again_until_it_is_answered() -> None:
    with Scene() as it, checkrein.run() as run:
        it.registered(run)
        thread, results = in_thread(lambda: with_run(run, lambda: pay(2500)))
        wait_for(lambda: len(it.control.words) >= 2)  # nobody answers
        it.control.answer = it.control.open
        wait_for(lambda: it.house.recorder.of("approval.requested"))
        claims = {word.claim for word in it.control.words if isinstance(word, Ask)}
        assert len(claims) == 1
        assert thread.is_alive()
        it.control.answer = it.control.approved
        thread.join(10)
        assert results == [2500]
        asked = len(it.control.words)
        with pytest.raises(AssertionError):
            wait_for(lambda: len(it.control.words) > asked, 0.2)


def test_an_order_of_approval_makes_it_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "AGAIN_NS", 3600 * 10**9)
    with Scene() as it, checkrein.run() as run:
        it.registered(run)
        it.control.answer = it.control.open
        thread, results = in_thread(lambda: with_run(run, lambda: pay(2500)))
        wait_for(lambda: it.house.recorder.of("approval.requested"))
        it.control.answer = it.control.approved
        it.control.send(it.control.order("approve", run.run_id, arguments={"approval_id": "a1"}))
        thread.join(10)
        assert results == [2500]
        assert it.control.heard == []  # it is no order for the run to obey


def forged(it: Scene, word: Ask | Raise) -> Asked:
    return it.control.approved(word, key=SigningKey.generate())


def elsewhere(it: Scene, word: Ask | Raise) -> Asked:
    return it.control.approved(word, session="s2")


def another(it: Scene, word: Ask | Raise) -> Asked:
    return it.control.approved(word, said={"digest": "0" * 64})


def no(it: Scene, word: Ask | Raise) -> Asked:
    return it.control.approved(word, said={"decision": "denied"})


def unsigned(it: Scene, word: Ask | Raise) -> Asked:
    assert isinstance(word, Ask)
    return Asked(claim=word.claim, status="approved", approval_id="a1")


@pytest.mark.parametrize("false", [forged, elsewhere, another, no, unsigned])
def test_a_false_word_is_not_believed(false: Callable[[Scene, Ask | Raise], Asked]) -> None:
    with Scene() as it, checkrein.run() as run:
        it.registered(run)
        it.control.answer = lambda word: false(it, word)
        thread, results = in_thread(lambda: with_run(run, lambda: pay(2500)))
        wait_for(lambda: len(it.control.words) >= 3)
        assert thread.is_alive()
        assert paid == []
        it.control.answer = it.control.approved
        thread.join(10)
        assert results == [2500]


def test_it_waits_while_the_server_is_away_and_is_answered_when_it_is_back() -> None:
    with Scene() as it, checkrein.run() as run:
        it.registered(run)
        it.control.answer = it.control.open
        thread, results = in_thread(lambda: with_run(run, lambda: pay(2500)))
        wait_for(lambda: it.house.recorder.of("approval.requested"))
        it.control.server.up = False
        it.control.answer = it.control.approved
        thread.join(0.3)
        assert thread.is_alive()
        it.control.server.up = True
        thread.join(10)
        assert results == [2500]


def test_without_a_server_nobody_can_be_asked() -> None:
    scene = Scene()
    scene.endpoint = None
    with scene, checkrein.run(), pytest.raises(Denied, match="nobody can be asked") as denied:
        pay(2500)
    assert denied.value.advice == "ESCALATE"
    assert paid == []


async def test_a_call_that_is_cancelled_says_that_nobody_waits() -> None:
    @checkrein.tool(name="pay")
    async def pay_later(cents: int) -> int:
        return cents

    with Scene() as it:
        it.control.answer = it.control.open
        async with checkrein.run():
            waiting = asyncio.ensure_future(pay_later(2500))
            await asyncio.to_thread(wait_for, lambda: it.control.words)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await asyncio.to_thread(
                wait_for,
                lambda: any(isinstance(w, Ask) and w.left for w in it.control.words),
            )


def test_a_duty_is_told_until_it_is_heard_and_nobody_waits_for_it() -> None:
    duty = Duty(when="args.cents > 4000", to="oncall", within_s=300.0)
    with Scene(Verdict(kind="allow", duties=(duty,))) as it, checkrein.run() as run:
        it.registered(run)
        assert pay(5000) == 5000
        wait_for(lambda: len(it.control.words) >= 2)
        first, second = it.control.words[:2]
        assert isinstance(first, Raise)
        assert isinstance(second, Raise)
        assert first.escalation_id == second.escalation_id
        assert second.waited_s > first.waited_s
        it.control.answer = it.control.open
        wait_for(lambda: not len(it.link._questions))


def test_what_was_raised_at_the_very_end_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "AGAIN_NS", 3600 * 10**9)
    with Scene() as it:
        with checkrein.run() as run:
            it.registered(run)
            run.escalate_to_human("over my head", to="ann")
            wait_for(lambda: it.control.words)  # nobody hears it
            it.control.answer = it.control.open
        control = it.control
    assert [type(word).__name__ for word in control.words] == ["Raise", "Raise"]


def test_what_waits_in_one_process_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "WAITING_MAX", 1)
    with Scene() as it, checkrein.run() as run:
        it.registered(run)
        it.control.answer = it.control.open
        thread, _ = in_thread(lambda: with_run(run, lambda: pay(1)))
        wait_for(lambda: len(it.link._questions) == 1)
        with pytest.raises(Denied, match="too many questions"):
            pay(2)
        it.control.answer = it.control.approved
        thread.join(10)
    assert threading.active_count() < 50
