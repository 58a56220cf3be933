"""Tokens of an identity provider at the gateway, and agents that are revoked while they call."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from checkrein.bus import subjects
from checkrein.bus.identities import RUN_KEY, AgentRecord, RunToken, digest_of
from checkrein.bus.memory import MemoryServer
from checkrein.bus.messages import encode
from checkrein.bus.oidc import Verifier
from checkrein.bus.oidc_settings import settings_of
from checkrein.gateway import provided
from checkrein.gateway.keybook import KeyBook
from checkrein.gateway.types import Caller, Refusal
from checkrein.world import REAL
from tests.conftest import within
from tests.issuer import Issuer, running_issuer


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer() as made:
        yield made


class Door:
    """A key book that believes the issuer."""

    def __init__(self, issuer: Issuer) -> None:
        one = {"name": "corp", "issuer": issuer.url, "audience": ["checkrein"],
               "agent_claim": "client_id"}  # fmt: skip
        verifier = Verifier(settings_of({"identity": {"issuers": [one]}}), REAL)
        self.bus = MemoryServer().connect()
        self.revoked: list[str] = []

        async def verify(token: str) -> Caller | None:
            return await provided.caller_of(verifier, self.keys, token)

        self.keys = KeyBook(REAL, lambda agent, record: None, verify, self.revoked.append)

    async def add(self, record: AgentRecord) -> None:
        bucket = await self.bus.bucket(subjects.BUCKET_AGENTS)
        await bucket.put(subjects.token(record.agent), encode(record))

    async def come(self, token: str) -> Caller:
        return await self.keys.caller_of({"authorization": f"Bearer {token}"})


async def refused(door: Door, token: str) -> str:
    with pytest.raises(Refusal) as caught:
        await door.come(token)
    assert caught.value.status == 401
    return caught.value.reason


async def test_a_workloads_token_is_its_agent(issuer: Issuer) -> None:
    door = Door(issuer)
    await door.add(AgentRecord(agent="a bot", room="r", subjects=[f"{issuer.url} svc-1"]))
    await door.add(AgentRecord(agent="named", environment="staging"))
    await door.add(AgentRecord(agent="gone", revoked_at=1, subjects=[f"{issuer.url} svc-9"]))
    await door.keys.open(door.bus)
    by_subject = await door.come(issuer.token())
    by_claim = await door.come(issuer.token(sub="x", client_id="named"))
    assert (by_subject.agent, by_subject.room, by_subject.run_id) == ("a bot", "r", "")
    assert (by_claim.agent, by_claim.environment) == ("named", "staging")
    assert "is no agent here" in await refused(door, issuer.token(sub="svc-2"))
    assert "is no agent here" in await refused(door, issuer.token(sub="svc-9"))
    assert "is no agent here" in await refused(door, issuer.token(sub="y", client_id="gone"))
    assert "expired" in await refused(door, issuer.token(exp=1))
    assert "no key of an agent" in await refused(door, issuer.token(iss="https://other"))


async def test_a_revoked_agents_runs_are_refused_and_told_of(issuer: Issuer) -> None:
    """Of a name that is no plain subject token, too."""
    door = Door(issuer)
    record = AgentRecord(agent="a bot")
    await door.add(record)
    key = RUN_KEY + "1" * 64
    token = RunToken(
        run_id="r1", task_id="t", agent="a bot", room="", environment="", session="s",
        expires_at=REAL.now_ns() + 10**12,
    )  # fmt: skip
    await (await door.bus.bucket(subjects.BUCKET_RUN_TOKENS)).put(digest_of(key), encode(token))
    await door.keys.open(door.bus)
    assert (await door.come(key)).run_id == "r1"
    async with asyncio.TaskGroup() as group:
        following = group.create_task(door.keys.follow())
        await door.add(AgentRecord(agent="a bot", revoked_at=1))
        await within(5, lambda: door.revoked)
        following.cancel()
    assert set(door.revoked) == {"a bot"}
    assert "was revoked" in await refused(door, key)
