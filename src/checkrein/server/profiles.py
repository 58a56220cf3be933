"""Flow profiles in the role `watch`: whose are learned, and how they are kept in the bucket
`profiles`.

One that has changed is written with compare-and-set, at most every ten seconds and when stopping.
It says up to where of the stream it knows, so that a part of the stream that is read again teaches
nothing twice; whoever is killed loses the lessons of the last ten seconds. What somebody else wrote
(a reset) holds, and what was learned meanwhile and not written yet goes with it.
"""

import logging
from collections.abc import Callable
from contextlib import suppress

from checkrein.analysis.live_profiles import Key, LiveProfiles, learned_in
from checkrein.bus import subjects
from checkrein.bus.messages import MessageError, decode, encode
from checkrein.bus.pacts import PactSet, PactText, place_of
from checkrein.bus.profiles import LearnedProfile, fitted
from checkrein.bus.types import Bucket, BusError, Entry, WrongRevision
from checkrein.policy.pact import PactError
from checkrein.policy.pact_chain import EVERYONE, read_chain
from checkrein.policy.types import Pact
from checkrein.world import World

_log = logging.getLogger(__name__)

WRITE_EVERY_S = 10.0
LOOK_S = 0.2
RETRY_S = 0.5


class Profiles:
    """State is touched by the loop of `watch` only."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pacts: dict[Key, Pact | None] = {}
        self._stored: dict[Key, tuple[int, int]] = {}
        """The revision of what stands in the bucket, and that of the profile in it."""
        self._due: dict[Key, int] = {}
        self.live = LiveProfiles(self._learns)
        self._bucket: Bucket | None = None

    async def open(self, bucket: Bucket, last: int) -> None:
        """Takes what stands written. `last` is the stream's last position: a profile that knows of
        more is of another stream. Raises BusError."""
        self._bucket = bucket
        for entry in await bucket.entries():
            kept = self._take(entry)
            if kept is not None and kept.position > last:
                kept.position = 0

    def take_pact(self, entry: Entry) -> None:
        """A change of the bucket of levels. One that cannot be read changes nothing."""
        key = subjects.pact_key_of(entry.key)
        if entry.value is None:
            self._pacts.pop(key, None)
        else:
            try:
                level = decode(entry.value, PactSet)
                self._pacts[key] = _learning(level.enforced) or _learning(level.shadow)
            except (PactError, MessageError):
                return  # said by who reads all pacts here
        self.live.pacts_changed()

    async def follow(self) -> None:
        """Until cancelled: hears of what others write."""
        while self._bucket is not None:
            with suppress(BusError):
                async for entry in self._bucket.watch():
                    if entry.key:
                        self._take(entry)
            await self._world.sleep(RETRY_S)

    async def keep(self, position: Callable[[], int]) -> None:
        """Until cancelled: writes what has changed."""
        while True:
            await self._world.sleep(LOOK_S)
            now_ns = self._world.monotonic_ns()
            due = [key for key in self.live.changed if self._due.get(key, 0) <= now_ns]
            if due:
                await self.write(due, position)

    async def write(self, keys: list[Key], position: Callable[[], int]) -> None:
        """Writes these now; what cannot be written is tried again later."""
        for key in keys:
            self._due[key] = self._world.monotonic_ns() + round(WRITE_EVERY_S * 1e9)
            try:
                await self._write(key, position)
            except BusError as error:
                _log.warning("the profile of %s waits for the bus: %s", key[0], error)

    async def write_all(self, position: Callable[[], int]) -> None:
        await self.write(list(self.live.changed), position)

    # -- inside -------------------------------------------------------------------------------

    def _learns(self, agent: str, environment: str) -> Pact | None:
        place = place_of(environment)
        if (agent, place) in self._pacts:
            return self._pacts[agent, place]
        return self._pacts.get((EVERYONE, place))

    async def _write(self, key: Key, position: Callable[[], int]) -> None:
        bucket, kept = self._bucket, self.live.profiles[key]
        if bucket is None:
            return
        stands, revision = self._stored.get(key, (0, 0))
        whole = kept.profile
        kept.profile = fitted(whole)
        if kept.profile is not whole:
            _log.warning("the profile of %s is too large: what was least used is dropped", key[0])
        kept.position = max(kept.position, position())
        kept.updated_at = self._world.now_ns()
        kept.revision = max(revision + 1, kept.updated_at // 1_000_000_000)
        self.live.changed.discard(key)
        name = subjects.pact_key(*key)
        try:
            if stands:
                stands = await bucket.update(name, encode(kept), stands)
            else:
                stands = await bucket.create(name, encode(kept))
        except WrongRevision:
            standing = await bucket.get(name)
            self._take(standing or Entry(name, None, 0))
            return
        except BusError:
            self.live.changed.add(key)
            raise
        self._stored[key] = (stands, kept.revision)

    def _take(self, entry: Entry) -> LearnedProfile | None:
        """What stands in the bucket, when it is not what was written from here."""
        key = subjects.pact_key_of(entry.key)
        if entry.value is None:
            if self._stored.pop(key, None) is not None:
                self.live.forget(key)
            return None
        stands, _ = self._stored.get(key, (0, 0))
        if entry.revision <= stands:
            return None
        try:
            kept = decode(entry.value, LearnedProfile)
        except MessageError as error:
            _log.error("the profile %s cannot be read, it begins anew: %s", entry.key, error)
            self._stored[key] = (entry.revision, 0)
            self.live.forget(key)
            return None
        self._stored[key] = (entry.revision, kept.revision)
        mine = self.live.profiles.get(key)
        written = (kept.revision, kept.updated_at)
        if mine is not None and (mine.revision, mine.updated_at) == written:
            return None  # written from here
        self.live.take(kept)
        return kept


def _learning(texts: list[PactText]) -> Pact | None:
    pact = read_chain([(each.name, each.text) for each in texts]) if texts else None
    return pact if pact is not None and learned_in(pact) else None
