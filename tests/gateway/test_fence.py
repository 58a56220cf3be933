"""What is in flight is cut, and only that; the cut is told when nothing goes on any more."""

import asyncio
from typing import Any

import pytest

from checkrein.bus.identities import Contained
from checkrein.gateway import fence
from checkrein.gateway.fence import Fence
from checkrein.gateway.types import Cut, Refusal
from tests.sdk.fakes import house


class Scene:
    def __init__(self, house: Any) -> None:
        self.house = house
        self.told: list[tuple[str, int]] = []
        self.fence = Fence(
            asyncio.get_running_loop(),
            lambda run, cut, left: self.told.append((run.run_id, cut)),
            lambda agent, record, cut: self.told.append((agent, cut)),
        )
        self.ended: list[str] = []

    def run(self, agent: str) -> Any:
        return self.house.client.new_run("", "", agent, "", {}, "")

    def call(self, run: Any, name: str, stubborn: bool = False) -> "asyncio.Task[None]":
        async def call() -> None:
            task = self.fence.enter(run)
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                why = self.fence.taken(task)
                if why is None:
                    raise
                if stubborn:
                    await asyncio.sleep(0.05)
                self.ended.append(f"{name} {why.code}")
            finally:
                self.fence.leave(run, task)

        return asyncio.ensure_future(call())


async def test_a_halt_cuts_the_calls_of_its_run_only() -> None:
    with house() as home:
        scene = Scene(home)
        one, other = scene.run("a"), scene.run("a")
        calls = [scene.call(one, "1"), scene.call(one, "2"), scene.call(other, "3")]
        await asyncio.sleep(0)
        assert scene.fence.in_flight == 3
        home.halt(one)
        scene.fence.changed(one)
        await asyncio.wait(calls[:2], timeout=5)
        await _until(lambda: (one.run_id, 2) in scene.told)
        assert sorted(scene.ended) == ["1 halted", "2 halted"]
        assert not calls[2].done()
        calls[2].cancel()
        await asyncio.wait(calls)
        assert scene.fence.in_flight == 0


async def test_it_is_told_only_when_the_last_call_is_gone() -> None:
    with house() as home:
        scene = Scene(home)
        run = scene.run("a")
        call = scene.call(run, "slow", stubborn=True)
        await asyncio.sleep(0)
        home.halt(run)
        scene.fence.changed(run)
        await asyncio.sleep(0.02)
        assert scene.told == []
        await call
        await _until(lambda: scene.told == [(run.run_id, 1)])


async def test_what_a_revoked_agent_has_in_flight_is_cut() -> None:
    with house() as home:
        scene = Scene(home)
        calls = [scene.call(scene.run("a"), "1"), scene.call(scene.run("b"), "2")]
        await asyncio.sleep(0)
        scene.fence.revoke("a")
        scene.fence.revoke("nobody")
        await asyncio.wait(calls[:1], timeout=5)
        assert scene.ended == ["1 unauthenticated"]
        assert not calls[1].done()
        calls[1].cancel()
        await asyncio.wait(calls)


async def test_a_contained_agent_is_cut_and_refused_until_it_is_let_in() -> None:
    with house() as home:
        scene = Scene(home)
        run, other = scene.run("a"), scene.run("b")
        calls = [scene.call(run, "1"), scene.call(other, "2")]
        await asyncio.sleep(0)
        scene.fence.contain("a", Contained(agent="a", reason="bad", issued_by="ann", at=1))
        await calls[0]
        assert scene.ended == ["1 contained"]
        with pytest.raises(Cut) as refused:
            scene.fence.check("a")
        assert "bad" in refused.value.text
        assert "ann" in refused.value.text
        scene.fence.check("b")
        scene.fence.contain("a", None)
        scene.fence.check("a")
        calls[1].cancel()
        await asyncio.wait(calls)


async def test_a_cancellation_of_others_is_not_taken_for_a_cut() -> None:
    with house() as home:
        scene = Scene(home)
        call = scene.call(scene.run("a"), "1")
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert scene.ended == []
        assert scene.fence.in_flight == 0


async def test_a_pause_is_told_when_its_last_call_has_come_back() -> None:
    with house() as home:
        scene = Scene(home)
        run = scene.run("a")
        done = asyncio.Event()

        async def call() -> None:
            task = scene.fence.enter(run)
            await done.wait()
            scene.fence.leave(run, task)

        calling = asyncio.ensure_future(call())
        await asyncio.sleep(0)
        home.pause(run)
        assert scene.told == []
        done.set()
        await calling
        assert scene.told == [(run.run_id, 0)]


def test_a_refusal_says_all_in_one_paragraph() -> None:
    refusal = Refusal(403, "denied", "no", rule="r", by="ann", advice="WAIT", appeal="Ask.")
    assert refusal.text == "checkrein: no; rule r; by ann; WAIT. Ask."


async def _until(condition: Any) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("not within the time")


async def test_one_agent_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "AGENT_CALLS_MAX", 2)
    with house() as home:
        scene = Scene(home)
        runs = [scene.run("a"), scene.run("a"), scene.run("b")]
        calls = [scene.call(runs[0], "1"), scene.call(runs[1], "2"), scene.call(runs[2], "3")]
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="2 calls of agent a") as refused:
            scene.fence.enter(runs[0])
        assert (refused.value.status, scene.fence.in_flight) == (429, 3)
        for each in calls:
            each.cancel()
        await asyncio.wait(calls)


async def test_a_call_that_is_whole_before_it_is_cut_leaves_nothing_behind() -> None:
    with house() as home:
        scene = Scene(home)
        run = scene.run("a")

        async def whole() -> None:
            task = scene.fence.enter(run)
            scene.fence.contain("a", Contained(agent="a", reason="", issued_by="ann", at=0))
            scene.fence.leave(run, task)

        await asyncio.wait((asyncio.ensure_future(whole()),))
        assert scene.fence._cut == {}
