"""Agents by name: their keys at the api, what a key opens, and what it does not."""

import asyncio
from typing import Any

import httpx
import pytest

from checkrein.bus import subjects
from checkrein.bus.identities import AgentRecord, RunToken, digest_of
from checkrein.bus.messages import RunRecord, SessionRecord, decode, encode
from tests.server.api.conftest import Stand, eventually

RUN = "0198a000-0000-7000-8000-000000000009"


async def added(client: httpx.AsyncClient, agent: str = "bot", **more: Any) -> dict[str, Any]:
    answer = await client.post("/api/v1/agents", json={"agent": agent, **more})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def by(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def opened(client: httpx.AsyncClient, **more: Any) -> httpx.Response:
    return await client.post("/api/v1/sessions", json={"kind": "sdk", "agents": ["bot"], **more})


async def test_a_key_is_told_once_kept_as_a_hash_and_written_to_the_audit(stand: Stand) -> None:
    async with stand.client() as client:
        made = await added(client, owner="ann", room="refunds")
        again = await client.post("/api/v1/agents", json={"agent": "bot"})
        shown = (await client.get("/api/v1/agents/bot")).json()
        listed = (await client.get("/api/v1/agents")).json()
    (entry,) = await (await stand.control_bus.bucket(subjects.BUCKET_AGENTS)).entries()
    record = decode(entry.value or b"", AgentRecord)
    assert made["key"].startswith("cra_")
    assert made["key"].encode() not in (entry.value or b"")
    assert record.keys[0].digest == digest_of(made["key"])
    assert again.status_code == 409
    assert shown["key"] == ""
    assert shown["keys"][0]["prefix"] == record.keys[0].digest[:12]
    assert [(a["agent"], a["runs"], a["identity"]["owner"]) for a in listed] == [("bot", 0, "ann")]
    assert await stand.control_bus.last_position("AUDIT") == 1


async def test_an_agents_key_opens_its_own_sessions_and_nothing_else(stand: Stand) -> None:
    async with stand.client() as client:
        key = (await added(client, room="refunds", environment="staging"))["key"]
        await added(client, "other")
    place = {"room": "refunds", "environment": "staging"}
    async with stand.client(headers=by(key)) as agent:
        good = await opened(agent, environment="staging")
        refused = {
            "another's": await opened(agent, **place, agents=["other"]),
            "another's beside": await opened(agent, **place, agents=["bot", "other"]),
            "a gateway": await opened(agent, **place, kind="gateway"),
            "another room": await opened(agent, room="x", environment="staging"),
            "another environment": await opened(agent, room="refunds", environment="production"),
            "no environment": await opened(agent, room="refunds"),
            "a pact": await opened(agent, **place, pacts={"bot": "pact: bot\n"}),
            "runs": await agent.get("/api/v1/runs"),
            "agents": await agent.get("/api/v1/agents"),
            "itself": await agent.get("/api/v1/agents/bot"),
            "a key": await agent.post("/api/v1/agents/bot/keys", json={}),
            "a command": await agent.post("/api/v1/commands", json={}),
        }
    codes = {name: answer.status_code for name, answer in refused.items()}
    assert codes.pop("a gateway") == 400, "nobody opens one over the API"
    assert codes == dict.fromkeys(codes, 403)
    assert good.status_code == 201
    bucket = await stand.control_bus.bucket(subjects.BUCKET_SESSIONS)
    (entry,) = await bucket.entries()
    record = decode(entry.value or b"", SessionRecord)
    assert (record.agents, record.room, record.environment) == (["bot"], "refunds", "staging")
    assert record.by == f"agent:bot:{digest_of(key)[:12]}"


async def test_nobody_takes_over_a_session_that_another_key_has_opened(stand: Stand) -> None:
    async with stand.client() as client:
        first = (await added(client))["key"]
        second = (await client.post("/api/v1/agents/bot/keys", json={"label": "new"})).json()
        theirs = (await opened(client)).json()["session"]
        async with stand.client(headers=by(first)) as agent:
            own = (await opened(agent)).json()["session"]
            renewed = await opened(agent, session=own)
            taken = await opened(agent, session=theirs)
        async with stand.client(headers=by(second["key"])) as agent:
            also = await opened(agent, session=own)
        back = await opened(client, session=own)
    assert renewed.status_code == 201
    assert (taken.status_code, also.status_code, back.status_code) == (403, 403, 403)


async def test_a_revoked_agent_is_let_in_nowhere_until_it_is_added_anew(stand: Stand) -> None:
    async with stand.client() as client:
        key = (await added(client))["key"]
        answer = (await client.delete("/api/v1/agents/bot")).json()
        async with stand.client(headers=by(key)) as agent:
            shut = await opened(agent)
        alone, beside = await opened(client), await opened(client, agents=["bot", "other"])
        more = await client.post("/api/v1/agents/bot/keys", json={})
        nobody = await client.delete("/api/v1/agents/nobody")
        back = await added(client)
        async with stand.client(headers=by(back["key"])) as agent:
            again = await opened(agent)
        async with stand.client(headers=by(key)) as agent:
            old = await opened(agent)
    assert answer["revoked_at"] > 0
    assert (shut.status_code, alone.status_code, more.status_code) == (401, 403, 404)
    assert nobody.status_code == 404
    bucket = await stand.control_bus.bucket(subjects.BUCKET_SESSIONS)
    entry = await bucket.get(beside.json()["session"])
    assert entry is not None
    assert decode(entry.value or b"", SessionRecord).agents == ["other"]
    assert (again.status_code, old.status_code) == (201, 401)


async def test_one_key_is_taken_back_and_the_other_goes_on(stand: Stand) -> None:
    async with stand.client() as client:
        first = (await added(client))["key"]
        second = (await client.post("/api/v1/agents/bot/keys", json={})).json()["key"]
        gone = await client.delete(f"/api/v1/agents/bot/keys/{digest_of(first)[:12]}")
        unknown = await client.delete("/api/v1/agents/bot/keys/abcdef")
        short = await client.delete("/api/v1/agents/bot/keys/a")
        codes = []
        for key in (first, second):
            async with stand.client(headers=by(key)) as agent:
                codes.append((await opened(agent)).status_code)
    assert [each["prefix"] for each in gone.json()["keys"]] == [digest_of(second)[:12]]
    assert (unknown.status_code, short.status_code) == (404, 400)
    assert codes == [401, 201]


async def test_a_key_made_elsewhere_is_known_here_in_a_moment(stand: Stand) -> None:
    from checkrein.server.api.agents import Agents
    from checkrein.world import REAL

    elsewhere = Agents(REAL, stand.control_server.connect())
    await elsewhere.open()
    _, key = await elsewhere.add(AgentRecord(agent="bot"), "ann")

    async def known() -> bool:
        async with stand.client(headers=by(key)) as agent:
            return (await opened(agent)).status_code == 201

    await eventually(known)
    await elsewhere.revoke("bot", "ann")

    async def unknown() -> bool:
        async with stand.client(headers=by(key)) as agent:
            return (await opened(agent)).status_code == 401

    await eventually(unknown)


@pytest.mark.parametrize(
    "body",
    [
        {"agent": ""}, {"agent": "a\nb"}, {"agent": "a" * 300}, {"agent": "a", "owner": "\x1b[2J"},
        {"agent": "a", "subjects": ["no-issuer"]}, {"agent": "a", "subjects": ["https://i "]},
        {"agent": "a", "subjects": ["https://i s"] * 40}, {"agent": "a", "admin": True},
    ],
)  # fmt: skip
async def test_what_cannot_be_an_agent(stand: Stand, body: dict[str, Any]) -> None:
    async with stand.client() as client:
        assert (await client.post("/api/v1/agents", json=body)).status_code == 400


# -- the keys of runs ---------------------------------------------------------------------------


async def token_for(client: httpx.AsyncClient, session: str, **more: Any) -> httpx.Response:
    body = {"run_id": RUN, "session": session, "pid": 7, "user": "ann", **more}
    return await client.post("/api/v1/run-tokens", json=body)


async def test_a_runs_key_is_made_attested_and_renewed_in_place(stand: Stand) -> None:
    async with stand.client() as client:
        session = (await opened(client, kind="supervisor", room="refunds")).json()["session"]
        made = (await token_for(client, session, task_id="t")).json()
        renewed = (await token_for(client, session, token=made["token"])).json()
        tokens = await (await stand.control_bus.bucket(subjects.BUCKET_RUN_TOKENS)).entries()
        revoked = (await client.delete(f"/api/v1/run-tokens/{RUN}")).json()
        gone = await token_for(client, session, token=made["token"])
    assert made["token"].startswith("crr_")
    assert renewed["token"] == made["token"]
    assert renewed["expires_at"] > made["expires_at"]
    record = decode(tokens[0].value or b"", RunToken)
    assert tokens[0].key == digest_of(made["token"])
    assert record.expires_at == renewed["expires_at"]
    assert (record.agent, record.room, record.pid, record.user) == ("bot", "refunds", 7, "ann")
    assert revoked == {"revoked": 1}
    assert gone.status_code == 404
    assert gone.json()["error"] == "unknown_key"


async def test_a_runs_key_is_given_to_the_runs_holder_only(stand: Stand) -> None:
    async with stand.client() as client:
        key = (await added(client))["key"]
        theirs = (await opened(client, kind="supervisor", agents=["bot", "other"])).json()
        gateway = SessionRecord(
            session="gateway-1", kind="gateway", agents=["bot"], user="U", expires_at=2**62
        )
        sessions = await stand.control_bus.bucket(subjects.BUCKET_SESSIONS)
        await sessions.put("gateway-1", encode(gateway))
        async with stand.client(headers=by(key)) as agent:
            own = (await opened(agent)).json()["session"]
            good = await token_for(agent, own)
            answers = {
                "another's session": await token_for(agent, theirs["session"], agent="bot"),
                "another agent": await token_for(agent, own, agent="other"),
                "no such session": await token_for(agent, "no-such-session"),
                "a session's name": await token_for(agent, "a.>"),
            }
        answers["a gateway's"] = await token_for(client, "gateway-1")
        answers["which agent"] = await token_for(client, theirs["session"])
        answers["no run"] = await token_for(client, own, run_id="*")
        held = RunRecord(
            run_id=RUN, task_id="t", agent="bot", room="", environment="", session="another",
            holder="sdk", started_at=1,
        )  # fmt: skip
        await (await stand.control_bus.bucket(subjects.BUCKET_RUNS)).put(RUN, encode(held))
        answers["another's run"] = await token_for(client, own)
        await client.delete("/api/v1/agents/bot")
        left = await (await stand.control_bus.bucket(subjects.BUCKET_RUN_TOKENS)).entries()
    assert good.status_code == 201
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "another's session": 403, "another agent": 403, "no such session": 404,
        "a session's name": 404, "a gateway's": 404, "which agent": 403, "no run": 403,
        "another's run": 403,
    }  # fmt: skip
    assert left == []


