"""Telling the bus servers what is void, until they have it."""

import asyncio
from collections.abc import Mapping

from checkrein.bus import subjects
from checkrein.bus.claims import Revocation
from checkrein.bus.memory import MemoryServer
from checkrein.bus.messages import SessionRecord, encode
from checkrein.bus.types import Unreachable
from checkrein.server.api import revoking
from checkrein.server.api.revoking import Revoking
from checkrein.world import REAL
from tests.conftest import within

SECOND = 1_000_000_000


class Servers:
    """What both servers were told last; `away` ones answer nothing."""

    def __init__(self) -> None:
        self.told: dict[str, dict[str, int]] = {}
        self.away: set[str] = set()
        self.tries = 0
        self.slow = asyncio.Event()
        self.slow.set()

    async def push(self, server: str, revocations: Mapping[str, int]) -> None:
        self.tries += 1
        await self.slow.wait()
        if server in self.away:
            raise Unreachable(f"{server} is away")
        self.told[server] = dict(revocations)


async def session(memory: MemoryServer, name: str, agent: str) -> None:
    record = SessionRecord(
        session=name, kind="sdk", agents=[agent], user=f"U{name}", earlier=[f"E{name}"],
        expires_at=REAL.now_ns() + 3600 * SECOND,
    )  # fmt: skip
    await (await memory.connect().bucket(subjects.BUCKET_SESSIONS)).put(name, encode(record))


async def test_every_credential_of_the_session_is_void_at_both_servers() -> None:
    memory, servers = MemoryServer(), Servers()
    await session(memory, "s1", "bot")
    await session(memory, "s2", "other")
    cut = await Revoking(REAL, memory.connect(), servers.push).cut("bot")
    assert (cut.sessions, cut.pending) == (1, [])
    assert servers.told["events"].keys() == servers.told["control"].keys() == {"Us1", "Es1"}


async def test_a_server_that_was_away_is_told_when_it_is_back(monkeypatch) -> None:  # type: ignore[no-untyped-def] # pytest's own
    monkeypatch.setattr(revoking, "RETRY_S", 0.01)
    memory, servers = MemoryServer(), Servers()
    servers.away.add("control")
    await session(memory, "s1", "bot")
    told = Revoking(REAL, memory.connect(), servers.push)
    async with asyncio.TaskGroup() as group:
        works = [group.create_task(told.work()), group.create_task(told.follow())]
        assert (await told.cut("bot")).pending == ["control"]
        assert "control" not in servers.told
        servers.away.clear()
        await within(5, lambda: servers.told.get("control", {}).keys() == {"Us1", "Es1"})
        for work in works:
            work.cancel()


async def test_another_process_tells_what_one_has_written_and_left() -> None:
    """The api process that revoked died before it told the servers."""
    memory, servers = MemoryServer(), Servers()
    told = Revoking(REAL, memory.connect(), servers.push)
    bucket = await memory.connect().bucket(subjects.BUCKET_REVOCATIONS)
    now = REAL.now_ns()
    live = Revocation(session="s1", agent="bot", at=now, expires_at=now + 60 * SECOND)
    over = Revocation(session="s0", agent="bot", at=now, expires_at=now - 1)
    async with asyncio.TaskGroup() as group:
        works = [group.create_task(told.work()), group.create_task(told.follow())]
        await bucket.put("Uover", encode(over))
        await bucket.put("Ulive", encode(live))
        await within(5, lambda: servers.told.get("events") == {"Ulive": now // SECOND})
        for work in works:
            work.cancel()
    assert await bucket.keys() == ["Ulive"], "what has ended by itself is forgotten"


async def test_what_was_read_earlier_never_lands_on_what_was_read_later() -> None:
    memory, servers = MemoryServer(), Servers()
    await session(memory, "s1", "bot")
    told = Revoking(REAL, memory.connect(), servers.push)
    servers.slow.clear()
    async with asyncio.TaskGroup() as group:
        told.again()
        work = group.create_task(told.work())
        await within(5, lambda: servers.tries == 2)
        cutting = group.create_task(told.cut("bot"))
        await asyncio.sleep(0.02)
        servers.slow.set()
        assert (await cutting).pending == []
        work.cancel()
    assert servers.told["events"].keys() == servers.told["control"].keys() == {"Us1", "Es1"}
