"""The agent's SDK and the gateway see the same call: it is one action in the record."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from checkrein.bus.messages import RunRecord, encode
from checkrein.bus.types import Entry
from checkrein.events import codec
from checkrein.gateway.app import Route
from checkrein.gateway.gate import Gate
from checkrein.gateway.wire import Answer, Request, first_of
from checkrein.sdk.instruments.openai_exchange import Chat
from checkrein.store import coverage
from checkrein.store.runs import fold
from tests.detect.made import SECOND_NS, Watched, signals
from tests.gateway.conftest import GateHouse, Gates
from tests.recorded import Recorded, ambient, recorded

ASK: Any = [{"role": "user", "content": "hello"}]
SAID = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5-mini",
    "choices": [{"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": "ho"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}  # fmt: skip


async def _chat(gate: Gate, request: Request, answer: Answer) -> None:
    """Chat completions in a few lines: judged, recorded, and answered by nobody else."""
    body = msgspec.json.decode(await request.body())

    async def work() -> None:
        async with gate.visit(request.headers, "openai") as visit:
            call = await visit.begin_model(Chat().request(body))
            visit.end_model(call, content="ho", input_tokens=3, output_tokens=2)
            await answer.json(200, SAID)

    await first_of(work(), request.gone())


@asynccontextmanager
async def agent(house: GateHouse, key: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        house.serving([Route("/openai", _chat)]) as url,
        openai.AsyncOpenAI(base_url=f"{url}/openai/v1", api_key=key, max_retries=0) as client,
    ):
        yield client


def known(house: GateHouse) -> None:
    """The gateway hears of the run that the SDK holds."""
    run = ambient()
    record = RunRecord(
        run_id=run.run_id, task_id=run.task_id, agent="bot", room="", environment="development",
        session="s", holder="sdk", started_at=1,
    )  # fmt: skip
    house.keys._take_run(Entry(run.run_id, encode(record), 1))


def both_records(record: Recorded, house: GateHouse) -> list[dict[str, Any]]:
    """What the two have recorded of one run, as the store gets it."""
    place = {"agent": "bot", "environment": "development", "room": "", "task_id": ambient().task_id}
    found = [{**msgspec.to_builtins(event), "recorder": "sdk", **place} for event in record.events]
    return found + [{**event, "recorder": "gateway", **place} for event in house.recorder.events]


async def test_a_call_that_both_see_is_one_call(gates: Gates, tmp_path: Path) -> None:
    house = gates()
    key = house.agent()
    with recorded(tmp_path) as record:
        known(house)
        async with agent(house, key) as client:
            for _ in range(3):
                await client.chat.completions.create(model="gpt-5-mini", messages=ASK)
        events = both_records(record, house)
    assert record.types("model.") == ["model.request", "model.response"] * 3
    assert house.recorder.types() == ["passage"] * 3
    ids = [event.call_id for event in record.events if hasattr(event, "call_id")]
    assert [e["call_id"] for e in house.of("passage")] == ids[::2]
    assert len({e["run_id"] for e in events}) == 1
    (row,) = coverage.counted(events, coverage.gateways_of(events), by_run=True)
    assert (row["model_both"], row["model_sdk"], row["model_gateway"]) == (3, 0, 0)
    summary = None
    for seq, event in enumerate(events, 1):
        summary = fold(summary, event | {"seq": seq, "ts": seq})
    assert summary is not None
    assert (summary.tokens, summary.tool_calls, summary.step) == (15, 0, 3)


async def test_a_call_that_is_not_announced_is_recorded_by_the_gateway_and_told(
    gates: Gates, tmp_path: Path
) -> None:
    house = gates()
    key = house.agent()
    with recorded(tmp_path) as record:
        known(house)
        async with agent(house, key) as client:
            await client.chat.completions.create(model="gpt-5-mini", messages=ASK)
            # what an agent does that has its key and leaves the SDK's client out
            head = {"authorization": f"Bearer {key}", "x-checkrein-run": ambient().run_id}
            async with house.gate.visit(head, "openai") as visit:
                call = await visit.begin_model(Chat().request({"model": "gpt-5", "messages": ASK}))
                visit.end_model(call, content="hm", input_tokens=1, output_tokens=1)
        events = both_records(record, house)
    (row,) = coverage.counted(events, coverage.gateways_of(events))
    assert (row["model_both"], row["model_gateway"]) == (1, 1)
    seen = Watched()
    for seq, event in enumerate(events, 1):
        fields = event | {"seq": seq, "ts": seq * SECOND_NS}
        seen.see(codec.decode(msgspec.msgpack.encode(fields)))
    seen.tick(60 * SECOND_NS)
    (signal,) = signals(seen.said, "unannounced")
    assert (signal.level, signal.run_id) == ("breach", events[0]["run_id"])
    assert call.call_id in signal.why


async def test_a_refusal_of_the_gateway_is_one_refused_call(gates: Gates, tmp_path: Path) -> None:
    house = gates(pact="pact: a\nmodels: [other-*]\n")
    key = house.agent()
    with recorded(tmp_path) as record:
        known(house)
        async with agent(house, key) as client:
            with pytest.raises(openai.PermissionDeniedError, match="gpt-5-mini"):
                await client.chat.completions.create(model="gpt-5-mini", messages=ASK)
        events = both_records(record, house)
    (row,) = coverage.counted(events, coverage.gateways_of(events))
    assert (row["model_both"], row["model_denied"], row["model_gateway"]) == (1, 1, 0)