async def test_expired_keys_of_runs_are_swept(stand: Stand) -> None:
    bucket = await stand.control_bus.bucket(subjects.BUCKET_RUN_TOKENS)
    old = RunToken(
        run_id="r", task_id="", agent="bot", room="", environment="", session="s", expires_at=1
    )
    await bucket.put("0" * 64, encode(old))
    async with stand.client() as client:
        session = (await opened(client)).json()["session"]
        token = (await token_for(client, session)).json()["token"]

    async def only_the_new() -> bool:
        return await bucket.keys() == [digest_of(token)]

    await eventually(only_the_new)


# -- what a revocation ends ---------------------------------------------------------------------


async def test_a_revocation_ends_the_sessions_that_are_meant(stand: Stand) -> None:
    async with stand.client() as client:
        first = (await added(client))["key"]
        second = (await client.post("/api/v1/agents/bot/keys", json={})).json()["key"]
        async with stand.client(headers=by(first)) as agent:
            one = (await opened(agent)).json()["session"]
        async with stand.client(headers=by(second)) as agent:
            two = (await opened(agent)).json()["session"]
        both = (await opened(client, agents=["bot", "other"])).json()["session"]
        apart = (await opened(client, agents=["other"])).json()["session"]
        sessions = await stand.control_bus.bucket(subjects.BUCKET_SESSIONS)
        user = decode((await sessions.get(one)).value, SessionRecord).user  # type: ignore[union-attr,arg-type] # it is there
        key_gone = (await client.delete(f"/api/v1/agents/bot/keys/{digest_of(first)[:12]}")).json()
        after_key = set(await sessions.keys())
        all_gone = (await client.delete("/api/v1/agents/bot")).json()
        after_all = set(await sessions.keys())
    void = await (await stand.control_bus.bucket(subjects.BUCKET_REVOCATIONS)).keys()
    assert (key_gone["cut"], after_key) == (1, {two, both, apart})
    assert (all_gone["cut"], after_all) == (2, {apart})
    assert user in void
    assert len(void) == 3
    assert sorted(all_gone["pending"]) == ["control", "events"], "there are no such servers here"


async def test_no_credential_of_a_session_is_forgotten(stand: Stand) -> None:
    """Neither one of before, when the agent is no longer named, nor one of many renewals, nor one
    of two at once."""
    async with stand.client() as client:
        await added(client)
        sessions = await stand.control_bus.bucket(subjects.BUCKET_SESSIONS)
        name = (await opened(client, agents=["bot", "other"])).json()["session"]
        users = set()

        async def user() -> str:
            entry = await sessions.get(name)
            assert entry is not None
            return decode(entry.value or b"", SessionRecord).user

        users.add(await user())
        for _ in range(12):
            await opened(client, agents=["other"], session=name)
            users.add(await user())
        answers = await asyncio.gather(
            *(opened(client, agents=["other"], session=name) for _ in range(3))
        )
        cut = (await client.delete("/api/v1/agents/bot")).json()["cut"]
    void = set(await (await stand.control_bus.bucket(subjects.BUCKET_REVOCATIONS)).keys())
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert cut == 1
    assert users <= void
    assert len(void) == 16
