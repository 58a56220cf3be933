"""Whose run a call belongs to, and what becomes of runs that the gateway itself began."""

import asyncio
from typing import Any

import pytest

from checkrein.bus import subjects
from checkrein.bus.memory import MemoryServer
from checkrein.bus.messages import RunRecord, encode
from checkrein.bus.types import Entry
from checkrein.gateway import runs
from checkrein.gateway.types import CALL_HEADER, RUN_HEADER, STEP_HEADER, Refusal
from checkrein.sdk.instruments.exchange import Request
from checkrein.world import REAL
from tests.gateway.conftest import GateHouse, Gates

ASKED = Request("openai", "gpt-5-mini", [{"role": "user", "content": "hi"}], {}, (), False)


async def call(house: GateHouse, key: str, **headers: str) -> str:
    """One model call; the id of its run."""
    head = {"authorization": f"Bearer {key}", **headers}
    async with house.gate.visit(head, "openai") as visit:
        model = await visit.begin_model(ASKED)
        visit.end_model(model, content="ho", input_tokens=3, output_tokens=2)
        return visit.run.run_id


async def halted(house: GateHouse) -> None:
    run = house.run()
    house.halt(run)
    house.runs.halted(run)
    await asyncio.sleep(0.01)


async def with_bus(gates: Gates) -> GateHouse:
    house = gates()
    await house.keys.open(MemoryServer().connect())
    return house


async def test_an_agents_calls_are_one_run_and_a_name_makes_another(gates: Gates) -> None:
    house = gates()
    key = house.agent()
    first = await call(house, key)
    assert await call(house, key) == first
    assert await call(house, key, **{RUN_HEADER: "nightly"}) != first
    assert len(house.of("run.start")) == 2
    assert [e["labels"] for e in house.of("run.start")] == [
        {"through": "gateway"}, {"through": "gateway", "name": "nightly"},
    ]  # fmt: skip


async def test_a_call_through_the_gateway_alone_is_recorded_whole(gates: Gates) -> None:
    house = gates()
    await call(house, house.agent())
    types = house.recorder.types()
    assert [t for t in types if t.startswith("model.")] == ["model.request", "model.response"]
    (passage,) = house.of("passage")
    assert passage["call_id"] == house.of("model.request")[0]["call_id"]
    assert (passage["path"], passage.get("announced", False)) == ("openai", False)


async def test_an_announced_call_is_judged_and_recorded_once(gates: Gates) -> None:
    house = gates(pact="pact: a\nmodels: [gpt-5-*]\nbudgets: {steps: 2}\n")
    key = house.run_key(run_id="run-9")
    said = {CALL_HEADER: "call-7", STEP_HEADER: "4"}
    assert await call(house, key, **said) == "run-9"
    assert house.recorder.types() == ["passage"]
    assert house.of("passage")[0]["call_id"] == "call-7"
    assert house.of("passage")[0]["step"] == 4
    await call(house, key, **said)
    with pytest.raises(Refusal, match="steps"):  # the gateway counts for itself
        await call(house, key, **said)
    assert house.of("scope.decision")[0]["rule"] == "budgets.steps"


async def test_a_run_of_another_agent_is_not_its_own(gates: Gates) -> None:
    house = gates()
    record = RunRecord(
        run_id="theirs", task_id="t" * 32, agent="other", room="", environment="development",
        session="s", holder="sdk", started_at=1,
    )  # fmt: skip
    house.keys._take_run(Entry("theirs", encode(record), 1))
    assert await call(house, house.agent(), **{RUN_HEADER: "theirs"}) != "theirs"
    assert await call(house, house.agent("other"), **{RUN_HEADER: "theirs"}) == "theirs"


async def test_a_halted_run_is_not_followed_by_a_fresh_one(gates: Gates) -> None:
    house = await with_bus(gates)
    key = house.agent()
    await call(house, key)
    await halted(house)
    assert house.of("run.end")[0]["status"] == "halted"
    for _ in range(3):
        with pytest.raises(Refusal) as refused:
            await call(house, key)
        assert refused.value.code == "halted"
        assert "enough" in refused.value.text
    await call(house, key, **{RUN_HEADER: "another"})


async def test_a_halt_outlives_the_gateway_and_ends_when_the_calls_do(gates: Gates) -> None:
    house = await with_bus(gates)
    key = house.agent()
    await call(house, key)
    await halted(house)
    bus = house.keys._buckets[subjects.BUCKET_HALTED]
    again = gates()
    for entry in await bus.entries():
        again.keys._take_halted(entry)
    again.keys._buckets = house.keys._buckets
    fresh = again.agent()
    with pytest.raises(Refusal, match="halted"):
        await call(again, fresh)
    again.runs._idle_ns = 0
    again.runs._forget_halts()
    await asyncio.sleep(0.01)
    assert await bus.entries() == []
    await call(again, fresh)


async def test_what_is_idle_ends(gates: Gates, monkeypatch: Any) -> None:
    monkeypatch.setattr("checkrein.gateway.runs.SWEEP_S", 0.01)
    house = gates()
    house.runs._idle_ns = 1
    await call(house, house.agent())
    sweeping = asyncio.ensure_future(house.runs.sweep())
    await asyncio.sleep(0.1)
    sweeping.cancel()
    assert house.of("run.end")[0]["status"] == "completed"
    assert house.runs.all() == []


