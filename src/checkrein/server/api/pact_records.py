"""Pact records and texts on the control bus, and their way into the audit stream.

A text is written before the record that names it, and never changed. A record is changed with
compare-and-set. What a change adds to the history is noted in the record as not audited yet, in the
same write; it is appended to AUDIT behind it, by an id of its own, and the note is taken away:
whoever dies in between, the next settling appends it.
"""

import hashlib
import logging
from collections.abc import Callable
from functools import partial

import msgspec

from checkrein.bus import subjects
from checkrein.bus.messages import MessageError, decode, encode
from checkrein.bus.types import Bucket, Bus, BusError, WrongRevision
from checkrein.control.pact_life import PactRecord, Version, pushed
from checkrein.policy.pact import PactError, load
from checkrein.world import World

_log = logging.getLogger(__name__)

TEXTS_MAX = 2_000
TEXTS_CHARS_MAX = 32 * 1024 * 1024
TRIES_MAX = 50
EARLIER_PLACES = ("development", "staging", "production")


class Records:
    def __init__(self, world: World, bus: Bus) -> None:
        self._world, self._bus = world, bus
        self._records: Bucket | None = None
        self._stored: Bucket | None = None
        self._texts: dict[str, str] = {}
        self._chars = 0

    async def open(self) -> None:
        """Raises BusError."""
        self._records = await self._bus.bucket(subjects.BUCKET_PACTS)
        self._stored = await self._bus.bucket(subjects.BUCKET_PACT_TEXTS)
        await self._bus.stream(subjects.AUDIT)
        await self._take_over()

    async def get(self, agent: str, environment: str) -> PactRecord | None:
        """Raises BusError."""
        return (await self._entry(agent, environment))[0]

    async def all(self) -> list[PactRecord]:
        """By agent, then environment. Raises BusError."""
        found = []
        for entry in await self._bucket.entries():
            try:
                found.append(decode(entry.value or b"", PactRecord))
            except MessageError as error:
                _log.error("the pact record %s cannot be read: %s", entry.key, error)
        return sorted(found, key=lambda record: (record.agent, record.environment))

    async def change(
        self, agent: str, environment: str, step: Callable[[PactRecord], PactRecord]
    ) -> PactRecord:
        """Writes what `step` makes of the record; it may be called again when another was faster.
        Raises BusError, and what `step` raises."""
        for _ in range(TRIES_MAX):
            standing, revision = await self._entry(agent, environment)
            before = standing or PactRecord(agent=agent, environment=environment)
            after = step(before)
            if after == before:
                return before
            try:
                await self._write(after, revision)
            except WrongRevision:
                continue
            return after
        raise BusError(f"the pact of {agent} is being changed all the time")

    async def keep_text(self, text: str) -> str:
        """Durable when this returns; its digest. Raises BusError."""
        digest = digest_of(text)
        if digest not in self._texts:
            await self._texts_bucket.put(digest, text.encode())
            self._remember(digest, text)
        return digest

    async def text(self, digest: str) -> str:
        """Raises BusError when it is not there: the bucket has lost it."""
        if digest not in self._texts:
            entry = await self._texts_bucket.get(digest)
            if entry is None or entry.value is None:
                raise BusError(f"the text {digest} of a pact is missing")
            self._remember(digest, entry.value.decode("utf-8", "replace"))
        return self._texts[digest]

    async def text_of(self, record: PactRecord, version: str) -> str:
        """Raises BusError, KeyError for a version that is not known."""
        return await self.text(record.versions[version].digest)

    async def enforced_text(self, agent: str, environment: str) -> str | None:
        """Raises BusError."""
        record = await self.get(agent, environment)
        if record is None or not record.enforced:
            return None
        return await self.text_of(record, record.enforced)

    async def audit(self, records: list[PactRecord]) -> None:
        """Appends what is not in AUDIT yet. Raises BusError."""
        for record in records:
            if not record.unaudited:
                continue
            due = set(record.unaudited)
            for act in record.history:
                if act.act_id in due:
                    line = {
                        "kind": "pact",
                        "agent": record.agent,
                        "environment": record.environment,
                    }
                    data = encode(line | msgspec.to_builtins(act))
                    await self._bus.append("audit.pact", data, message_id=f"pact-{act.act_id}")
            await self.change(record.agent, record.environment, partial(_noted, due))

    # -- inside -------------------------------------------------------------------------------

    @property
    def _bucket(self) -> Bucket:
        if self._records is None:
            raise BusError("the pacts are not open yet")
        return self._records

    @property
    def _texts_bucket(self) -> Bucket:
        if self._stored is None:
            raise BusError("the pacts are not open yet")
        return self._stored

    async def _entry(self, agent: str, environment: str) -> tuple[PactRecord | None, int]:
        entry = await self._bucket.get(subjects.pact_key(agent, environment))
        if entry is None or not entry.value:
            return None, 0
        try:
            return decode(entry.value, PactRecord), entry.revision
        except MessageError as error:
            raise BusError(f"the pact record of {agent} cannot be read: {error}") from error

    async def _write(self, record: PactRecord, revision: int) -> None:
        key = subjects.pact_key(record.agent, record.environment)
        if revision:
            await self._bucket.update(key, encode(record), revision)
        else:
            await self._bucket.create(key, encode(record))

    def _remember(self, digest: str, text: str) -> None:
        self._texts[digest] = text
        self._chars += len(text)
        while len(self._texts) > TEXTS_MAX or self._chars > TEXTS_CHARS_MAX:
            oldest = next(iter(self._texts))
            self._chars -= len(self._texts.pop(oldest))

    async def _take_over(self) -> None:
        """What an earlier version of Checkrein stored (a text by agent, for all environments)."""
        for entry in await self._bucket.entries():
            if "." in entry.key or not entry.value:
                continue
            agent = subjects.name_of(entry.key)
            text = entry.value.decode("utf-8", "replace")
            try:
                version = load(text).version
            except PactError as error:
                _log.error("the stored pact of %s is no pact, and is passed over: %s", agent, error)
                continue
            made = Version(
                version=version, digest=await self.keep_text(text), at=self._world.now_ns(),
                author="", reason="taken over from an earlier version",
            )  # fmt: skip
            for place in EARLIER_PLACES:
                await self.change(agent, place, partial(_taken_over, made, self._world.uuid7()))
            await self._bucket.delete(entry.key)


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _taken_over(made: Version, act_id: str, record: PactRecord) -> PactRecord:
    return record if record.enforced else pushed(record, made, "enforce", act_id)


def _noted(due: set[str], record: PactRecord) -> PactRecord:
    left = [act_id for act_id in record.unaudited if act_id not in due]
    return msgspec.structs.replace(record, unaudited=left)
