"""Arguments and results that no JSON can hold: the agent notices nothing, the record says what was
there."""

import math
import sys
from typing import Any

import pytest

import checkrein
from checkrein.sdk import quiet, values
from checkrein.store.objections import objection_to_body
from tests.sdk.fakes import house


def cyclic() -> dict[str, Any]:
    found: dict[str, Any] = {"a": 1}
    found["self"] = found
    return found


def deep(levels: int = 10_000) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


class Angry:
    def __repr__(self) -> str:
        raise RuntimeError("do not look at me")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("do not compare me")

    __hash__ = None  # type: ignore[assignment] # nor hash me


class AngryText(str):
    def __len__(self) -> int:
        raise RuntimeError("do not measure me")


ODD = {
    "10 MB": "x" * 10_000_000,
    "10 MB of bytes": b"\xff" * 10_000_000,
    "invalid UTF-8": "caf\udce9",
    "invalid bytes": b"caf\xe9",
    "NaN": math.nan,
    "infinity": {"n": -math.inf},
    "cyclic": cyclic(),
    "10,000 deep": deep(),
    "a million items": list(range(1_000_000)),
    "a large number": {"n": 10**40},
    "a huge number": 10**10_000,
    "an object": object(),
    "an angry object": Angry(),
    "an angry text": AngryText("x"),
    "keys of all sorts": {1: "a", None: "b", (1, 2): "c", "caf\udce9": "d"},
    "a set": {1, 2},
    "a generator": (i for i in range(3)),
    "a class": Angry,
    "an exception": ValueError("x"),
    "None": None,
}


@pytest.mark.parametrize("name", ODD)
def test_any_value_goes_through_and_comes_back_itself(name: str) -> None:
    value = ODD[name]

    @checkrein.tool
    def echo(it: Any) -> Any:
        return it

    with house() as it:
        assert echo(value) is value
        kinds = [e["type"] for e in it.recorder.events if e["type"].startswith("tool.")]
        assert len(kinds) == 6
        assert sum(len(str(e)) for e in it.recorder.of("tool.arguments")) < 2_000_000


@pytest.mark.parametrize("name", ODD)
def test_any_value_may_be_said_of_a_run(name: str) -> None:
    value = ODD[name]
    with house() as it:
        assert len(checkrein.checkpoint(value)) == 64
        checkrein.output(value)
        checkrein.handoff("other", payload=value)
        memory = checkrein.memory()
        memory["k"] = value
        assert memory["k"] is value
        with checkrein.model("p", "m", value) as call:
            call.end("ok")
        assert len(it.recorder.of("model.request")) == 1
        assert len(it.recorder.of("memory.read")) == 1


def test_texts_of_other_types_do_no_harm() -> None:
    with house() as it:
        checkrein.feedback(rating=0.5, text=7, about=None, by=b"x")  # type: ignore[arg-type]
        checkrein.output("x", format=3)  # type: ignore[arg-type]
        checkrein.reasoning(None)  # type: ignore[arg-type]
        with checkrein.run(goal=7, task_type=None, labels={1: 2}):  # type: ignore[arg-type,dict-item]
            pass
        assert len(it.recorder.of("feedback")) == 1
        assert it.recorder.of("run.start")[1]["goal"] == "7"


def test_the_same_value_has_the_same_hash_and_another_another() -> None:
    one = values.packed({"a": [1, 2, "x"]}).raw
    assert values.hash_of(one) == values.hash_of(values.packed({"a": [1, 2, "x"]}).raw)
    assert values.hash_of(one) != values.hash_of(values.packed({"a": [1, 2, "y"]}).raw)


def test_a_call_at_the_end_of_the_stack_is_judged_or_denied() -> None:
    """An agent cannot get rid of its guard by calling with little stack left."""
    made: list[int] = []

    @checkrein.tool
    def act(n: int) -> int:
        made.append(n)
        return n

    def down(n: int) -> None:
        try:
            act(n)
        except checkrein.Denied:
            return
        except RecursionError:
            return
        down(n + 1)

    from checkrein.sdk import quiet

    limit, faults = sys.getrecursionlimit(), quiet.faults.copy()
    with house() as it:
        sys.setrecursionlimit(200)
        try:
            down(0)
        except RecursionError:
            pass
        finally:
            sys.setrecursionlimit(limit)
        judged = {e["arguments"]["n"] for e in it.recorder.of("tool.arguments")}
        assert set(made) <= judged
        quiet.faults.clear()
        quiet.faults.update(faults)


def test_the_deepest_argument_is_no_deeper_than_the_store_takes() -> None:
    @checkrein.tool
    def eat(x: Any) -> Any:
        return x

    with house() as it, checkrein.run(goal="deep"):
        eat(deep())
        eat({"a": deep()})
        checkrein.memory()["k"] = {"a": deep()}
        found = it.recorder.events
    assert [objection_to_body(e, 1_000) for e in found] == [""] * len(found)


class Unbound:
    """As a framework's proxy outside of a request."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("nothing is bound")

    @__class__.setter
    def __class__(self, kind: Any) -> None: ...


def test_a_result_that_does_not_say_what_it_is_comes_back_and_ends_its_call() -> None:
    unbound = Unbound()

    @checkrein.tool
    def give() -> Any:
        return unbound

    with house() as it:
        assert give() is unbound
        assert len(it.recorder.of("tool.returned")) == 1


def test_a_provenance_that_is_no_text_is_recorded_as_text() -> None:
    with house() as it:
        checkrein.memory().write("k", 1, provenance={None: 1, (1, 2): 2})  # type: ignore[arg-type]
        written = it.recorder.of("memory.write")[0]
    assert written["provenance"] == "{None: 1, (1, 2): 2}"


def test_a_rating_that_is_no_number_does_not_lose_the_note() -> None:
    with house() as it:
        checkrein.feedback(rating="five", text="good")  # type: ignore[arg-type]
        noted = it.recorder.of("feedback")[0]
    assert (noted["text"], noted.get("rating")) == ("good", None)


def test_a_fault_of_ours_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with quiet.quiet("a place of this test"):
        raise ValueError("x" * 10_000_000)
    assert "ValueError: xxx" in caplog.text
    assert len(caplog.text) < 20_000
    quiet.faults.clear()