async def test_a_contained_agents_call_is_refused_before_its_run(gates: Gates) -> None:
    house = gates()
    key = house.agent()
    house.contain()
    with pytest.raises(Refusal, match="contained"):
        await call(house, key)
    assert house.recorder.events == []


async def test_a_call_that_comes_before_its_run_is_known_still_belongs_to_it(gates: Gates) -> None:
    house = gates()
    key = house.agent()
    run_id = REAL.uuid7()
    record = RunRecord(
        run_id=run_id, task_id="t" * 32, agent="bot", room="", environment="development",
        session="s", holder="sdk", started_at=1,
    )  # fmt: skip
    calling = asyncio.ensure_future(call(house, key, **{RUN_HEADER: run_id, CALL_HEADER: "c1"}))
    await asyncio.sleep(0)
    house.keys._take_run(Entry(run_id, encode(record), 1))
    assert await calling == run_id


async def test_a_run_that_never_becomes_known_is_waited_for_once(
    gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkrein.gateway.runs.AWAIT_S", 0.0001)
    house = gates()
    key, said = house.agent(), {RUN_HEADER: REAL.uuid7(), CALL_HEADER: "c1"}
    first = await call(house, key, **said)
    monkeypatch.setattr("checkrein.gateway.runs.AWAIT_S", 3600.0)
    assert await call(house, key, **said) == first


async def test_the_passage_of_a_refused_call_is_joined_with_its_decision(gates: Gates) -> None:
    house = gates(pact="pact: a\nmodels: [other-*]\n")
    with pytest.raises(Refusal, match="gpt-5-mini"):
        await call(house, house.agent())
    (passage,), (decision,) = house.of("passage"), house.of("scope.decision")
    assert passage["call_id"] == decision["call_id"] != ""
    assert passage["status"] == "refused"
    with pytest.raises(Refusal, match="gpt-5-mini"):
        await call(house, house.run_key(), **{CALL_HEADER: "call-7"})
    assert {e["call_id"] for e in house.recorder.events[-2:]} == {"call-7"}


async def test_a_passage_names_the_guards_that_ran(gates: Gates) -> None:
    house = gates(
        pact="pact: a\nbudgets: {steps: 9}\ntools:\n  pay: {kind: irreversible, ask: true}\n"
        "  look: {kind: read}\n"
    )
    key = house.agent()
    async with house.gate.visit({"authorization": f"Bearer {key}"}, "openai") as visit:
        model = await visit.begin_model(ASKED)
        proposed = await visit.begin_tool("look", {}, call_id="model-said-1")
        visit.ran("redact")
        visit.end_tool(proposed, "seen")
        visit.end_model(model, content="ho", input_tokens=3, output_tokens=2)
    (passage,) = house.of("passage")
    assert passage["guards"][0].startswith("pact a ")
    assert set(passage["guards"][1:]) == {"models", "budgets", "tools", "loops", "redact"}
    assert (passage.get("kind", "model"), passage["call_id"]) == ("model", model.call_id)
    assert house.of("tool.invoked")[0]["call_id"] == "model-said-1"


async def test_one_agents_names_leave_room_for_others(
    gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "AGENT_RUNS_MAX", 3)
    house = gates()
    flooding = house.agent()
    for number in range(3):
        await call(house, flooding, **{RUN_HEADER: f"name-{number}"})
    with pytest.raises(Refusal, match="3 runs of agent bot") as refused:
        await call(house, flooding, **{RUN_HEADER: "one-more"})
    assert refused.value.status == 429
    await call(house, flooding, **{RUN_HEADER: "name-0"})
    await call(house, house.agent("other"))


async def test_a_halted_run_of_another_holder_does_not_come_back_as_a_name(gates: Gates) -> None:
    house = await with_bus(gates)
    key, run_id = house.agent(), REAL.uuid7()
    record = RunRecord(
        run_id=run_id, task_id="t" * 32, agent="bot", room="", environment="development",
        session="s", holder="sdk", started_at=1,
    )  # fmt: skip
    house.keys._take_run(Entry(run_id, encode(record), 1))
    assert await call(house, key, **{RUN_HEADER: run_id}) == run_id
    await halted(house)
    house.keys._take_run(Entry(run_id, b"", 2))  # ended, and forgotten by control
    with pytest.raises(Refusal, match="was halted: enough"):
        await call(house, key, **{RUN_HEADER: run_id})


async def test_an_announced_call_that_is_refused_at_the_door_came_here_all_the_same(
    gates: Gates,
) -> None:
    house = gates()
    key = house.run_key(run_id="run-9")
    await call(house, key, **{CALL_HEADER: "call-1"})
    house.contain()
    with pytest.raises(Refusal, match="contained"):
        await call(house, key, **{CALL_HEADER: "call-2"})
    told = [(e["call_id"], e.get("status", "ok")) for e in house.of("passage")]
    assert told == [("call-1", "ok"), ("call-2", "refused")]
