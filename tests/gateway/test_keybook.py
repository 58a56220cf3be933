"""Whose key it is: known, expired, taken back, younger than its news; who is shut out."""

import asyncio
from typing import Any

import pytest

from checkrein.bus import subjects
from checkrein.bus.identities import AgentKey, AgentRecord, Contained, RunToken, digest_of
from checkrein.bus.memory import MemoryServer
from checkrein.bus.messages import encode
from checkrein.bus.types import Bus
from checkrein.gateway.keybook import KeyBook, key_of, no_secrets
from checkrein.gateway.types import Caller, Refusal
from checkrein.world import REAL

AGENT_KEY = "cra_" + "a" * 64
RUN_KEY = "crr_" + "b" * 64
MINUTE_NS = 60 * 10**9


class Book:
    def __init__(self) -> None:
        self.bus: Bus = MemoryServer().connect()
        self.told: list[tuple[str, bool]] = []
        self.keys = KeyBook(REAL, lambda agent, record: self.told.append((agent, bool(record))))

    async def put(self, bucket: str, key: str, value: Any) -> None:
        await (await self.bus.bucket(bucket)).put(key, encode(value))

    async def agent(self, name: str, *keys: str, revoked_at: int = 0, subject: str = "") -> None:
        found = [AgentKey(digest=digest_of(key), created_at=1) for key in keys]
        record = AgentRecord(
            agent=name, keys=found, revoked_at=revoked_at, room="r",
            subjects=[subject] if subject else [],
        )  # fmt: skip
        await self.put(subjects.BUCKET_AGENTS, subjects.token(name), record)

    async def run_key(self, key: str, agent: str = "bot", left_ns: int = MINUTE_NS) -> None:
        record = RunToken(
            run_id="run-1", task_id="t" * 32, agent=agent, room="r", environment="staging",
            session="s", expires_at=REAL.now_ns() + left_ns,
        )  # fmt: skip
        await self.put(subjects.BUCKET_RUN_TOKENS, digest_of(key), record)

    async def refused(self, key: str) -> Refusal:
        with pytest.raises(Refusal) as refused:
            await self.keys.caller_of({"authorization": f"Bearer {key}"})
        assert refused.value.status == 401
        return refused.value


@pytest.fixture
async def book() -> Book:
    book = Book()
    await book.agent("bot", AGENT_KEY)
    await book.run_key(RUN_KEY)
    await book.keys.open(book.bus)
    return book


async def test_an_agents_key_is_the_agent(book: Book) -> None:
    caller = await book.keys.caller_of({"x-api-key": AGENT_KEY})
    assert (caller.agent, caller.room, caller.run_id) == ("bot", "r", "")
    assert AGENT_KEY not in repr(caller)


async def test_a_runs_key_is_the_run_and_its_place(book: Book) -> None:
    caller = await book.keys.caller_of({"authorization": f"Bearer {RUN_KEY}"})
    assert (caller.agent, caller.run_id, caller.environment) == ("bot", "run-1", "staging")


@pytest.mark.parametrize("key", ["", "sk-something", "cra_" + "c" * 64, "crr_" + "c" * 64])
async def test_other_keys_are_nobodys(book: Book, key: str) -> None:
    refusal = await book.refused(key)
    assert key == "" or key not in refusal.text


async def test_a_key_that_has_expired_and_was_renewed(book: Book) -> None:
    key = "crr_" + "d" * 64
    await book.run_key(key, left_ns=-1)
    assert "expired" in (await book.refused(key)).text
    await book.run_key(key)
    follow = asyncio.ensure_future(book.keys.follow())
    try:
        for _ in range(200):
            await asyncio.sleep(0.005)
            try:
                assert (await book.keys.caller_of({"x-api-key": key})).run_id == "run-1"
                break
            except Refusal:
                continue
        else:
            raise AssertionError("the renewal was not heard of")
    finally:
        follow.cancel()


async def test_a_key_younger_than_its_news_is_looked_up_once(book: Book) -> None:
    key = "crr_" + "e" * 64
    await book.run_key(key)
    assert (await book.keys.caller_of({"x-api-key": key})).agent == "bot"
    late = "crr_" + "f" * 64
    await book.refused(late)
    await book.run_key(late)
    await book.refused(late)  # asked for once; from then on the news tells


async def test_a_revoked_agent_and_its_runs_are_let_in_no_more(book: Book) -> None:
    await book.agent("bot", AGENT_KEY, revoked_at=5)
    fresh = KeyBook(REAL, lambda agent, record: None)
    await fresh.open(book.bus)
    book.keys = fresh
    await book.refused(AGENT_KEY)
    assert "revoked" in (await book.refused(RUN_KEY)).text


