"""The tool decorator: what it records of every kind of callable, and that it changes none."""

import asyncio
import gc
import inspect

import pytest

import checkrein
from checkrein.policy.types import Verdict
from checkrein.sdk.calls import ToolCall
from tests.sdk.fakes import ScriptedGuard, house

LIFE = [
    "tool.selected", "tool.arguments", "tool.invoked", "tool.returned", "tool.parsed",
    "tool.reentered",
]  # fmt: skip


@checkrein.tool(kind="read")
def add(a: int, b: int = 2, *rest: int, scale: int = 1) -> int:
    """Adds."""
    return (a + b + sum(rest)) * scale


def test_a_call_is_six_events_with_one_id() -> None:
    with house() as it, checkrein.run(goal="g") as run:
        assert add(1, scale=3) == 9
        life = [e for e in it.recorder.events if e["type"].startswith("tool.")]
    assert [e["type"] for e in life] == LIFE
    assert len({e["call_id"] for e in life}) == 1
    assert {e["tool"] for e in life} == {"add"}
    assert {e["run_id"] for e in life} == {run.run_id}
    by = {e["type"]: e for e in life}
    assert by["tool.arguments"]["arguments"] == {"a": 1, "b": 2, "scale": 3}
    assert by["tool.invoked"]["kind"] == "read"
    assert by["tool.returned"]["result"] == 9
    assert by["tool.returned"]["duration_ns"] >= 0
    assert len(by["tool.parsed"]["result_hash"]) == 64


def test_two_calls_have_different_ids() -> None:
    with house() as it:
        add(1)
        add(2)
        ids = [e["call_id"] for e in it.recorder.of("tool.invoked")]
    assert len(set(ids)) == 2


def test_the_decorated_function_still_looks_like_itself() -> None:
    assert add.__name__ == "add"
    assert add.__doc__ == "Adds."
    assert list(inspect.signature(add).parameters) == ["a", "b", "rest", "scale"]


def test_extra_positional_arguments_are_recorded_by_number() -> None:
    with house() as it:
        assert add(1, 2, 3, 4) == 10
        found = it.recorder.of("tool.arguments")[0]["arguments"]
    assert found == {"a": 1, "b": 2, "scale": 1, "[2]": 3, "[3]": 4}


def test_without_parentheses_and_with_a_name() -> None:
    @checkrein.tool
    def plain() -> str:
        return "p"

    @checkrein.tool(name="other")
    def named() -> str:
        return "n"

    with house() as it:
        assert plain() + named() == "pn"
        assert [e["tool"] for e in it.recorder.of("tool.invoked")] == ["plain", "other"]


def test_a_kind_that_is_none_of_the_three_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="sometimes"):
        checkrein.tool(kind="sometimes")  # type: ignore[call-overload]


class Desk:
    """Methods of every sort."""

    @checkrein.tool
    def book(self, seat: str) -> str:
        return f"{type(self).__name__} {seat}"

    @checkrein.tool
    @classmethod
    def above(cls, n: int) -> str:
        return f"{cls.__name__}{n}"

    @classmethod
    @checkrein.tool
    def below(cls, n: int) -> str:
        return f"{cls.__name__}{n}"

    @checkrein.tool
    @staticmethod
    def loose(n: int) -> int:
        return n

    @staticmethod
    @checkrein.tool
    def looser(n: int) -> int:
        return n

    @checkrein.tool
    async def wait(self, n: int) -> int:
        await asyncio.sleep(0)
        return n


