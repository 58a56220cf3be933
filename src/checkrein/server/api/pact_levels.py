"""What is in force for each agent, worked out from the records and brought to who enforces it.

The records (bucket `pacts`) are the truth; a *level* (bucket `pact_levels`) is what follows from
them for one agent and environment, with every text that is extended. A level is written with
compare-and-set and computed from records that were read after the level it replaces, so whoever
writes last has seen the newest. Revisions rise, over restarts and lost buckets too: they are not
below the milliseconds since 1970.

An agent without a pact of its own lives by the level of `default`, told under its own name.
"""

import asyncio
import logging
from collections.abc import Iterable

import msgspec

from checkrein.bus import subjects
from checkrein.bus.messages import MessageError, decode, encode
from checkrein.bus.pacts import SET_BYTES_MAX, TOGETHER_BYTES_MAX, Earlier, PactSet, PactText
from checkrein.bus.types import Bucket, Bus, BusError, Entry, WrongRevision
from checkrein.control.pact_life import PactRecord
from checkrein.control.signing import OrderSigner
from checkrein.policy.pact import PactError
from checkrein.policy.pact_chain import EVERYONE, Named, chain_of, read_chain
from checkrein.server.api.pact_holders import Holders
from checkrein.server.api.pact_records import Records
from checkrein.world import World

_log = logging.getLogger(__name__)

RETRY_S = 0.5
SETTLE_EVERY_S = 30.0
SIGNED_MAX = 2_000
EARLIER_MAX = 4
FIRST_NS = 3600 * 1_000_000_000
"""So long before its first pact an agent is said to have lived by the default."""
Key = tuple[str, str]
"""(agent, environment)"""