async def test_who_is_shut_out_is_told_at_once_and_when_let_in_again(book: Book) -> None:
    follow = asyncio.ensure_future(book.keys.follow())
    try:
        bucket = await book.bus.bucket(subjects.BUCKET_CONTAINED)
        record = Contained(agent="bot", reason="why", issued_by="ann", at=1)
        await bucket.put(subjects.token("bot"), encode(record))
        await _until(lambda: "bot" in book.keys.contained)
        await bucket.delete(subjects.token("bot"))
        await _until(lambda: "bot" not in book.keys.contained)
        assert ("bot", True) in book.told
        assert book.told[-1] == ("bot", False)
    finally:
        follow.cancel()


async def test_what_is_deleted_before_the_book_is_followed_is_gone(book: Book) -> None:
    record = Contained(agent="bot", reason="why", issued_by="ann", at=1)
    await book.put(subjects.BUCKET_CONTAINED, subjects.token("bot"), record)
    book.keys = KeyBook(REAL, lambda agent, record: book.told.append((agent, bool(record))))
    await book.keys.open(book.bus)
    for bucket, key in (
        (subjects.BUCKET_CONTAINED, subjects.token("bot")),
        (subjects.BUCKET_RUN_TOKENS, digest_of(RUN_KEY)),
    ):
        await (await book.bus.bucket(bucket)).delete(key)
    follow = asyncio.ensure_future(book.keys.follow())
    try:
        await _until(lambda: "bot" not in book.keys.contained)
        await _until(lambda: not book.keys._runs_keys)
        assert book.told[-1] == ("bot", False)
        await book.refused(RUN_KEY)
        assert (await book.keys.caller_of({"x-api-key": AGENT_KEY})).agent == "bot"
    finally:
        follow.cancel()


async def test_an_identity_providers_token_is_for_whoever_verifies_it() -> None:
    book = Book()
    known = Caller(agent="cloud-bot", key="jwt")

    async def verify(token: str) -> Caller | None:
        return known if token == "a.b.c" else None

    book.keys = KeyBook(REAL, lambda agent, record: None, verify)
    await book.keys.open(book.bus)
    assert await book.keys.caller_of({"authorization": "Bearer a.b.c"}) is known
    await book.refused("a.b.d")


async def test_a_record_that_cannot_be_read_opens_nothing(book: Book) -> None:
    bucket = await book.bus.bucket(subjects.BUCKET_AGENTS)
    await bucket.put(subjects.token("bot"), b"\xc1 garbage")
    fresh = KeyBook(REAL, lambda agent, record: None)
    await fresh.open(book.bus)
    book.keys = fresh
    await book.refused(AGENT_KEY)


def test_keys_are_found_as_clients_send_them_and_never_written_down() -> None:
    assert key_of({"authorization": "Bearer k"}) == "k"
    assert key_of({"authorization": "k"}) == "k"
    assert key_of({"api-key": " k "}) == "k"
    assert key_of({"other": "k"}) == ""
    assert no_secrets({"authorization": "Bearer k", "x-api-key": "k", "a": "b"}) == {"a": "b"}


async def _until(condition: Any) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("not within the time")


async def test_what_cannot_be_read_of_who_is_shut_out_lets_nobody_in(book: Book) -> None:
    for name in (subjects.BUCKET_CONTAINED, subjects.BUCKET_HALTED):
        await (await book.bus.bucket(name)).put(subjects.token("bot"), b"\xc1 garbage")
    keys = KeyBook(REAL, lambda agent, record: book.told.append((agent, bool(record))))
    await keys.open(book.bus)
    assert book.told == [("bot", True)]
    assert keys.contained["bot"].reason
    assert keys.halted[subjects.token("bot")].reason


async def test_a_flood_of_unknown_keys_reads_the_agents_twice(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, readings = book.keys._buckets[subjects.BUCKET_AGENTS], 0
    entries = bucket.entries

    async def counted() -> Any:
        nonlocal readings
        readings += 1
        await asyncio.sleep(0)
        return await entries()

    monkeypatch.setattr(bucket, "entries", counted)
    await asyncio.gather(*(book.refused(f"cra_{number:064}") for number in range(200)))
    assert readings == 2  # the first asks alone, the others share the next
    await book.agent("late", "cra_" + "c" * 64)
    caller = await book.keys.caller_of({"x-api-key": "cra_" + "c" * 64})
    assert (caller.agent, readings) == ("late", 3)


def test_two_keys_that_disagree_are_no_key() -> None:
    with pytest.raises(Refusal, match="two keys"):
        key_of({"authorization": f"Bearer {AGENT_KEY}", "x-api-key": RUN_KEY})
    assert key_of({"authorization": f"Bearer {AGENT_KEY}", "x-api-key": AGENT_KEY}) == AGENT_KEY
    assert key_of({"authorization": f"Bearer {AGENT_KEY}", "api-key": "unused"}) == AGENT_KEY
