"""Who the sessions are, for the roles that must know: the bucket `sessions`, in memory.

Followed while the role works. Bounded by the bucket, from which the api removes what has expired.
"""

import logging
from contextlib import suppress

from checkrein.bus import subjects
from checkrein.bus.messages import MessageError, SessionRecord, decode
from checkrein.bus.types import Bucket, Bus, BusError, Entry
from checkrein.world import World

_log = logging.getLogger(__name__)

RETRY_S = 0.5
LOOK_EVERY_S = 1.0
LOOKED_MAX = 1_000


class Sessions:
    """`known`: every session by its name, a moment behind the bucket at most."""

    def __init__(self, bus: Bus, bucket: Bucket, world: World) -> None:
        self._bus, self._bucket, self._world = bus, bucket, world
        self._by_user: dict[str, str] = {}
        self._looked: dict[str, int] = {}
        self.known: dict[str, SessionRecord] = {}

    @classmethod
    async def open(cls, bus: Bus, world: World) -> "Sessions":
        """Reads all there are. Raises BusError."""
        sessions = cls(bus, await bus.bucket(subjects.BUCKET_SESSIONS), world)
        await sessions.read_all()
        return sessions

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            with suppress(BusError):
                async for entry in self._bucket.watch():
                    self._take(entry)
            await self._world.sleep(RETRY_S)

    async def look(self, session: str) -> None:
        """Reads one session directly, in case its news has not come yet; each at most once a
        second. What cannot be read stays as it was."""
        now = self._world.monotonic_ns()
        if now - self._looked.get(session, -(10**12)) < LOOK_EVERY_S * 1e9:
            return
        self._looked[session] = now
        if len(self._looked) > LOOKED_MAX:
            del self._looked[next(iter(self._looked))]
        try:
            entry = await self._bus.last_value(subjects.BUCKET_SESSIONS, session)
        except BusError as error:
            _log.warning("session %s cannot be looked up: %s", session, error)
            return
        if entry is not None:
            self._take(entry)

    async def read_all(self) -> None:
        """Raises BusError."""
        entries = await self._bucket.entries()
        for gone in self.known.keys() - {entry.key for entry in entries}:
            self._take(Entry(gone, None, 0))
        for entry in entries:
            self._take(entry)

    def of_user(self, user: str) -> SessionRecord | None:
        """The session that a user's public key was made for."""
        return self.known.get(self._by_user.get(user, ""))

    def _take(self, entry: Entry) -> None:
        before = self.known.pop(entry.key, None)
        if before is not None:
            for user in (before.user, *before.earlier):
                self._by_user.pop(user, None)
        if not entry.value:
            return
        try:
            record = decode(entry.value, SessionRecord)
        except MessageError as error:
            _log.warning("session %s is passed over: %s", entry.key, error)
            return
        self.known[entry.key] = record
        for user in (record.user, *record.earlier):
            self._by_user[user] = entry.key
