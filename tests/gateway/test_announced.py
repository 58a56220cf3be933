"""What a call says of itself is believed only where an SDK can have said it, and only once."""

import asyncio

import pytest

from checkrein.gateway.announced import ATTEMPTS_MAX
from checkrein.gateway.types import CALL_HEADER, Refusal
from tests.gateway.conftest import GateHouse, Gates
from tests.gateway.test_runs import ASKED, call


async def test_an_agents_own_key_announces_nothing(gates: Gates) -> None:
    house = gates()
    await call(house, house.agent(), **{CALL_HEADER: "made-up"})
    (request,) = house.of("model.request")
    (passage,) = house.of("passage")
    assert not passage["announced"]
    assert passage["call_id"] == request["call_id"] != "made-up"


async def test_one_announced_call_is_one_request(gates: Gates) -> None:
    house = gates()
    key, said = house.run_key(), {CALL_HEADER: "call-1"}
    for _ in range(3):
        await call(house, key, **said)
    assert [e["announced"] for e in house.of("passage")] == [True, False, False]
    assert len(house.of("model.request")) == 2
    assert len({e["call_id"] for e in house.of("passage")}) == 3


async def test_a_second_one_beside_it_is_none(gates: Gates) -> None:
    house = gates()
    head = {"authorization": f"Bearer {house.run_key()}", CALL_HEADER: "call-1"}
    visit = house.gate.visit
    async with visit(head, "openai") as first, visit(head, "openai") as second:
        assert (first.announced, second.announced) == (True, False)


async def test_a_client_that_was_not_answered_asks_again(gates: Gates) -> None:
    house = gates()
    head = {"authorization": f"Bearer {house.run_key()}", CALL_HEADER: "call-1"}
    for _ in range(ATTEMPTS_MAX + 2):
        await failing(house, head)
    assert [e["announced"] for e in house.of("passage")] == [True] * ATTEMPTS_MAX + [False] * 2
    assert len(house.of("model.request")) == 2


async def failing(house: GateHouse, head: dict[str, str]) -> None:
    async def fails() -> None:
        async with house.gate.visit(head, "openai") as visit:
            model = await visit.begin_model(ASKED)
            visit.fail_model(model, OSError("gone"))
            raise Refusal(502, "upstream_failed", "gone")

    with pytest.raises(Refusal):
        await fails()


async def test_who_is_shut_out_while_the_run_is_looked_for_stays_out(gates: Gates) -> None:
    house = gates()
    key, looking = house.agent(), asyncio.Event()

    async def learn(agent: str) -> bool:
        looking.set()
        await asyncio.sleep(0.01)
        return True

    house.link.learn = learn  # type: ignore[method-assign] # slow, as the bus may be
    asking = asyncio.ensure_future(call(house, key))
    await looking.wait()
    house.contain()
    with pytest.raises(Refusal, match="contained"):
        await asking
    assert house.of("model.request") == []


async def test_who_is_revoked_while_the_run_is_looked_for_stays_out(gates: Gates) -> None:
    house = gates()
    key, looking = house.agent(), asyncio.Event()

    async def learn(agent: str) -> bool:
        looking.set()
        await asyncio.sleep(0.01)
        return True

    house.link.learn = learn  # type: ignore[method-assign] # slow, as the bus may be
    asking = asyncio.ensure_future(call(house, key))
    await looking.wait()
    house.agent(revoked_at=1)
    with pytest.raises(Refusal, match="revoked"):
        await asking
    assert house.of("model.request") == []
