"""Waiting for a person at the boundary: what is asked, who waits, what the answers do."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import checkrein
from checkrein.bus.approvals import Ask, Asked, Raise
from checkrein.policy.types import ALLOW, Action, Duty, Pact, ToolRule, Verdict
from checkrein.sdk import asking
from checkrein.sdk import client as clients
from checkrein.sdk.asking import Question
from checkrein.sdk.errors import Denied
from checkrein.sdk.guard import Seat
from checkrein.sdk.links.types import NoLink
from checkrein.sdk.run import Run
from tests.sdk.fakes import House, ScriptedGuard, halted, house, order
from tests.sdk.test_bus_link import wait_for

ASK = Verdict(kind="ask", guard="tools", rule="tools.refund.ask", reason="over 20 dollars",
              pact="p", pact_version="v1")  # fmt: skip
PACT = Pact(
    pact="p", version="v1", approval_s=3600.0,
    tools={
        "refund": ToolRule(kind="compensable", undo="reverse_refund"), "look": ToolRule(kind="read")
    },
)  # fmt: skip
done: list[tuple[str, int]] = []


@checkrein.tool(kind="compensable")
def refund(order: str, cents: int) -> str:
    done.append((order, cents))
    return "done"


@checkrein.tool(name="refund", kind="compensable")
async def refund_later(order: str, cents: int) -> str:
    done.append((order, cents))
    return "done"


@checkrein.tool
def look() -> int:
    return 1


class Desk(NoLink):
    """Where the questions of the process arrive; the test answers."""

    connected = True  # type: ignore[assignment] # the seam has a property

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.left: list[Question] = []
        self.came = threading.Event()
        self.answer: Callable[[Question], Asked | None] = lambda _: None

    def ask(self, question: Question) -> None:
        self.asked.append(question)
        answer = self.answer(question)
        if answer is not None:
            question.told(answer)
        self.came.set()

    def unask(self, question: Question) -> None:
        self.left.append(question)

    def next(self) -> Question:
        assert self.came.wait(10)
        return self.asked[-1]


class Counting(ScriptedGuard):
    """Notes what it is told of approvals."""

    def __init__(self, **verdicts: Any) -> None:
        super().__init__(**verdicts)
        self.granted_with: list[Any] = []
        self.raises: list[tuple[str, float]] = []
        self.then: Verdict = ALLOW

    def granted(self, action: Action, now_ns: int) -> Verdict:
        self.granted_with.append(action.arguments)
        return self.then

    def raised(self, name: str, amount: float) -> None:
        self.raises.append((name, amount))


class Scene:
    def __init__(self, it: House, desk: Desk, guard: Counting) -> None:
        self.house, self.desk, self.guard = it, desk, guard


@contextmanager
def scene(**verdicts: Any) -> Iterator[Scene]:
    done.clear()
    guard, desk = Counting(**(verdicts or {"refund": ASK})), Desk()
    with under(guard, desk) as it:
        yield Scene(it, desk, guard)


@contextmanager
def under(guard: Counting, desk: NoLink) -> Iterator[House]:
    """A process whose runs are judged by this guard under PACT."""
    with house(guard, make_link=lambda _: desk) as it:
        clients.make_seat = lambda text, source: Seat(guard, PACT)
        yield it


def answer(question: Question, status: str, **more: Any) -> Asked:
    fields = {"approval_id": "a1", "by": "ann", "reason": "because"} | more
    return Asked(claim=question.claim, status=status, **fields)  # type: ignore[arg-type]


def answers(status: str, **more: Any) -> Callable[[Question], Asked]:
    return lambda question: answer(question, status, **more)


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def test_what_is_asked() -> None:
    with scene() as it, checkrein.run(goal="g") as run:
        it.desk.answer = answers("approved")
        assert refund("A1", cents=2500) == "done"
        message = it.desk.asked[0].message()
    assert isinstance(message, Ask)
    assert (message.agent, message.run_id, message.task_id) == ("bot", run.run_id, run.task_id)
    assert (message.tool, message.arguments) == ("refund", {"order": "A1", "cents": 2500})
    assert (message.rule, message.reason) == ("tools.refund.ask", "over 20 dollars")
    assert message.undo == {"kind": "compensable", "undo": "reverse_refund"}
    assert (message.pact, message.pact_version, message.life_s) == ("p", "v1", 3600.0)
    assert message.digest == it.desk.asked[0].digest


def test_approved_it_goes_on_and_the_guard_counts_it() -> None:
    with scene() as it, checkrein.run():
        it.desk.answer = answers("approved")
        refund("A1", cents=2500)
        assert done == [("A1", 2500)]
        assert it.guard.granted_with == [{"order": "A1", "cents": 2500}]
        assert it.guard.came_back == [("refund", "done", "")]
        assert it.desk.left == it.desk.asked
        types = it.house.recorder.types()
        wanted = [
            "scope.decision", "approval.requested", "approval.decided", "tool.invoked",
            "tool.returned",
        ]  # fmt: skip
        assert [kind for kind in types if kind in wanted] == wanted
        decided = it.house.recorder.of("approval.decided")[0]
        assert (decided["approval_id"], decided["decision"], decided["decided_by"]) == (
            "a1", "approved", "ann",
        )  # fmt: skip


@pytest.mark.parametrize("status", ["denied", "expired", "withdrawn"])
def test_anything_else_is_a_no_with_its_reason(status: str) -> None:
    with scene() as it, checkrein.run():
        it.desk.answer = answers(status, reason="too much")
        with pytest.raises(Denied, match="too much") as denied:
            refund("A1", cents=2500)
        assert denied.value.advice == "ESCALATE"
        assert denied.value.rule == "tools.refund.ask"
        assert done == []
        assert it.house.recorder.of("tool.returned")[0]["status"] == "denied"
        assert it.house.recorder.of("approval.decided")[0]["decision"] == status


def test_without_a_server_nobody_can_be_asked() -> None:
    with under(Counting(refund=ASK), NoLink()) as it, checkrein.run():
        with pytest.raises(Denied, match="nobody can be asked") as denied:
            refund("A1", cents=2500)
        assert denied.value.advice == "ESCALATE"
        assert it.recorder.of("approval.requested") == []


def test_while_it_waits_the_run_says_so_and_its_clock_stands_still() -> None:
    with scene() as it, checkrein.run() as run:
        thread, results = in_thread(lambda: with_run(run, lambda: refund("A1", cents=2500)))
        question = it.desk.next()
        assert run.status == "waiting_human"
        assert run.calls_in_flight() == []
        assert it.guard.paused_ns == 0
        question.told(answer(question, "open", left_s=60.0))
        assert thread.is_alive()
        question.told(answer(question, "approved"))
        thread.join(10)
        assert results == ["done"]
        assert it.guard.paused_ns > 0
        assert run.status == "running"


def with_run(run: Run, work: Callable[[], Any]) -> Any:
    from checkrein.sdk.run import RUN

    token = RUN.set(run)
    try:
        return work()
    finally:
        RUN.reset(token)


def test_a_halt_gets_through_at_once() -> None:
    with scene() as it, halted("enough"), checkrein.run() as run:
        thread, results = in_thread(lambda: with_run(run, lambda: refund("A1", cents=2500)))
        it.desk.next()
        it.house.halt(run)
        thread.join(10)
        assert isinstance(results[0], checkrein.Halted)
        assert done == []
        assert it.desk.left == it.desk.asked
        assert it.house.recorder.of("tool.returned")[0]["status"] == "cancelled"


def test_a_pause_holds_what_was_approved_meanwhile() -> None:
    with scene() as it, checkrein.run() as run:
        thread, results = in_thread(lambda: with_run(run, lambda: refund("A1", cents=2500)))
        question = it.desk.next()
        it.house.pause(run)
        assert run.status == "paused"
        question.told(answer(question, "approved"))
        thread.join(0.1)
        assert thread.is_alive()
        assert done == []
        it.house.resume(run)
        thread.join(10)
        assert results == ["done"]


async def test_the_loop_goes_on_while_a_coroutine_waits() -> None:
    with scene() as it:
        async with checkrein.run() as run:
            waiting = asyncio.ensure_future(refund_later("A1", cents=2500))
            await asyncio.to_thread(it.desk.came.wait, 10)
            assert run.status == "waiting_human"
            assert look() == 1
            question = it.desk.asked[0]
            await asyncio.to_thread(question.told, answer(question, "approved"))
            assert await waiting == "done"
            assert done == [("A1", 2500)]


async def test_a_halt_and_a_cancellation_reach_a_coroutine_that_waits() -> None:
    with scene() as it:
        with halted("enough"):
            async with checkrein.run() as run:
                waiting = asyncio.ensure_future(refund_later("A1", cents=2500))
                await asyncio.to_thread(it.desk.came.wait, 10)
                it.house.halt(run)
                await waiting
        assert it.desk.left == it.desk.asked
        it.desk.came.clear()
        async with checkrein.run():
            waiting = asyncio.ensure_future(refund_later("A2", cents=2500))
            await asyncio.to_thread(it.desk.came.wait, 10)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert it.desk.left == it.desk.asked
        assert done == []


async def test_a_pause_holds_a_coroutine_that_was_approved() -> None:
    with scene() as it:
        async with checkrein.run() as run:
            waiting = asyncio.ensure_future(refund_later("A1", cents=2500))
            await asyncio.to_thread(it.desk.came.wait, 10)
            it.house.pause(run)
            question = it.desk.asked[0]
            question.told(answer(question, "approved"))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            it.house.resume(run)
            assert await waiting == "done"


def test_changed_arguments_go_on_as_a_modify() -> None:
    with scene() as it, checkrein.run():
        changed = {"order": "A1", "cents": 100}
        it.desk.answer = answers("approved", edited=True, arguments=changed)
        refund("A1", cents=2500)
        assert done == [("A1", 100)]
        assert it.guard.granted_with == [changed]
        kinds = [e["verdict"] for e in it.house.recorder.of("scope.decision")]
        assert kinds == ["ask", "modify"]


def test_what_is_forbidden_nobody_can_edit_in() -> None:
    class Strict(Counting):
        def granted(self, action: Action, now_ns: int) -> Verdict:
            if action.arguments["cents"] > 5000:
                return Verdict(kind="deny", rule="tools.refund.allow", reason="over the limit")
            return super().granted(action, now_ns)

    guard, desk = Strict(refund=ASK), Desk()
    with under(guard, desk), checkrein.run():
        done.clear()
        desk.answer = answers("approved", edited=True, arguments={"order": "A1", "cents": 9000})
        with pytest.raises(Denied, match="over the limit"):
            refund("A1", cents=2500)
        assert done == []


def test_a_guard_may_refuse_what_was_approved_too_late() -> None:
    with scene() as it, checkrein.run():
        it.guard.then = Verdict(kind="deny", rule="tools.refund.once_per", reason="done already")
        it.desk.answer = answers("approved")
        with pytest.raises(Denied, match="done already"):
            refund("A1", cents=2500)
        assert done == []


def test_arguments_that_change_after_they_were_shown_are_refused() -> None:
    @checkrein.tool(name="refund")
    def refund_many(orders: list[str]) -> None:
        done.append((orders[0], 0))

    orders = ["A1"]
    with scene() as it, checkrein.run():

        def swap(question: Question) -> Asked:
            orders[0] = "EVIL"
            return answer(question, "approved")

        it.desk.answer = swap
        with pytest.raises(Denied, match="changed after they were shown"):
            refund_many(orders)
        assert done == []


def test_what_cannot_be_shown_whole_is_not_asked() -> None:
    with scene() as it, checkrein.run():
        it.desk.answer = answers("approved")
        with pytest.raises(Denied, match="too large to be shown"):
            refund("x" * 100_000, cents=1)
        assert it.desk.asked == []


def test_no_answer_at_all_is_a_no_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "GRACE_S", -3600.0 + 0.05)
    with scene() as it, checkrein.run():
        with pytest.raises(Denied, match="nobody answered in time"):
            refund("A1", cents=2500)
        assert it.desk.left == it.desk.asked


def test_a_model_call_and_a_step_wait_and_a_budget_is_raised() -> None:
    budget = Verdict(kind="ask", guard="budgets", rule="budgets.usd", reason="2 of 2 dollars")
    with scene(**{"gpt-5-mini": budget}) as it, checkrein.run():
        it.desk.answer = answers("approved", raised={"usd": 2.0})
        with checkrein.model("openai", "gpt-5-mini", []) as call:
            call.end("hello")
        assert it.guard.raises == [("usd", 2.0)]
        assert len(it.house.recorder.of("model.request")) == 1
        it.desk.answer = answers("denied")
        with pytest.raises(Denied, match="2 of 2 dollars"):
            checkrein.model("openai", "gpt-5-mini", []).__enter__()
        assert len(it.house.recorder.of("model.request")) == 1


async def test_an_async_model_call_waits() -> None:
    with scene(**{"gpt-5-mini": ASK}) as it:
        async with checkrein.run():
            it.desk.answer = answers("approved")
            async with checkrein.model("openai", "gpt-5-mini", []) as call:
                call.end("hello")
            it.desk.answer = answers("denied")
            with pytest.raises(Denied):
                await checkrein.model("openai", "gpt-5-mini", []).__aenter__()


class Stepping(Counting):
    """Asks before each step."""

    def step(self, now_ns: int) -> Verdict:
        return Verdict(kind="ask", guard="budgets", rule="budgets.steps", reason="35 of 35 steps")


def test_a_step_waits_and_is_refused_or_goes_on() -> None:
    desk = Desk()
    with under(Stepping(), desk) as it, checkrein.run() as run:
        desk.answer = answers("approved", raised={"steps": 5.0})
        for _ in run.steps():
            break
        desk.answer = answers("denied")
        with pytest.raises(Denied, match="35 of 35 steps"):
            next(iter(run.steps()))
        assert len(it.recorder.of("step.start")) == 1
        assert run.calls_in_flight() == []


async def test_an_async_step_waits() -> None:
    desk = Desk()
    with under(Stepping(), desk) as it:
        async with checkrein.run() as run:
            desk.answer = answers("approved")
            async for _ in run.steps():
                break
        assert len(it.recorder.of("step.start")) == 1


DUTY = Duty(when="args.cents > 4000", to="oncall", within_s=300.0)


def duty(kind: str = "allow", hold: bool = False) -> Verdict:
    held = Duty(when=DUTY.when, to=DUTY.to, within_s=DUTY.within_s, hold=hold)
    return Verdict(kind=kind, reason="r", duties=(held,))  # type: ignore[arg-type]


def test_a_duty_is_raised_once_for_an_action_and_the_call_goes_on() -> None:
    with scene(refund=duty()) as it, checkrein.run() as run:
        refund("A1", cents=5000)
        refund("A1", cents=5000)
        refund("A2", cents=5000)
        assert len(done) == 3
        raised = it.house.recorder.of("escalation.raised")
        assert [e["to"] for e in raised] == ["oncall", "oncall"]
        assert all(e["due_at"] > 0 for e in raised)
        message = it.desk.asked[0].message()
        assert isinstance(message, Raise)
        assert (message.escalation_id, message.within_s) == (raised[0]["escalation_id"], 300.0)
        assert message.run_id == run.run_id
        assert not it.desk.asked[0].done
        it.desk.asked[0].told(answer(it.desk.asked[0], "open"))
        assert it.desk.asked[0].done  # the clock is known to run: nothing more to tell


def test_a_duty_is_raised_whatever_the_verdict() -> None:
    with scene(refund=duty("deny")) as it, checkrein.run():
        with pytest.raises(Denied):
            refund("A1", cents=5000)
        assert len(it.house.recorder.of("escalation.raised")) == 1


@pytest.mark.parametrize(("status", "made"), [("acknowledged", 1), ("overdue", 0), ("nobody", 0)])
def test_a_duty_that_holds_waits_until_somebody_has_taken_note(status: str, made: int) -> None:
    with scene(refund=duty(hold=True)) as it, checkrein.run():
        it.desk.answer = answers(status, reason="")
        if made:
            refund("A1", cents=5000)
        else:
            with pytest.raises(Denied, match="waits until oncall has taken note"):
                refund("A1", cents=5000)
        assert len(done) == made


def test_an_agent_that_asks_for_a_human_is_in_the_same_book() -> None:
    with scene(look=ALLOW) as it:
        with checkrein.run() as run:
            run.escalate_to_human("over my head", to="ann")
        message = it.desk.asked[0].message()
        assert isinstance(message, Raise)
        assert (message.to, message.why, message.within_s) == ("ann", "over my head", 0.0)
        raised = it.house.recorder.of("escalation.raised")[0]
        assert raised["escalation_id"] == message.escalation_id


def test_several_calls_wait_at_once() -> None:
    with scene() as it, checkrein.run() as run:
        threads = [
            in_thread(lambda n=n: with_run(run, lambda: refund(f"A{n}", cents=n)))  # type: ignore[misc]
            for n in range(8)
        ]
        wait_for(lambda: len(it.desk.asked) == 8)
        for question in it.desk.asked[:-1]:
            question.told(answer(question, "approved"))
        assert run.status == "waiting_human"
        run.obey(order("pause", 1))
        run.obey(order("resume", 2))
        it.desk.asked[-1].told(answer(it.desk.asked[-1], "denied"))
        for thread, _ in threads:
            thread.join(10)
        assert sorted(n for _, n in done) != []
        assert len(done) == 7
