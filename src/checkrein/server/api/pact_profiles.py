"""The learned flow profiles as the api delivers, shows and resets them.

The role `watch` writes them into the bucket `profiles`. A changed one is brought to who enforces it
at most every 30 seconds for each agent, inside the agent's `PactSet` under a revision of its own; a
reset is brought at once.
"""

import logging
from collections.abc import Awaitable, Callable

import msgspec

from checkrein.bus import subjects
from checkrein.bus.messages import MessageError, decode, encode
from checkrein.bus.pacts import SET_BYTES_MAX, PactSet
from checkrein.bus.profiles import LearnedProfile, packed
from checkrein.bus.types import Bucket, Bus, BusError, Entry, WrongRevision
from checkrein.policy.flow.profile import Profile
from checkrein.world import World

_log = logging.getLogger(__name__)

BRING_EVERY_S = 30.0
LOOK_S = 0.5
RETRY_S = 0.5
TRIES_MAX = 20
Key = tuple[str, str]
"""(agent, environment)"""


class _Delivered(msgspec.Struct, frozen=True):
    revision: int
    data: bytes


class Profiles:
    """What is delivered is a moment behind the bucket. One of these to a process."""

    def __init__(self, world: World, bus: Bus) -> None:
        self._world, self._bus = world, bus
        self._bucket: Bucket | None = None
        self._delivered: dict[Key, _Delivered] = {}
        self._newest: dict[Key, LearnedProfile] = {}
        self._due_ns: dict[Key, int] = {}
        self._too_large: set[Key] = set()

    async def open(self) -> None:
        """Reads what stands. Raises BusError."""
        self._bucket = await self._bus.bucket(subjects.BUCKET_PROFILES)
        for entry in await self._bucket.entries():
            self._take(entry)
        self._deliver()

    def with_profile(self, level: PactSet) -> PactSet:
        """The set as it is delivered. Its revision is the sum of both, so that a change of either
        makes it newer, whoever's clock is ahead."""
        key = (level.agent, level.environment)
        found = self._delivered.get(key)
        if found is None:
            return level
        data = found.data if _may_ask(level) else b""
        texts = sum(len(text.text.encode()) for text in (*level.enforced, *level.shadow))
        if data and texts + len(data) > SET_BYTES_MAX - 4_000:
            data = b""
            if key not in self._too_large:
                self._too_large.add(key)
                said = "the pact and the profile of %s do not fit into one message: new is asked"
                _log.warning(said, level.agent)
        return msgspec.structs.replace(
            level, revision=level.revision + found.revision, profile=data,
            profile_revision=found.revision,
        )  # fmt: skip

    async def get(self, agent: str, environment: str) -> LearnedProfile | None:
        """As it stands written. Raises BusError."""
        entry = await self._opened.get(subjects.pact_key(agent, environment))
        return None if entry is None else _read(entry)

    async def reset(self, agent: str, environment: str, by: str) -> bool:
        """Forgets what was learned, audited; False when there was nothing. Raises BusError."""
        name = subjects.pact_key(agent, environment)
        for _ in range(TRIES_MAX):
            entry = await self._opened.get(name)
            if entry is None or entry.value is None:
                return False
            before = _read(entry)
            now_ns = self._world.now_ns()
            fresh = LearnedProfile(
                agent=agent, environment=environment, profile=Profile(types={}),
                revision=max(before.revision + 1 if before else 0, now_ns // 1_000_000_000),
                position=before.position if before else 0, updated_at=now_ns,
            )  # fmt: skip
            line = {
                "kind": "profile", "verb": "reset", "agent": agent, "environment": environment,
                "by": by, "at": now_ns, "revision": fresh.revision,
                "runs": _runs(before) if before else 0,
            }  # fmt: skip
            try:
                await self._opened.update(name, encode(fresh), entry.revision)
            except WrongRevision:
                continue
            await self._bus.append("audit.profile", encode(line), message_id=self._world.uuid7())
            self._newest[agent, environment] = fresh
            self._due_ns.pop((agent, environment), None)
            self._deliver()
            return True
        raise BusError(f"the profile of {agent} is being changed all the time")

    async def follow(self) -> None:
        """Until cancelled: hears of changes."""
        while self._bucket is not None:
            try:
                async for entry in self._bucket.watch():
                    if entry.key:
                        self._take(entry)
            except BusError as error:
                _log.warning("following the profiles: %s", error)
            await self._world.sleep(RETRY_S)

    async def bring(self, bring: Callable[[str], Awaitable[None]]) -> None:
        """Until cancelled: has the holders of an environment told of what is due."""
        while True:
            await self._world.sleep(LOOK_S)
            for environment in self._deliver():
                await bring(environment)

    # -- inside -------------------------------------------------------------------------------

    @property
    def _opened(self) -> Bucket:
        if self._bucket is None:
            raise BusError("the profiles are not open yet")
        return self._bucket

    def _take(self, entry: Entry) -> None:
        kept = _read(entry)
        if kept is None:
            return
        key = (kept.agent, kept.environment)
        newest = self._newest.get(key) or self._delivered.get(key)
        if newest is None or newest.revision < kept.revision:
            self._newest[key] = kept
            if not kept.profile.types:  # reset
                self._due_ns.pop(key, None)

    def _deliver(self) -> set[str]:
        """Puts in force what is due; the environments in which something was."""
        now_ns = self._world.monotonic_ns()
        changed = set()
        for key, kept in list(self._newest.items()):
            if self._due_ns.get(key, now_ns) <= now_ns:
                del self._newest[key]
                self._delivered[key] = _Delivered(kept.revision, packed(kept.profile))
                self._due_ns[key] = now_ns + round(BRING_EVERY_S * 1e9)
                changed.add(key[1])
        return changed


def _may_ask(level: PactSet) -> bool:
    """Whether a rule may ask for the profile, by a look at the texts."""
    return any("learned" in text.text for text in (*level.enforced, *level.shadow))


def _runs(kept: LearnedProfile) -> int:
    return kept.profile.of("*").runs


def _read(entry: Entry) -> LearnedProfile | None:
    try:
        return decode(entry.value, LearnedProfile) if entry.value else None
    except MessageError as error:
        _log.error("the profile %s cannot be read: %s", entry.key, error)
        return None
