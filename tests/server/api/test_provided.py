"""Tokens of an identity provider at the api: agents and people, and who is neither."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from checkrein.bus import subjects
from checkrein.bus.messages import SessionRecord, decode
from tests.issuer import Issuer, running_issuer
from tests.server.api.conftest import Stand, running


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer() as made:
        yield made


@pytest.fixture
async def believing(tmp_path: Path, issuer: Issuer) -> AsyncIterator[Stand]:
    """The api role, which believes the issuer."""
    made = Stand(tmp_path)
    one = {
        "name": "corp", "issuer": issuer.url, "audience": ["checkrein"],
        "agent_claim": "client_id", "roles_claim": "roles",
        "roles": {"sre": "operator", "lawyer": "auditor", "desk": "approver", "dev": "author"},
    }  # fmt: skip
    made.config = {"identity": {"issuers": [one]}}
    await made.archive.start()
    await made.control.start()
    async with running(made):
        yield made
    for bus in (made.archive.bus, made.control.bus, made.bus, made.control_bus):
        await bus.close()


def by(stand: Stand, token: str) -> httpx.AsyncClient:
    return stand.client(headers={"Authorization": f"Bearer {token}"})


async def opened(stand: Stand, token: str, **more: Any) -> httpx.Response:
    async with by(stand, token) as client:
        return await client.post(
            "/api/v1/sessions", json={"kind": "sdk", "agents": ["bot"], **more}
        )


async def test_a_person_comes_in_with_the_roles_the_provider_gives(
    believing: Stand, issuer: Issuer
) -> None:
    command = {"verb": "pause", "target": "all", "reason": "look", "wait_ms": 0}
    async with by(believing, issuer.token(sub="ann", roles=["sre"])) as ann:
        done = await ann.post("/api/v1/commands", json=command)
        token = await ann.post("/api/v1/tokens", json={"name": "x", "role": "viewer"})
    async with by(believing, issuer.token(sub="bea", roles=["lawyer", "dev"])) as bea:
        read = await bea.get("/api/v1/runs")
        pushed = await bea.put("/api/v1/pacts/a", json={"text": "pact: a\n"})
        ordered = await bea.post("/api/v1/commands", json=command)
    assert (done.status_code, token.status_code) == (200, 403)
    assert believing.control.commands[-1].issued_by == "corp:ann"
    assert (read.status_code, pushed.status_code, ordered.status_code) == (200, 200, 403)
    assert pushed.json()["author"] == "corp:bea"


async def test_a_workload_is_the_agent_that_its_principal_was_added_as(
    believing: Stand, issuer: Issuer
) -> None:
    async with believing.client() as client:
        await client.post(
            "/api/v1/agents", json={"agent": "bot", "subjects": [f"{issuer.url} svc-1"]}
        )
        await client.post("/api/v1/agents", json={"agent": "named"})
        taken = await client.post(
            "/api/v1/agents", json={"agent": "thief", "subjects": [f"{issuer.url} svc-1"]}
        )
    good = await opened(believing, issuer.token())
    claimed = await opened(believing, issuer.token(sub="x", client_id="named"), agents=["named"])
    answers = {
        "another's": await opened(believing, issuer.token(), agents=["named"]),
        "nobody": await opened(believing, issuer.token(sub="svc-2")),
        "not added": await opened(believing, issuer.token(sub="svc-2", client_id="bot2")),
        "expired": await opened(believing, issuer.token(exp=1)),
        "another audience": await opened(believing, issuer.token(aud="them")),
    }
    async with by(believing, issuer.token(roles=["sre"])) as agent:
        read = await agent.get("/api/v1/runs")
    sessions = await believing.control_bus.bucket(subjects.BUCKET_SESSIONS)
    entry = await sessions.get(good.json()["session"])
    assert taken.status_code == 409
    assert entry is not None
    assert decode(entry.value or b"", SessionRecord).by == "agent:bot:"
    assert claimed.status_code == 201
    assert read.status_code == 403, "an agent is no person, whatever roles its token has"
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "another's": 403, "nobody": 401, "not added": 401, "expired": 401, "another audience": 401,
    }  # fmt: skip
    assert "expired" in answers["expired"].json()["detail"]


async def test_a_revoked_agents_token_is_refused_though_it_is_good(
    believing: Stand, issuer: Issuer
) -> None:
    async with believing.client() as client:
        await client.post(
            "/api/v1/agents", json={"agent": "bot", "subjects": [f"{issuer.url} svc-1"]}
        )
        assert (await opened(believing, issuer.token())).status_code == 201
        gone = (await client.delete("/api/v1/agents/bot")).json()
    assert gone["cut"] == 1
    for token in (issuer.token(), issuer.token(client_id="bot", roles=["sre"])):
        answer = await opened(believing, token)
        assert (answer.status_code, answer.json()["error"]) == (401, "revoked")
    async with believing.client() as client:
        body = {"agent": "bot2", "subjects": [f"{issuer.url} svc-1"]}
        assert (await client.post("/api/v1/agents", json=body)).status_code == 201
    assert (await opened(believing, issuer.token(), agents=["bot2"])).status_code == 201
