"""Learned flow profiles over the API: brought with the pact, shown, reset."""

import asyncio
from typing import Any

import pytest

from checkrein.bus import subjects
from checkrein.bus.messages import decode, encode
from checkrein.bus.profiles import LearnedProfile, unpacked
from checkrein.policy.flow.profile import WHOLE, Lesson, Profile, learn
from checkrein.server.api import pact_profiles
from tests.server.api.conftest import Stand
from tests.server.api.test_pacts import holder, push

LEARNED = "pact: bot\nflow: [learned]\n"
PLAIN = "pact: bot\ntools: {a: {kind: read}}\n"
EDGE = "read_mail > pay.to"


async def write(stand: Stand, runs: int, revision: int, agent: str = "bot") -> None:
    """As watch does."""
    profile = Profile(types={})
    for _ in range(runs):
        lesson = Lesson(sinks={"pay"}, edges={EDGE}, values={"pay.to": {"k"}})
        learn(profile, "bills", lesson)
    kept = LearnedProfile(
        agent=agent, environment="development", profile=profile, revision=revision, position=7
    )
    bucket = await stand.control_bus.bucket(subjects.BUCKET_PROFILES)
    await bucket.put(f"{agent}.development", encode(kept))


async def test_a_profile_comes_with_the_pact_under_a_newer_revision(stand: Stand) -> None:
    async with stand.client() as client, holder(stand, client, "bot") as it:
        await push(client, "bot", LEARNED)
        before = await it.next()
        await write(stand, 3, 100)
        found = await it.next()
        await it.say()
        line = (await client.get("/api/v1/pacts/bot")).json()
        async with holder(stand, client, "bot") as later:
            await later.say()
    assert (before.profile, found.revision) == (b"", before.revision + 100)
    assert found.enforced == before.enforced
    assert unpacked(found.profile).of("bills").edges == {EDGE: 3}
    assert (line["current"], line["revision"]) == (1, found.revision)
    assert later.got == [found]


async def test_what_lives_by_the_default_has_a_profile_of_its_own(stand: Stand) -> None:
    async with stand.client() as client, holder(stand, client, "bot") as it:
        await push(client, "default", LEARNED)
        await it.next()
        await write(stand, 2, 100)
        found = await it.next()
    assert unpacked(found.profile).of(WHOLE).runs == 2


async def test_a_pact_without_the_rule_brings_none_and_is_newer_still(stand: Stand) -> None:
    async with stand.client() as client, holder(stand, client, "bot") as it:
        await push(client, "bot", LEARNED)
        await it.next()
        await write(stand, 3, 100)
        found = await it.next()
        await push(client, "bot", PLAIN)
        plain = await it.next()
    assert plain.revision > found.revision
    assert (plain.profile, plain.enforced[0].text) == (b"", PLAIN)


async def test_changes_are_brought_so_often_only(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stand.client() as client, holder(stand, client, "bot") as it:
        await push(client, "bot", LEARNED)
        await it.next()
        monkeypatch.setattr(pact_profiles, "BRING_EVERY_S", 1.0)
        await write(stand, 1, 100)
        await it.next()
        begun = asyncio.get_running_loop().time()
        for number in range(2, 6):
            await write(stand, number, 100 + number)
        found = await it.next()
        took_s = asyncio.get_running_loop().time() - begun
    assert unpacked(found.profile).of("bills").runs == 5
    assert len([each for each in it.got if each.profile]) == 2
    assert took_s > 0.4


async def test_a_profile_is_shown_and_reset_and_that_is_audited(stand: Stand) -> None:
    path = "/api/v1/pacts/bot/profile"
    async with stand.client() as client, holder(stand, client, "bot") as it:
        await push(client, "bot", LEARNED)
        await it.next()
        assert (await client.get(path)).status_code == 404
        assert (await client.delete(path)).status_code == 404
        await write(stand, 20, 100)
        learned = await it.next()
        shown = (await client.get(path)).json()
        reset = await client.delete(path)
        empty = await it.next()
    bills: dict[str, Any] = shown["types"]["bills"]
    assert (bills["runs"], bills["mature"], bills["edges"]) == (20, True, {EDGE: 20})
    assert bills["values"]["pay.to"] == {"uses": 20, "different": 1, "open": False}
    assert (reset.status_code, reset.json()["types"]) == (200, {})
    assert empty.revision > learned.revision
    assert unpacked(empty.profile) == Profile(types={})
    bucket = await stand.control_bus.bucket(subjects.BUCKET_PROFILES)
    entry = await bucket.get("bot.development")
    assert entry is not None
    assert decode(entry.value or b"", LearnedProfile).position == 7
    stream = stand.control_server.streams["AUDIT"].messages.values()
    (line,) = [decode(each.data, dict) for each in stream if each.subject == "audit.profile"]
    assert (line["verb"], line["agent"], line["by"], line["runs"]) == (
        "reset", "bot", "operator", 20,
    )  # fmt: skip


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("approver", 200)])
async def test_who_may_reset(stand: Stand, role: str, status: int) -> None:
    async with stand.client() as client, holder(stand, client, "bot") as it:
        await push(client, "bot", LEARNED)
        await it.next()
        await write(stand, 1, 100)
        await it.next()
        made = await client.post("/api/v1/tokens", json={"name": "ann", "role": role})
        bearer = {"Authorization": f"Bearer {made.json()['token']}"}
        answer = await client.delete("/api/v1/pacts/bot/profile", headers=bearer)
        seen = await client.get("/api/v1/pacts/bot/profile", headers=bearer)
    assert (answer.status_code, seen.status_code) == (status, 200)