class Levels:
    """`levels`: all of them, a moment behind the bucket at most. One of these to a process."""

    def __init__(
        self, world: World, bus: Bus, records: Records, holders: Holders, signer: OrderSigner
    ) -> None:
        self._world, self._bus = world, bus
        self._records, self._holders, self._signer = records, holders, signer
        self._bucket: Bucket | None = None
        self._signed: dict[tuple[str, str, int], bytes] = {}
        self._lock = asyncio.Lock()
        self.levels: dict[Key, PactSet] = {}
        self.trouble: dict[Key, str] = {}
        """Why a level could not be brought up to its records: the one before it stays."""

    async def open(self) -> None:
        """Reads what stands. Raises BusError."""
        self._bucket = await self._bus.bucket(subjects.BUCKET_PACT_LEVELS)
        for entry in await self._bucket.entries():
            self._take(entry)
        self._holders.newer = self.newer

    async def follow(self) -> None:
        """Until cancelled: brings what other api processes change, and puts right what one left
        undone when it died."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._settle_again())

    def of(self, agent: str, environment: str) -> PactSet | None:
        """What is in force for an agent; None: nothing was ever stored for it or for all."""
        own = self.levels.get((agent, environment))
        if own is not None:
            return own
        everyone = self.levels.get((EVERYONE, environment))
        return None if everyone is None else msgspec.structs.replace(everyone, agent=agent)

    def signed(self, agent: str, environment: str) -> bytes | None:
        """The same as it travels."""
        level = self.of(agent, environment)
        return None if level is None else self._sign(level)

    def newer(self, environment: str, revisions: dict[str, int]) -> list[bytes]:
        """Signed sets for those agents that have got an older revision, or none; as many as fit
        into one message."""
        found: list[bytes] = []
        room = TOGETHER_BYTES_MAX
        for agent, revision in revisions.items():
            level = self.of(agent, environment)
            if level is not None and level.revision > revision:
                signed = self._sign(level)
                room -= len(signed)
                if found and room < 0:
                    break
                found.append(signed)
        return found

    async def settle(self, environment: str, agent: str = "") -> list[str]:
        """Brings the levels of an environment up to their records, those that depend on `agent`
        only when one is named, and tells the holders. Returns what went wrong, in words. Raises
        BusError."""
        async with self._lock:
            wrong = []
            for name in await self._depending(environment, agent):
                trouble = await self._settle_one(name, environment)
                if trouble:
                    wrong.append(trouble)
            await self.bring(environment)
            return wrong

    async def bring(self, environment: str) -> None:
        """Sends each holder what is newer than what it has been sent."""
        for session, revisions in self._holders.behind(environment, self.of):
            for agent, revision in revisions.items():
                data = self.signed(agent, environment)
                if data is None:
                    continue
                self._holders.was_sent(session, agent, revision)
                try:
                    await self._bus.publish(subjects.pact(session), data)
                except BusError as error:  # it asks every few seconds
                    _log.warning("session %s was not told of its pact: %s", session, error)

    async def chain(self, agent: str, environment: str, text: str, source: str = "") -> list[Named]:
        """A text with those it extends, as they are in force. Raises PactError, BusError."""
        found: dict[str, str | None] = {}
        while True:
            missing: list[str] = []

            def stored(name: str, missing: list[str] = missing) -> str | None:
                if name not in found:
                    missing.append(name)
                    return ""
                return found[name]

            try:
                known = sorted({name for name, place in self.levels if place == environment})
                chain = chain_of(agent, text, stored, known, source)
            except PactError:
                if not missing:
                    raise
            if not missing:
                return chain
            for name in missing:
                found[name] = await self._records.enforced_text(name, environment)

    # -- inside -------------------------------------------------------------------------------

    async def _depending(self, environment: str, agent: str) -> Iterable[str]:
        if not agent or agent == EVERYONE:
            records = await self._records.all()
            return [record.agent for record in records if record.environment == environment]
        found = [agent]
        for (name, place), level in self.levels.items():
            texts = (*level.enforced, *level.shadow)
            if place == environment and name != agent and any(t.name == agent for t in texts):
                found.append(name)
        return found

    async def _settle_one(self, agent: str, environment: str) -> str:
        """Returns what went wrong; the level then stays as it was."""
        bucket = self._bucket
        if bucket is None:
            return ""
        key = subjects.pact_key(agent, environment)
        while True:
            entry = await bucket.get(key)
            standing = _read(entry) if entry is not None else None
            record = await self._records.get(agent, environment)
            if record is None:
                return ""
            try:
                fresh = await self._compute(record, standing)
            except PactError as error:
                said = f"{agent} in {environment} stays as it was: {error}"
                _log.error("a pact in force could not be brought up to date: %s", said)
                self.trouble[agent, environment] = said
                return said
            self.trouble.pop((agent, environment), None)
            if standing is not None and standing.says_the_same(fresh):
                self.levels[agent, environment] = standing
                return ""
            try:
                if entry is None:
                    await bucket.create(key, encode(fresh))
                else:
                    await bucket.update(key, encode(fresh), entry.revision)
            except WrongRevision:
                continue
            self.levels[agent, environment] = fresh
            return ""

    async def _compute(self, record: PactRecord, standing: PactSet | None) -> PactSet:
        enforced, enforced_version = await self._texts(record, record.enforced)
        shadow, shadow_version = await self._texts(record, record.shadow)
        everyone = self.levels.get((EVERYONE, record.environment))
        floor = max(
            standing.revision if standing is not None else 0,
            everyone.revision if everyone is not None else 0,
        )
        last = record.history[-1] if record.history else None
        fresh = PactSet(
            agent=record.agent, environment=record.environment,
            revision=max(floor + 1, self._world.now_ns() // 1_000_000),
            enforced=enforced, shadow=shadow, enforced_version=enforced_version,
            shadow_version=shadow_version, issued_by=last.by if last is not None else "",
            issued_at=self._world.now_ns(),
        )  # fmt: skip
        fresh = _with_earlier(fresh, standing, everyone)
        if len(encode(fresh)) > SET_BYTES_MAX - 1_000:
            raise PactError(f"with all it extends it is larger than {SET_BYTES_MAX} bytes")
        return fresh

    async def _texts(self, record: PactRecord, version: str) -> tuple[list[PactText], str]:
        if not version and record.agent != EVERYONE:
            # No pact of its own enforced (yet): what holds for all.
            text = await self._records.enforced_text(EVERYONE, record.environment)
            named = [(EVERYONE, text)] if text is not None else []
        elif not version:
            named = []
        else:
            text = await self._records.text_of(record, version)
            named = await self.chain(record.agent, record.environment, text)
        pact = await asyncio.to_thread(read_chain, named) if named else None
        texts = [PactText(name, text) for name, text in named]
        return texts, pact.version if pact is not None else ""

    def _sign(self, level: PactSet) -> bytes:
        key = (level.agent, level.environment, level.revision)
        data = self._signed.get(key)
        if data is None:
            alone = msgspec.structs.replace(level, earlier=[])
            data = self._signed[key] = self._signer.sign_pact(alone)
            while len(self._signed) > SIGNED_MAX:
                del self._signed[next(iter(self._signed))]
        return data

    def _take(self, entry: Entry) -> str:
        """An entry of the bucket; the environment in which it changed something."""
        level = _read(entry)
        if level is None:
            return ""
        standing = self.levels.get((level.agent, level.environment))
        if standing is not None and standing.revision >= level.revision:
            return ""
        self.levels[level.agent, level.environment] = level
        return level.environment

    async def _watch(self) -> None:
        while self._bucket is not None:
            try:
                async for entry in self._bucket.watch():
                    environment = self._take(entry) if entry.key else ""
                    if environment:
                        await self.bring(environment)
            except BusError as error:
                _log.warning("following the pacts in force: %s", error)
            await self._world.sleep(RETRY_S)

    async def _settle_again(self) -> None:
        first = True
        while True:
            try:
                if first:
                    await self._bus.publish(subjects.PACTS_ASK, b"")
                records = await self._records.all()
                for environment in {record.environment for record in records}:
                    await self.settle(environment)
                await self._records.audit(records)
                first = False
            except BusError as error:
                _log.warning("the pacts in force are looked at again later: %s", error)
            await self._world.sleep(RETRY_S if first else SETTLE_EVERY_S)


def _with_earlier(fresh: PactSet, standing: PactSet | None, everyone: PactSet | None) -> PactSet:
    """The level with what it replaces, as far as there is room."""
    if standing is not None:
        last = Earlier(since=standing.issued_at, enforced=standing.enforced)
        earlier = [*standing.earlier, last][-EARLIER_MAX:]
    else:
        texts = everyone.enforced if everyone is not None and fresh.agent != EVERYONE else []
        earlier = [Earlier(since=fresh.issued_at - FIRST_NS, enforced=texts)]
    while earlier:
        level = msgspec.structs.replace(fresh, earlier=earlier)
        if len(encode(level)) <= SET_BYTES_MAX:
            return level
        earlier = earlier[1:]
    return fresh


def _read(entry: Entry) -> PactSet | None:
    try:
        return decode(entry.value, PactSet) if entry.value else None
    except MessageError as error:
        _log.error("what stands in force under %s cannot be read: %s", entry.key, error)
        return None
