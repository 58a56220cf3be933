"""Who saw which calls of an agent, and what is said of those that somebody did not see."""

from typing import Any

import pytest

from checkrein.bus import subjects
from checkrein.bus.identities import GatewayRecord
from checkrein.bus.messages import encode
from checkrein.server.api.coverage import Seen, words_of
from checkrein.world import REAL
from tests.server.api.conftest import Stand, event, stand

__all__ = ["stand"]


def calls() -> list[dict[str, Any]]:
    passage = {"path": "openai", "announced": True, "guards": ["models"], "recorder": "gw"}
    return [
        event(1, "model.request", call_id="m1"),
        event(1, "passage", call_id="m1", provider_tools=["web_search"], **passage),
        event(2, "model.request", call_id="m2"),
        event(3, "tool.invoked", call_id="t1", tool="look"),
        event(1, "model.request", call_id="o", agent="other", recorder="r2", run_id="run-2"),
        event(1, "passage", call_id="o", agent="other", run_id="run-2", **passage),
    ]


async def test_every_agent_has_a_line_with_words_on_what_is_missing(stand: Stand) -> None:
    stand.archive.events += calls()
    bucket = await stand.control_bus.bucket(subjects.BUCKET_GATEWAYS)
    for session, at in (("old", 1), ("young", REAL.now_ns())):
        url = f"http://{session}.test:4401"
        record = GatewayRecord(session=session, url=url, host="h", pid=1, at=at)
        await bucket.put(session, encode(record))
    async with stand.client() as client:
        other, bot = (await client.get("/api/v1/coverage")).json()
    assert (other["agent"], bot["agent"]) == ("other", "support-bot")
    assert other["models"] == {"both": 1, "sdk": 0, "gateway": 0, "denied": 0}
    assert other["not_covered"] == []
    assert bot["models"] == {"both": 1, "sdk": 1, "gateway": 0, "denied": 0}
    assert bot["tools"]["sdk"] == 1
    assert (bot["paths"][0]["path"], bot["paths"][0]["guards"]) == ("openai", ["models"])
    models, tools, provider = bot["not_covered"]
    assert models.startswith("50 % (1) of its model calls did not pass the gateway")
    assert "OPENAI_BASE_URL=http://young.test:4401/openai/v1" in models
    assert tools.startswith("100 % (1) of its tool calls ran in its own process")
    assert "runs web_search" in provider


async def test_one_agent_is_told_with_its_runs(stand: Stand) -> None:
    stand.archive.events += calls()
    async with stand.client() as client:
        (line,) = (await client.get("/api/v1/agents/support-bot/coverage")).json()
        assert [run["models"]["both"] for run in line["runs"]] == [1]
        nobody = await client.get("/api/v1/agents/nobody/coverage")
        stand.archive.events.clear()
        assert (await client.get("/api/v1/coverage")).json() == []
    assert nobody.status_code == 404
    assert "no call of agent 'nobody'" in nobody.json()["detail"]
    asked = [query for query in stand.archive.asked if query.name == "coverage"]
    assert all(REAL.now_ns() - query.parameters["since"] >= 86_400 * 10**9 for query in asked)


@pytest.mark.parametrize(
    ("sdk", "both", "said"),
    [(1, 999, "1 % (1)"), (999, 1, "99 % (999)"), (3, 0, "100 % (3)"), (40, 60, "40 % (40)")],
)
def test_a_share_is_never_rounded_to_none_or_all(sdk: int, both: int, said: str) -> None:
    (line,) = words_of(Seen(sdk=sdk, both=both), Seen(), [], "")
    assert line.startswith(f"{said} of its model calls")


def test_what_only_the_gateway_saw_is_said_and_nothing_is_said_of_nothing() -> None:
    (line,) = words_of(Seen(gateway=2), Seen(gateway=1, denied=4), [], "http://gw")
    assert line.startswith("2 model calls and 1 tool calls were seen by the gateway only")
    assert words_of(Seen(both=5, denied=2), Seen(both=1), [], "http://gw") == []
