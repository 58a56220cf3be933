"""Ending the sessions of an agent that was revoked, or of one of its keys.

The level is the bucket `revocations`: whatever stands there is made void at both buses' servers, by
every api process, at its start, on every change, and whenever a bus is back; tried again until the
servers confirm. So a revocation outlives a crash at any moment.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from checkrein.bus import subjects
from checkrein.bus.claims import Revocation
from checkrein.bus.messages import MessageError, SessionRecord, decode, encode
from checkrein.bus.types import Bucket, Bus, BusError, Entry
from checkrein.world import World

RETRY_S = 1.0
SERVERS = ("events", "control")
_SECOND = 1_000_000_000
_log = logging.getLogger(__name__)

Push = Callable[[str, Mapping[str, int]], Awaitable[None]]
"""`push(server, revocations)`: in force at `events` or `control` when it returns. Raises
BusError."""


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """`sessions` were ended. `pending`: servers that have not confirmed yet; they are told until
    they do."""

    sessions: int
    pending: list[str]


class Revoking:
    def __init__(self, world: World, bus: Bus, push: Push) -> None:
        self._world, self._bus, self._push = world, bus, push
        self._stale = dict.fromkeys(SERVERS, True)
        self._news = asyncio.Event()
        self._said: set[str] = set()
        self._telling = asyncio.Lock()

    async def cut(self, agent: str, key: str = "") -> Cut:
        """Ends all sessions that speak for an agent; with `key` (the beginning of a key's digest),
        those that were opened with it. Their holders may ask for new ones, and get what is still
        theirs. Raises BusError when the sessions cannot be read."""
        sessions = await self._bus.bucket(subjects.BUCKET_SESSIONS)
        ended: list[Entry] = []
        for entry in await sessions.entries():
            record = _session(entry)
            if record is None or not _meant(record, agent, key):
                continue
            users = [record.user, *record.earlier]
            await self.void(record.session, users, record.expires_at, agent)
            ended.append(entry)
        self.again()
        pending = await self._tell()
        for entry in ended:
            now = await sessions.get(entry.key)
            if now is not None and now.revision == entry.revision:  # else it was renewed meanwhile
                await sessions.delete(entry.key)
        return Cut(sessions=len(ended), pending=pending)

    async def void(
        self, session: str, users: Sequence[str], expires_at: int, agent: str = ""
    ) -> None:
        """Takes these credentials back: `follow` hears of it, and the servers are told. Raises
        BusError."""
        bucket = await self._void()
        for user in users:
            one = Revocation(
                session=session, agent=agent, at=self._world.now_ns(), expires_at=expires_at
            )
            await bucket.put(user, encode(one))

    def again(self, connected: bool = True) -> None:
        """Something has changed, or a bus is back: tell the servers."""
        if connected:
            self._stale = dict.fromkeys(SERVERS, True)
            self._news.set()

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            try:
                void = await self._void()
                async for _ in void.watch():
                    self.again()
            except BusError as error:
                _log.warning("following the revocations: %s", error)
            await self._world.sleep(RETRY_S)

    async def work(self) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            if await self._tell():
                await self._world.sleep(RETRY_S)
                self._news.set()

    async def _tell(self) -> list[str]:
        """Tells the servers that do not have it yet; those that still do not, as far as there is
        anything that they must know. One at a time, so that what was read earlier never lands on
        what was read later."""
        async with self._telling:
            return await self._tell_all()

    async def _tell_all(self) -> list[str]:
        try:
            wanted = await self._wanted()
        except BusError as error:
            _log.warning("the revocations cannot be read: %s", error)
            return [server for server, stale in self._stale.items() if stale]
        stale = [server for server, old in self._stale.items() if old]
        left = await asyncio.gather(*(self._tell_one(server, wanted) for server in stale))
        return [server for server in left if server and wanted]

    async def _tell_one(self, server: str, wanted: Mapping[str, int]) -> str:
        """The server's name when it does not have it, else ""."""
        self._stale[server] = False
        try:
            await self._push(server, wanted)
        except BusError as error:
            self._stale[server] = True
            if server not in self._said:
                self._said.add(server)
                (_log.error if wanted else _log.info)(
                    "the %s server does not know what is revoked (%d): %s",
                    server, len(wanted), error,
                )  # fmt: skip
            return server
        self._said.discard(server)
        return ""

    async def _wanted(self) -> dict[str, int]:
        """By user; what has ended by itself is forgotten. Raises BusError."""
        void = await self._void()
        now = self._world.now_ns()
        found: dict[str, int] = {}
        for entry in await void.entries():
            one = _revocation(entry)
            if one is None or one.expires_at < now:
                await void.delete(entry.key)
            else:
                found[entry.key] = one.at // _SECOND
        return found

    async def _void(self) -> Bucket:
        return await self._bus.bucket(subjects.BUCKET_REVOCATIONS)


def _meant(record: SessionRecord, agent: str, key: str) -> bool:
    if key:
        return record.by == f"agent:{agent}:{key}"
    return agent in record.agents or agent in record.formerly


def _session(entry: Entry) -> SessionRecord | None:
    try:
        return decode(entry.value, SessionRecord) if entry.value else None
    except MessageError:
        return None


def _revocation(entry: Entry) -> Revocation | None:
    try:
        return decode(entry.value, Revocation) if entry.value else None
    except MessageError:
        return None
