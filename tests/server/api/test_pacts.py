"""Pacts over the API: pushed, brought to whoever enforces them, compared, promoted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from checkrein.bus import subjects
from checkrein.bus.memory import MemoryBus
from checkrein.bus.messages import decode, encode
from checkrein.bus.pacts import Held, Holding, Newer, PactRefused, PactSet
from checkrein.bus.signed_pacts import PactInbox
from checkrein.bus.types import Message
from checkrein.world import REAL
from tests.server.api.conftest import Stand, event, eventually, running

OPEN = "pact: bot\ntools: {a: {kind: read}, b: {kind: read}}\n"
CLOSED = "pact: bot\ntools: {a: {kind: read}}\n"
FAR_NS = 10**12


class Holder:
    """A holder of runs as the api sees it: what it was sent, and what it says it holds."""

    def __init__(self, bus: MemoryBus, grant: dict[str, Any], agents: list[str]) -> None:
        self.bus, self.session, self.agents = bus, grant["session"], agents
        self.inbox = PactInbox(bytes.fromhex(grant["control_key"]), "")
        self.got: list[PactSet] = []
        self.news = asyncio.Event()

    async def open(self) -> None:
        await self.bus.subscribe(subjects.pact(self.session), self._take)

    async def _take(self, message: Message) -> None:
        self.take(message.data)

    def take(self, data: bytes) -> None:
        try:
            self.got.append(self.inbox.accept(data))
            self.news.set()
        except PactRefused as error:
            assert error.why in ("repeated", "old revision"), error  # noqa: PT017 # any other is a fault

    async def say(self, *, error: str = "", agents: list[str] | None = None) -> int:
        """Tells what it holds; how many newer sets came back."""
        revisions = {agent: self.inbox.revision(agent) for agent in agents or self.agents}
        held = Held(
            session=self.session, environment="", at=1, revisions=revisions,
            holdings=[
                Holding(agent=agent, revision=0 if error else revision, error=error)
                for agent, revision in revisions.items()
            ],
        )  # fmt: skip
        raw = await self.bus.request(subjects.held(self.session), encode(held))
        sets = decode(raw, Newer).sets
        for data in sets:
            self.take(data)
        return len(sets)

    async def next(self) -> PactSet:
        async with asyncio.timeout(5):
            await self.news.wait()
        self.news.clear()
        return self.got[-1]


@asynccontextmanager
async def holder(stand: Stand, client: httpx.AsyncClient, *agents: str) -> AsyncIterator[Holder]:
    body = {"kind": "sdk", "agents": list(agents)}
    answer = await client.post("/api/v1/sessions", json=body)
    assert answer.status_code == 201, answer.text
    made = Holder(stand.control_server.connect(), answer.json(), list(agents))
    await made.open()
    await made.say()
    yield made
    await made.bus.close()


async def push(client: httpx.AsyncClient, agent: str, text: str, **more: Any) -> dict[str, Any]:
    answer = await client.put(f"/api/v1/pacts/{agent}", json={"text": text, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_push_is_brought_to_those_who_enforce_it(stand: Stand) -> None:
    async with (
        stand.client() as client, holder(stand, client, "bot") as one,
        holder(stand, client, "other") as two,
    ):  # fmt: skip
        line = await push(client, "bot", OPEN, reason="first")
        found = await one.next()
        await one.say()
        await two.say()
        listed = (await client.get("/api/v1/pacts")).json()
    assert [text.text for text in found.enforced] == [OPEN]
    assert (found.enforced_version, found.issued_by) == (line["version"], "operator")
    assert two.got == []
    by_agent = {each["agent"]: each for each in listed}
    assert (by_agent["bot"]["processes"], by_agent["bot"]["current"]) == (1, 1)
    assert (by_agent["other"]["version"], by_agent["other"]["processes"]) == ("", 1)


async def test_revisions_rise_and_the_newest_is_in_the_grant(stand: Stand) -> None:
    async with stand.client() as client, holder(stand, client, "bot") as it:
        await push(client, "bot", OPEN)
        first = await it.next()
        await push(client, "bot", CLOSED)
        second = await it.next()
        async with holder(stand, client, "bot") as later:
            await later.say()
    assert second.revision > first.revision
    assert [each.revision for each in later.got] == [second.revision]


async def test_the_level_tells_what_it_replaced_and_the_message_does_not(stand: Stand) -> None:
    async with stand.client() as client, holder(stand, client, "bot") as it:
        for number in range(8):
            await push(client, "bot", f"pact: p{number}\n")
            found = await it.next()
        bucket = await stand.control_bus.bucket(subjects.BUCKET_PACT_LEVELS)
        entry = await bucket.get("bot.development")
    assert entry is not None
    level = decode(entry.value or b"", PactSet)
    texts = [[text.text for text in each.enforced] for each in level.earlier]
    assert texts == [[f"pact: p{number}\n"] for number in range(3, 7)]
    assert [each.since for each in level.earlier] == sorted(each.since for each in level.earlier)
    assert found.earlier == []


async def test_who_missed_the_edge_gets_the_level_with_its_next_word(stand: Stand) -> None:
    async with stand.client() as client, holder(stand, client, "bot") as it:
        it.inbox = PactInbox(it.inbox.key, "")
        await push(client, "bot", OPEN)
        await it.next()
        it.inbox = PactInbox(it.inbox.key, "")  # as if the edge had been lost
        assert await it.say() == 1
        assert await it.say() == 0


async def test_what_is_too_large_for_one_answer_comes_in_several(stand: Stand) -> None:
    """Forty agents under a default of 60 KiB: neither the grant nor an answer holds them all."""
    agents = [f"a{number}" for number in range(40)]
    text = "pact: default\njob: " + "x" * 60_000 + "\n"
    async with stand.client() as client:
        await push(client, "default", text)
        body = {"kind": "sdk", "agents": agents}
        grant = (await client.post("/api/v1/sessions", json=body)).json()
        made = Holder(stand.control_server.connect(), grant, agents)
        counts = []
        while count := await made.say():
            counts.append(count)
        await made.bus.close()
    assert 0 < len(grant["pact_sets"]) < 40
    assert len(counts) > 1
    assert sum(counts) == 40


async def test_a_session_learns_nothing_of_other_agents_pacts(stand: Stand) -> None:
    async with stand.client() as client, holder(stand, client, "bot") as it:
        await push(client, "secret", OPEN)
        assert await it.say(agents=["bot", "secret"]) == 0
        stranger = Holder(
            stand.control_server.connect(),
            {"session": "stranger", "control_key": it.inbox.key.hex()}, ["secret"],
        )  # fmt: skip
        with pytest.raises(Exception, match="stranger"):
            await stranger.say()
        listed = (await client.get("/api/v1/pacts")).json()
        await stranger.bus.close()
    assert {line["agent"]: line["processes"] for line in listed} == {"secret": 0, "bot": 1}


async def test_the_default_holds_for_all_that_have_none(stand: Stand) -> None:
    async with stand.client() as client, holder(stand, client, "bot", "own") as it:
        await push(client, "own", OPEN)
        await it.next()
        await push(client, "default", "pact: default\nbudgets: {steps: 7}\n")
        while len(it.got) < 3:
            await it.next()
    newest = {each.agent: each for each in it.got}
    assert [text.name for text in newest["bot"].enforced] == ["default"]
    assert [text.name for text in newest["own"].enforced] == ["default", "own"]


async def test_a_parents_change_is_brought_to_its_children_whole(stand: Stand) -> None:
    child = "pact: child\nextends: base\n"
    async with stand.client() as client, holder(stand, client, "child") as it:
        missing = await client.put("/api/v1/pacts/child", json={"text": child, "source": "c.yaml"})
        await push(client, "base", OPEN)
        await push(client, "child", child)
        first = await it.next()
        await push(client, "base", CLOSED)
        second = await it.next()
        line = (await client.get("/api/v1/pacts/child")).json()
    assert missing.status_code == 400
    assert "c.yaml:2:10" in missing.json()["detail"]
    assert [text.text for text in second.enforced] == [CLOSED, child]
    assert second.enforced_version != first.enforced_version
    assert (line["version"], line["effective"]) == (first.enforced_version, second.enforced_version)


async def test_a_parent_that_would_break_a_child_leaves_the_child_as_it_was(stand: Stand) -> None:
    async with stand.client() as client, holder(stand, client, "child") as it:
        await push(client, "base", "pact: base\n")
        await push(client, "child", "pact: child\nextends: base\n")
        await it.next()
        circle = await client.put(
            "/api/v1/pacts/base", json={"text": "pact: base\nextends: child\n"}
        )
    assert circle.status_code == 400
    assert "leads back" in circle.json()["detail"]
    assert len(it.got) == 1


async def test_shadow_goes_beside_and_drafts_go_nowhere(stand: Stand) -> None:
    async with stand.client() as client, holder(stand, client, "bot") as it:
        enforced = await push(client, "bot", OPEN)
        await it.next()
        await push(client, "bot", "pact: bot\n", stage="draft")
        await push(client, "bot", CLOSED, stage="shadow")
        found = await it.next()
    assert found.enforced_version == enforced["version"]
    assert [text.text for text in found.shadow] == [CLOSED]
    assert len(it.got) == 2


async def test_each_environment_has_its_own(stand: Stand) -> None:
    async with stand.client() as client, holder(stand, client, "bot") as it:
        await push(client, "bot", OPEN, environment="lab")
        there = (await client.get("/api/v1/pacts/bot", params={"environment": "lab"})).json()
        here = await client.get("/api/v1/pacts/bot")
        body = {"kind": "sdk", "agents": ["bot"], "environment": "lab"}
        grant = (await client.post("/api/v1/sessions", json=body)).json()
        assert await it.say() == 0
    assert (there["environment"], here.status_code) == ("lab", 404)
    assert grant["pacts"] == {"bot": OPEN}


async def test_only_drafts_are_put_where_pacts_are_promoted(stand: Stand) -> None:
    async with stand.client() as client:
        refused = await client.put(
            "/api/v1/pacts/bot", json={"text": OPEN, "environment": "production"}
        )
        body = {
            "kind": "sdk", "agents": ["bot"], "environment": "production", "pacts": {"bot": OPEN},
        }  # fmt: skip
        grant = (await client.post("/api/v1/sessions", json=body)).json()
        draft = await push(client, "bot", OPEN, environment="production", stage="draft")
    assert (refused.status_code, refused.json()["error"]) == (400, "lacking")
    assert grant["pacts"] == {"bot": ""}
    assert (draft["stage"], draft["effective"]) == ("draft", "")


async def test_who_could_not_adopt_it_is_told_loudly(stand: Stand) -> None:
    async with stand.client() as client, holder(stand, client, "bot") as it:
        await push(client, "bot", OPEN)
        await it.next()
        await it.say(error="PactError: bot:1:1: unknown key")
        line = (await client.get("/api/v1/pacts/bot")).json()
    assert (line["processes"], line["current"]) == (1, 0)
    assert line["behind"][0]["error"].startswith("PactError")


async def promote(client: httpx.AsyncClient, to: str, **more: Any) -> httpx.Response:
    plan = await client.get("/api/v1/pacts/bot/promotion", params={"to": to, **more})
    if plan.status_code != 200:
        return plan
    body = {"to": to, "reason": "it is good", "diff": plan.json()["compared"]["digest"], **more}
    return await client.post("/api/v1/pacts/bot/promote", json=body)


async def test_a_pact_goes_all_the_way_with_its_evidence(stand: Stand) -> None:
    async with stand.client() as client, holder(stand, client, "bot") as it:
        made = (
            await client.post("/api/v1/tokens", json={"name": "bea", "role": "approver"})
        ).json()
        await push(client, "bot", OPEN)
        draft = await push(client, "bot", CLOSED, stage="draft")
        version = (await client.get("/api/v1/pacts/bot/versions")).json()[0]["version"]
        no_test = await promote(client, "shadow")
        stored = await client.post(
            "/api/v1/pacts/bot/backtests", json={"version": version, "summary": {"denied": 2}}
        )
        in_shadow = await promote(client, "shadow")
        no_run = await promote(client, "enforce")
        stand.archive.events += [
            event(1, "run.start", agent="bot", ts=REAL.now_ns() + FAR_NS),
            event(
                2, "scope.decision", agent="bot", ts=REAL.now_ns() + FAR_NS, call_id="c",
                action={"name": "b"}, verdict="deny", rule="tools.pact", shadow=True,
                pact_version=version,
            ),
            event(3, "scope.decision", agent="bot", call_id="d", action={"name": "b"},
                  verdict="deny", rule="tools.pact", pact_version=version),
        ]  # fmt: skip
        plan = (await client.get("/api/v1/pacts/bot/promotion", params={"to": "enforce"})).json()
        enforced = await promote(client, "enforce")
        staging = await promote(client, "staging")
        own = await promote(client, "production")
        async with stand.client(headers={"Authorization": f"Bearer {made['token']}"}) as bea:
            production = await promote(bea, "production")
            cannot_push = await bea.put("/api/v1/pacts/bot", json={"text": OPEN})
        history = (await client.get("/api/v1/pacts/bot/log")).json()
        await it.say()
    assert draft["drafts"] == [version]
    assert "a backtest" in no_test.json()["detail"]
    assert stored.status_code == 201
    assert (in_shadow.status_code, in_shadow.json()["shadow"]) == (200, version)
    assert "a run judged in shadow" in no_run.json()["detail"]
    assert plan["shadow"]["verdicts"] == {"deny tools.pact": 1}
    assert [each["key"] for each in plan["compared"]["differences"]] == ["tools.b"]
    assert enforced.json()["version"] == version
    assert (staging.status_code, staging.json()["environment"]) == (200, "staging")
    assert "another approver than its author, operator" in own.json()["detail"]
    assert (production.status_code, production.json()["stage"]) == (200, "enforce")
    assert cannot_push.status_code == 403
    told = [(line["verb"], line["environment"], line["by"]) for line in history]
    assert told[:2] == [("promote", "production", "bea"), ("promote", "staging", "operator")]
    assert it.got[-1].enforced_version == version


async def test_a_promotion_needs_the_difference_that_there_is_now(stand: Stand) -> None:
    async with stand.client() as client:
        await push(client, "bot", CLOSED, stage="draft")
        plan = (await client.get("/api/v1/pacts/bot/promotion", params={"to": "shadow"})).json()
        await client.post(
            "/api/v1/pacts/bot/backtests",
            json={"version": plan["move"]["version"]["version"], "summary": {}},
        )
        await push(client, "bot", OPEN)
        body = {"to": "shadow", "reason": "r", "diff": plan["compared"]["digest"]}
        refused = await client.post("/api/v1/pacts/bot/promote", json=body)
        again = await promote(client, "shadow")
    assert "has changed meanwhile" in refused.json()["detail"]
    assert again.status_code == 200


async def test_every_step_is_in_the_audit_stream_once(stand: Stand) -> None:
    records = []
    async with stand.client() as client:
        await push(client, "bot", OPEN, reason="because")
        await push(client, "bot", OPEN)
        await push(client, "bot", CLOSED)
        async with asyncio.timeout(5):
            async for message in stand.control_bus.read("AUDIT", ["audit.pact"], after=0):
                records.append(decode(message.data, dict[str, Any]))
                if len(records) == 2:
                    break
        last = await stand.control_bus.last_position("AUDIT")
    assert [record["verb"] for record in records] == ["push", "push"]
    assert (records[0]["agent"], records[0]["reason"], records[0]["by"]) == (
        "bot", "because", "operator",
    )  # fmt: skip
    assert last == 2


async def test_what_an_api_process_left_undone_the_next_one_does(stand: Stand) -> None:
    """It died after writing the record: no level, no edge, no audit record."""
    async with stand.client() as client, holder(stand, client, "bot") as it:
        await push(client, "bot", OPEN)
        await it.next()
        records = await stand.control_bus.bucket(subjects.BUCKET_PACTS)
        entry = await records.get("bot.development")
        assert entry is not None
        before = entry.value
        await push(client, "bot", CLOSED)
        newer = await records.get("bot.development")
        await it.next()
    assert newer is not None
    stand.stop.set()
    await asyncio.sleep(0)
    again = Stand(stand.data)
    again.events_server, again.control_server = stand.events_server, stand.control_server
    again.bus, again.control_bus = stand.bus, stand.control_bus
    levels = await stand.control_bus.bucket(subjects.BUCKET_PACT_LEVELS)
    stale = await levels.get("bot.development")
    assert stale is not None
    old = decode(stale.value or b"", PactSet)
    undone = PactSet(
        agent="bot", environment="development", revision=old.revision - 1,
        enforced=[], enforced_version="",
    )  # fmt: skip
    await levels.put("bot.development", encode(undone))
    assert before != newer.value
    async with running(again):

        async def settled() -> bool:
            entry = await levels.get("bot.development")
            found = decode(entry.value or b"", PactSet) if entry is not None else undone
            return [text.text for text in found.enforced] == [CLOSED]

        await eventually(settled)


async def test_pacts_of_an_earlier_version_are_taken_over(stand: Stand) -> None:
    stand.stop.set()
    again = Stand(stand.data)
    again.events_server, again.control_server = stand.events_server, stand.control_server
    again.bus, again.control_bus = stand.bus, stand.control_bus
    bucket = await stand.control_bus.bucket(subjects.BUCKET_PACTS)
    await bucket.put("bot", OPEN.encode())
    async with running(again), again.client() as client:
        for place in ("development", "staging", "production"):
            line = (await client.get("/api/v1/pacts/bot", params={"environment": place})).json()
            assert (line["text"], line["stage"]) == (OPEN, "enforce")
    assert await bucket.get("bot") is None


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("none/diff?before=x&after=y", 404),
        ("bot/diff?before=enforced&after=nothing", 404),
        ("bot/promotion?to=moon", 400),
        ("bot/promotion?to=production", 400),
        ("bot?version=nothing", 404),
        ("none", 404),
    ],
)
async def test_what_is_not_there_is_said(stand: Stand, path: str, status: int) -> None:
    async with stand.client() as client:
        await push(client, "bot", OPEN)
        answer = await client.get(f"/api/v1/pacts/{path}")
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]


async def test_versions_are_compared_by_name_and_by_stage(stand: Stand) -> None:
    async with stand.client() as client:
        first = await push(client, "bot", OPEN)
        second = await push(client, "bot", CLOSED)
        for names in (
            {"before": first["version"], "after": "enforced"},
            {"before": first["version"][:6], "after": f"development:{second['version']}"},
        ):
            found = (await client.get("/api/v1/pacts/bot/diff", params=names)).json()
            assert [(d["key"], d["effect"]) for d in found["differences"]] == [
                ("tools.b", "refuses")
            ]
        none = await client.get(
            "/api/v1/pacts/bot/diff", params={"before": "default", "after": "enforced"}
        )
    assert none.json()["differences"][0]["key"] == "tools"
