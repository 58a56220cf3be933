"""Pause, resume and halt as they take effect in the agent's own code."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

import checkrein
from checkrein.sdk.run import Run
from tests.sdk.fakes import ScriptedGuard, halted, house, order


@checkrein.tool
def act(n: int = 0) -> int:
    return n


@checkrein.tool
async def act_async(n: int = 0) -> int:
    await asyncio.sleep(0)
    return n


class InThread:
    """A function in a thread of its own, and what came of it."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self.done = threading.Event()
        self._call = call
        threading.Thread(target=self._work).start()

    def _work(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self.error = error
        self.done.set()


def is_standing(run: Run) -> bool:
    """Waits until somebody stands at the run's boundary."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if run.hold._changed._waiters:  # type: ignore[attr-defined] # of threading.Condition
            return True
        time.sleep(0.001)
    return False


def test_a_paused_run_begins_no_call_until_it_is_resumed() -> None:
    guard = ScriptedGuard()
    with house(guard) as it, checkrein.run() as run:
        it.pause(run, 1)
        assert run.status == "paused"
        there = InThread(act)
        assert is_standing(run)
        assert it.recorder.of("tool.selected") == []
        it.resume(run, 2)
        assert there.done.wait(10)
        assert there.error is None
        assert len(it.recorder.of("tool.reentered")) == 1
        assert guard.paused_ns > 0
        assert [e["status"] for e in it.recorder.of("status")] == ["paused", "running"]


def test_a_call_in_flight_finishes_and_is_recorded_while_paused() -> None:
    go, inside = threading.Event(), threading.Event()

    @checkrein.tool
    def slow() -> str:
        inside.set()
        go.wait(10)
        return "done"

    with house() as it, checkrein.run() as run:
        there = InThread(slow)
        assert inside.wait(10)
        it.pause(run)
        go.set()
        assert there.done.wait(10)
        assert it.recorder.of("tool.returned")[0]["result"] == "done"
        it.resume(run)


def test_a_paused_run_can_be_halted() -> None:
    with house() as it, halted(), checkrein.run() as run:
        it.pause(run, 1)
        there = InThread(act)
        assert is_standing(run)
        it.halt(run, 2)
        assert there.done.wait(10)
        assert isinstance(there.error, checkrein.Halted)
        assert it.recorder.of("tool.selected") == []


async def test_an_async_call_is_held_without_blocking_its_loop() -> None:
    with house() as it:
        async with checkrein.run() as run:
            it.pause(run, 1)
            held = asyncio.ensure_future(act_async(7))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not held.done()
            threading.Thread(target=it.resume, args=(run, 2)).start()
            assert await asyncio.wait_for(held, 10) == 7


async def test_an_async_call_held_when_halted_raises_halted() -> None:
    with house() as it:
        seen: list[BaseException] = []

        async def agent() -> None:
            async with checkrein.run() as run:
                it.pause(run, 1)
                threading.Timer(0.02, it.halt, (run, 2)).start()
                try:
                    await act_async()
                except BaseException as error:
                    seen.append(error)
                    raise

        with pytest.raises(checkrein.Halted):
            await asyncio.ensure_future(agent())
        assert type(seen[0]) in (checkrein.Halted, asyncio.CancelledError)
        assert it.recorder.of("tool.selected") == []


def test_after_halted_every_further_call_raises_it_again() -> None:
    with house() as it:
        swallowed = 0
        with halted() as stopped, checkrein.run() as run:
            it.halt(run)
            for _ in range(3):
                try:
                    act()
                except BaseException:
                    swallowed += 1
            with pytest.raises(checkrein.Halted):
                next(iter(run.steps()))
            with pytest.raises(checkrein.Halted), checkrein.model("p", "m"):
                pass
            with pytest.raises(checkrein.Halted):
                checkrein.run()
        assert swallowed == 3
        assert stopped.value.reason == "enough"
        assert stopped.value.issued_by == "ann"
        end = it.recorder.of("run.end")[0]
        assert (end["status"], end["reason"]) == ("halted", "enough")
        assert it.recorder.of("tool.selected") == []


def test_except_exception_does_not_swallow_it() -> None:
    assert not issubclass(checkrein.Halted, Exception)
    assert issubclass(checkrein.Denied, Exception)


async def test_a_halt_cancels_the_outer_task_from_outside() -> None:
    """`await` on something that never comes: nothing but a cancellation gets out of it."""
    cleaned: list[str] = []

    async def agent(begun: asyncio.Event, runs: list[Run]) -> None:
        async with checkrein.run() as run:
            runs.append(run)
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.append("finally")

    with house() as it:
        begun, runs = asyncio.Event(), list[Run]()
        task = asyncio.ensure_future(agent(begun, runs))
        await begun.wait()
        threading.Thread(target=it.halt, args=(runs[0],)).start()
        with pytest.raises(checkrein.Halted):
            await asyncio.wait_for(task, 10)
        assert cleaned == ["finally"]
        assert it.recorder.of("run.end")[0]["status"] == "halted"
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_a_halt_gets_out_of_to_thread_though_the_thread_goes_on() -> None:
    let_go = threading.Event()
    finished: list[str] = []

    def stubborn() -> None:
        let_go.wait(10)
        try:
            act()
        except checkrein.Halted:
            finished.append("halted in the thread")

    async def agent(begun: asyncio.Event, runs: list[Run]) -> None:
        async with checkrein.run() as run:
            runs.append(run)
            begun.set()
            await asyncio.to_thread(stubborn)

    with house() as it:
        begun, runs = asyncio.Event(), list[Run]()
        task = asyncio.ensure_future(agent(begun, runs))
        await begun.wait()
        it.halt(runs[0])
        with pytest.raises(checkrein.Halted):
            await asyncio.wait_for(task, 10)
        let_go.set()
        await asyncio.to_thread(lambda: None)
        deadline = time.monotonic() + 10
        while not finished and time.monotonic() < deadline:
            await asyncio.sleep(0.001)
        assert finished == ["halted in the thread"]
        assert it.recorder.of("tool.selected") == []


def test_a_halt_during_time_sleep_takes_effect_at_the_next_call() -> None:
    with house() as it:
        with halted(), checkrein.run() as run:
            threading.Timer(0.02, it.halt, (run,)).start()
            time.sleep(0.1)  # nothing in the process can end this; a supervisor can
            act()
        assert it.recorder.of("tool.selected") == []


def test_a_run_that_swallows_everything_still_ends_as_halted() -> None:
    with house() as it:
        with halted(), checkrein.run() as run:
            it.halt(run)
        assert it.recorder.of("run.end")[0]["status"] == "halted"


def test_redirect_takes_the_goal_at_the_next_step_and_inject_the_next_model_call() -> None:
    with house() as it, checkrein.run(goal="old") as run:
        run.obey(order("redirect", 3, goal="new"))
        assert run.goal == "old"
        for _ in run.steps():
            assert run.goal == "new"
            break
        run.obey(order("inject", 4, text="be brief"))
        with checkrein.model("p", "m") as call:
            assert len(call.directives) == 2
            assert "new" in call.directives[0]
            assert call.directives[1] == "be brief"
        assert [e["goal"] for e in it.recorder.of("status")] == ["new"]


def test_an_order_for_a_step_gone_by_is_refused_and_says_so() -> None:
    with house(), checkrein.run() as run:
        run.step = 5
        answer = run.obey(order("inject", 3, text="x", expected_step=4))
        assert answer.taken == "refused"
        assert answer.why == "meant for step 4, the run is at step 5 already"
        assert run.take_directives() == ()


def test_escalate_holds_until_resumed() -> None:
    with house() as it, checkrein.run() as run:
        run.obey(order("escalate", 1))
        assert run.status == "escalated"
        there = InThread(act)
        assert is_standing(run)
        it.resume(run, 2)
        assert there.done.wait(10)


def test_no_call_slips_between_an_order_and_the_boundary() -> None:
    """Many threads call while the run is paused and resumed: what is in flight when `paused` is
    known to hold stays empty."""
    stop = threading.Event()
    with house(ScriptedGuard()) as it, checkrein.run() as run:

        def hammer() -> None:
            while not stop.is_set():
                act()

        there = [InThread(hammer) for _ in range(4)]
        for epoch in range(1, 61, 2):
            it.pause(run, epoch)
            deadline = time.monotonic() + 10
            while run.in_flight and time.monotonic() < deadline:
                time.sleep(0)
            before = len(it.recorder.of("tool.invoked"))
            time.sleep(0.001)
            assert len(it.recorder.of("tool.invoked")) == before
            it.resume(run, epoch + 1)
        stop.set()
        assert all(one.done.wait(10) for one in there)
        assert all(one.error is None for one in there)


async def test_a_halt_of_the_ambient_run_cancels_the_programs_main_task() -> None:
    """No `with checkrein.run()` anywhere: what a program under `checkrein run` looks like."""
    with house() as it:
        begun = threading.Event()

        async def agent() -> None:
            await act_async()
            begun.set()
            await asyncio.Event().wait()

        def program() -> None:
            asyncio.run(agent())

        there = InThread(program)
        assert await asyncio.to_thread(begun.wait, 10)
        run = next(iter(it.client.runs.values()))
        it.halt(run)
        assert await asyncio.to_thread(there.done.wait, 10)
        assert isinstance(there.error, asyncio.CancelledError)
        with pytest.raises(checkrein.Halted):
            act()


def test_the_agents_log_says_who_halted_it_and_why(caplog: pytest.LogCaptureFixture) -> None:
    with house() as it, halted(), checkrein.run() as run:
        it.halt(run)
    assert f"run {run.run_id} is halted by ann: enough" in caplog.text