async def test_methods_are_called_as_before_and_recorded_without_self() -> None:
    with house() as it:
        desk = Desk()
        assert desk.book("12A") == "Desk 12A"
        assert (Desk.above(1), desk.below(2)) == ("Desk1", "Desk2")
        assert (Desk.loose(3), desk.looser(4)) == (3, 4)
        assert await desk.wait(5) == 5
        found = [e["arguments"] for e in it.recorder.of("tool.arguments")]
    assert found == [{"seat": "12A"}, {"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}, {"n": 5}]


def test_an_exception_comes_through_and_is_recorded() -> None:
    @checkrein.tool
    def bad() -> None:
        raise LookupError("no such order")

    with house() as it:
        with pytest.raises(LookupError, match="no such order"):
            bad()
        returned = it.recorder.of("tool.returned")[0]
        assert (returned["status"], returned["error"]) == ("error", "LookupError: no such order")
        assert [e["type"] for e in it.recorder.events if e["type"].startswith("tool.")] == LIFE


async def test_a_cancelled_call_is_recorded_as_cancelled() -> None:
    begun = asyncio.Event()

    @checkrein.tool
    async def slow() -> None:
        begun.set()
        await asyncio.Event().wait()

    with house() as it:
        task = asyncio.ensure_future(slow())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert it.recorder.of("tool.returned")[0]["status"] == "cancelled"


def test_a_generator_is_recorded_whole_and_passes_sends_and_throws_on() -> None:
    got: list[object] = []

    @checkrein.tool
    def talk(n: int):  # type: ignore[no-untyped-def] # a generator with send and throw
        for i in range(n):
            try:
                got.append((yield i))
            except KeyError:
                got.append("caught")
        return "bye"

    with house() as it:
        talking = talk(3)
        assert it.recorder.of("tool.selected") == []  # a generator does nothing before next()
        assert next(talking) == 0
        assert talking.send("hello") == 1
        assert talking.throw(KeyError()) == 2
        with pytest.raises(StopIteration) as stop:
            next(talking)
        assert stop.value.value == "bye"
        assert got == ["hello", "caught", None]
        result = it.recorder.of("tool.returned")[0]["result"]
    assert result == {"items": [0, 1, 2], "returned": "bye"}


def test_a_generator_left_halfway_is_recorded_as_cancelled_and_closed() -> None:
    closed: list[str] = []

    @checkrein.tool
    def endless():  # type: ignore[no-untyped-def] # a generator
        try:
            while True:
                yield 1
        finally:
            closed.append("closed")

    with house() as it:
        for _ in endless():
            break
        gc.collect()
        assert closed == ["closed"]
        assert it.recorder.of("tool.returned")[0]["status"] == "cancelled"
        assert not checkrein.current_run().in_flight


async def test_an_async_generator_is_recorded_and_closed_when_left() -> None:
    @checkrein.tool
    async def stream(n: int):  # type: ignore[no-untyped-def] # an async generator
        for i in range(n):
            yield i

    with house() as it:
        assert [i async for i in stream(3)] == [0, 1, 2]
        assert it.recorder.of("tool.returned")[0]["result"] == {"items": [0, 1, 2]}
        left = stream(3)
        assert await anext(left) == 0
        await left.aclose()
        assert it.recorder.of("tool.returned")[1]["status"] == "cancelled"


def test_many_items_of_a_generator_are_counted_not_kept() -> None:
    @checkrein.tool
    def numbers():  # type: ignore[no-untyped-def] # a generator
        yield from range(1000)

    with house() as it:
        assert sum(numbers()) == 499500
        result = it.recorder.of("tool.returned")[0]["result"]
    assert (len(result["items"]), result["count"]) == (100, 1000)


def test_a_refused_call_is_not_made() -> None:
    made: list[int] = []

    @checkrein.tool
    def send(n: int) -> None:
        made.append(n)

    no = Verdict(kind="deny", guard="tools", rule="r1", reason="not today", advice="WAIT")
    with house(ScriptedGuard(send=no)) as it:
        with pytest.raises(checkrein.Denied) as denied:
            send(1)
        assert made == []
        assert (denied.value.reason, denied.value.rule, denied.value.advice) == (
            "not today", "r1", "WAIT",
        )  # fmt: skip
        assert "wait before you try again" in str(denied.value)
        kinds = [e["type"] for e in it.recorder.events][1:]
        assert kinds == ["tool.selected", "tool.arguments", "scope.decision", "tool.returned"]
        assert it.recorder.of("tool.returned")[0]["status"] == "denied"
        decision = it.recorder.of("scope.decision")[0]
        assert decision["action"] == {"kind": "tool", "name": "send", "arguments": {"n": 1}}
        assert not checkrein.current_run().in_flight


def test_what_must_be_asked_is_denied_until_it_can_be() -> None:
    ask = Verdict(kind="ask", guard="gates", rule="ask", reason="over 20 dollars")
    with house(ScriptedGuard(add=ask)), pytest.raises(checkrein.Denied) as denied:
        add(1)
    assert denied.value.advice == "ESCALATE"
    assert "a human must approve" in denied.value.reason


def test_a_guard_that_errs_denies() -> None:
    guard = ScriptedGuard(add=ZeroDivisionError("oops"))
    with (
        pytest.raises(AssertionError, match=r"guard\.judge"),  # counted as our fault
        house(guard),
        pytest.raises(checkrein.Denied, match="guard failed in judge"),
    ):
        add(1)


def test_changed_arguments_are_the_ones_called_with() -> None:
    less = Verdict(kind="modify", guard="limits", arguments={"a": 1, "b": 1, "scale": 1})

    @checkrein.tool(name="smaller")
    def smaller(a: int, b: int = 5, *, scale: int = 7) -> int:
        return (a + b) * scale

    with house(ScriptedGuard(smaller=less)):
        assert smaller(100) == 2


def test_a_steer_goes_on_and_reaches_the_next_model_call() -> None:
    steer = Verdict(kind="steer", guard="budgets", reason="60% used", guidance="Come to an end.")
    with house(ScriptedGuard(add=steer)) as it, checkrein.run() as run:
        assert add(1) == 3
        with checkrein.model("p", "m", "hi") as call:
            assert call.directives == ("Come to an end.",)
        assert run.take_directives() == ()
        assert it.recorder.of("scope.decision")[0]["verdict"] == "steer"


def test_a_frameworks_call_of_a_decorated_tool_is_recorded_once() -> None:
    with house() as it:
        outer = ToolCall.begin("add", {"a": 1}, known_tools=("add",), call_id="call_7")
        assert add(1) == 3
        outer.end("3")
        assert [e["call_id"] for e in it.recorder.of("tool.invoked")] == ["call_7"]
        assert it.recorder.of("tool.invoked")[0]["kind"] == "read"
        add(5)  # outside of it again: a call of its own
        assert len(it.recorder.of("tool.invoked")) == 2


def test_a_tool_that_calls_itself_is_recorded_each_time() -> None:
    @checkrein.tool
    def count(n: int) -> int:
        return n and 1 + count(n - 1)

    with house() as it:
        assert count(2) == 2
        assert len(it.recorder.of("tool.invoked")) == 3


def test_generators_that_end_out_of_order_leave_no_chain_behind() -> None:
    @checkrein.tool(name="ticks")
    def ticks():  # type: ignore[no-untyped-def] # a generator
        yield 1
        yield 2

    from checkrein.sdk import calls

    with house(ScriptedGuard()):
        for _ in range(50):
            first, second = ticks(), ticks()
            next(first)
            next(second)
            list(first)
            list(second)
        depth, call = 0, calls.open_tool()
        while call is not None:
            depth, call = depth + 1, call._outer
    assert depth <= 1


def test_the_fourth_equal_call_is_refused_before_it_is_made() -> None:
    made: list[str] = []

    @checkrein.tool(kind="read")
    def look(what: str) -> str:
        made.append(what)
        return "nothing"

    with house(pact="pact: bot\n"), checkrein.run():
        for _ in range(3):
            look("a")
        with pytest.raises(checkrein.Denied, match="3 times"):
            look("a")
    assert len(made) == 3
