import asyncio

import pytest

from checkrein.gateway.app import Route
from checkrein.gateway.gate import Gate
from checkrein.gateway.types import Cut, Refusal
from checkrein.gateway.wire import Answer, Request, first_of
from tests.conftest import within
from tests.gateway.conftest import Gates

PACT = """\
pact: bot
job: test
tools:
  search: {kind: read}
  refund: {kind: irreversible, allow: args.cents <= 100}
"""


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_a_call_is_let_in_judged_recorded_and_told(gates: Gates) -> None:
    house = gates(pact=PACT)
    async with house.gate.visit(bearer(house.agent()), "decide") as visit:
        call = await visit.begin_tool("refund", {"cents": 50})
        visit.end_tool(call, {"ok": True})
    (passage,) = house.of("passage")
    assert (passage["status"], passage["kind"], passage["name"]) == ("ok", "tool", "refund")
    assert [e["type"] for e in house.recorder.events if e.get("call_id") == call.call_id][-1] == (
        "passage"
    )


async def test_a_no_is_a_refusal_with_rule_and_appeal(gates: Gates) -> None:
    house = gates(pact=PACT)
    with pytest.raises(Refusal, match="refund is not allowed") as refused:
        async with house.gate.visit(bearer(house.agent()), "decide") as visit:
            await visit.begin_tool("refund", {"cents": 500})
    assert refused.value.status == 403
    assert refused.value.rule
    assert house.run().run_id in refused.value.appeal
    assert house.of("passage")[0]["status"] == "refused"


@pytest.mark.parametrize("key", ["", "nonsense", "cra_unknown", "crr_unknown"])
async def test_nobody_comes_in_without_a_key_of_ours(gates: Gates, key: str) -> None:
    house = gates(pact=PACT)
    with pytest.raises(Refusal) as refused:
        async with house.gate.visit(bearer(key), "openai"):
            pytest.fail("let in")
    assert refused.value.status == 401


async def test_a_halted_run_and_a_contained_agent_are_cut(gates: Gates) -> None:
    house = gates(pact=PACT)
    run_key, agent_key = house.run_key("one"), house.agent("two")
    inside = asyncio.Event()

    async def stay(key: str) -> None:
        async with house.gate.visit(bearer(key), "openai"):
            inside.set()
            await asyncio.sleep(30)

    first = asyncio.ensure_future(stay(run_key))
    await inside.wait()
    house.halt()
    with pytest.raises(Cut, match="was halted: enough"):
        await first
    inside.clear()
    second = asyncio.ensure_future(stay(agent_key))
    await inside.wait()
    house.contain("two")
    with pytest.raises(Cut, match="agent two is contained"):
        await second
    await within(2, lambda: house.fenced and house.shut_out)
    assert house.shut_out == [("two", 1)]
    with pytest.raises(Cut):
        await stay(agent_key)
    assert [e["status"] for e in house.of("passage")] == ["cut", "cut"]


async def test_routes_are_served_over_real_http(gates: Gates) -> None:
    house = gates(pact=PACT)

    async def handle(gate: Gate, request: Request, answer: Answer) -> None:
        await request.body()

        async def work() -> None:
            async with gate.visit(request.headers, "decide") as visit:
                await answer.json(200, {"agent": visit.caller.agent})

        await first_of(work(), request.gone())

    import httpx

    async with house.serving([Route("/x", handle)]) as url, httpx.AsyncClient() as client:
        found = await client.post(f"{url}/x/y", headers=bearer(house.agent()))
        assert found.json() == {"agent": "bot"}
        refused = await client.post(f"{url}/x/y", headers=bearer("cra_no"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthenticated")
