"""The agents that are known by name: their keys, and who of an identity provider they are.

The bucket `agents` is the truth; `follow` keeps this copy a moment behind it, so that what one api
process revokes ends at all. Changes are made with compare-and-set, so two of them at once are both
kept. Every change is in the audit stream before it is answered.
"""

import logging
from collections.abc import Callable, Iterable

import msgspec

from checkrein.bus import subjects
from checkrein.bus.identities import AGENT_KEY, AgentKey, AgentRecord, digest_of
from checkrein.bus.messages import MessageError, decode, encode
from checkrein.bus.types import Bucket, Bus, BusError, Entry, WrongRevision
from checkrein.server.api.roles import AGENT, Identity
from checkrein.world import World

RETRY_S = 0.5
TRIES_MAX = 8
KEYS_MAX = 16
SHOWN_CHARS = 12
"""Of a key's digest, so much names the key to people."""
_log = logging.getLogger(__name__)


class AgentKnown(Exception):
    """There is an agent of this name."""


class NoAgent(Exception):
    """There is no agent of this name that may have keys; or no such key of it."""


class TooManyKeys(Exception):
    """It has KEYS_MAX keys."""


class Agents:
    def __init__(self, world: World, bus: Bus) -> None:
        self._world, self._bus = world, bus
        self._bucket: Bucket | None = None
        self._by_name: dict[str, AgentRecord] = {}
        self._by_digest: dict[str, str] = {}
        self._by_subject: dict[str, str] = {}
        self._revisions: dict[str, int] = {}

    async def open(self) -> None:
        """Raises BusError."""
        self._bucket = await self._bus.bucket(subjects.BUCKET_AGENTS)
        for entry in await self._bucket.entries():
            self._take(entry)

    async def follow(self) -> None:
        """Until cancelled."""
        while self._bucket is not None:
            try:
                async for entry in self._bucket.watch():
                    if entry.key:
                        self._take(entry)
            except BusError as error:
                _log.warning("following the agents: %s", error)
            await self._world.sleep(RETRY_S)

    # -- who is it ----------------------------------------------------------------------------

    def identify(self, key: str) -> Identity | None:
        """The agent that this key is of, unless it was taken back."""
        digest = digest_of(key)
        record = self._by_name.get(self._by_digest.get(digest, ""))
        return None if record is None else identity_of(record, digest[:SHOWN_CHARS])

    def of_subject(self, subject: str) -> AgentRecord | None:
        """The agent that a principal of an identity provider is (`issuer subject`); it may have
        been revoked."""
        return self._by_name.get(self._by_subject.get(subject, ""))

    def get(self, agent: str) -> AgentRecord | None:
        return self._by_name.get(agent)

    def all(self) -> list[AgentRecord]:
        return sorted(self._by_name.values(), key=lambda record: record.agent)

    def revoked(self, agent: str) -> bool:
        record = self._by_name.get(agent)
        return record is not None and record.revoked_at > 0

    async def still(self, agents: Iterable[str], asks: Identity) -> bool:
        """Whether none of these is revoked, nor the key that is asked with, read afresh. Raises
        BusError."""
        for agent in agents:
            if self._bucket is None or agent not in self._by_name:
                continue
            entry = await self._bucket.get(subjects.token(agent))
            record = _read(entry) if entry is not None else None
            if record is None or record.revoked_at:
                return False
            if (
                asks.agent == agent
                and asks.key
                and not any(key.digest.startswith(asks.key) for key in record.keys)
            ):
                return False
        return True

    # -- changes ------------------------------------------------------------------------------

    async def add(self, wanted: AgentRecord, by: str, label: str = "") -> tuple[AgentRecord, str]:
        """A new agent, or one that was revoked and comes back, with one new key, which nobody can
        show again. Raises AgentKnown, BusError."""

        def change(before: AgentRecord | None) -> AgentRecord:
            if before is not None and not before.revoked_at:
                raise AgentKnown(wanted.agent)
            return msgspec.structs.replace(
                wanted, keys=[made], created_at=self._world.now_ns(), created_by=by,
                revoked_at=0, revoked_by="",
            )  # fmt: skip

        key, made = self._new_key(by, label)
        return await self._change(wanted.agent, change, "add", by, made.digest), key

    async def add_key(self, agent: str, by: str, label: str = "") -> tuple[AgentRecord, str]:
        """Another key beside those there are, so that they can be changed one after the other.
        Raises NoAgent, TooManyKeys, BusError."""

        def change(before: AgentRecord | None) -> AgentRecord:
            if before is None or before.revoked_at:
                raise NoAgent(agent)
            if len(before.keys) >= KEYS_MAX:
                raise TooManyKeys(agent)
            return msgspec.structs.replace(before, keys=[*before.keys, made])

        key, made = self._new_key(by, label)
        return await self._change(agent, change, "key", by, made.digest), key

    async def revoke(self, agent: str, by: str) -> AgentRecord:
        """It is let in nowhere any more. Raises NoAgent, BusError."""

        def change(before: AgentRecord | None) -> AgentRecord:
            if before is None:
                raise NoAgent(agent)
            at = before.revoked_at or self._world.now_ns()
            return msgspec.structs.replace(
                before, revoked_at=at, revoked_by=before.revoked_by or by
            )

        return await self._change(agent, change, "revoke", by, "")

    async def revoke_key(self, agent: str, prefix: str, by: str) -> tuple[AgentRecord, str]:
        """Takes back the one key whose digest begins so; the beginning of its digest, as sessions
        remember it. Raises NoAgent (none, or several), BusError."""
        gone: list[str] = []

        def change(before: AgentRecord | None) -> AgentRecord:
            fits = [k.digest for k in before.keys if k.digest.startswith(prefix)] if before else []
            if before is None or len(fits) != 1:
                raise NoAgent(f"{len(fits)} keys of {agent} begin with {prefix!r}")
            gone[:] = fits
            return msgspec.structs.replace(
                before, keys=[key for key in before.keys if key.digest != fits[0]]
            )

        record = await self._change(agent, change, "revoke_key", by, prefix)
        return record, gone[0][:SHOWN_CHARS]

    async def _change(
        self, agent: str, change: Callable[[AgentRecord | None], AgentRecord], verb: str, by: str,
        key: str,
    ) -> AgentRecord:  # fmt: skip
        if self._bucket is None:
            raise BusError("the agents are not known yet")
        name = subjects.token(agent)
        for _ in range(TRIES_MAX):
            entry = await self._bucket.get(name)
            before = _read(entry) if entry is not None else None
            after = change(before)
            try:
                if entry is None or not entry.value:
                    revision = await self._bucket.create(name, encode(after))
                else:
                    revision = await self._bucket.update(name, encode(after), entry.revision)
            except WrongRevision:
                continue
            self._take(Entry(name, encode(after), revision))
            await self._audit(verb, after, by, key)
            return after
        raise BusError(f"agent {agent} is being changed by others all the time")

    def _new_key(self, by: str, label: str) -> tuple[str, AgentKey]:
        key = AGENT_KEY + self._world.random_bytes(32).hex()
        made = AgentKey(
            digest=digest_of(key), created_at=self._world.now_ns(), created_by=by, label=label
        )
        return key, made

    async def _audit(self, verb: str, record: AgentRecord, by: str, key: str) -> None:
        line = {
            "kind": "agent", "verb": verb, "agent": record.agent, "owner": record.owner,
            "key": key[:SHOWN_CHARS], "by": by, "at": self._world.now_ns(),
        }  # fmt: skip
        await self._bus.append("audit.agent", encode(line), message_id=self._world.uuid7())

    def _take(self, entry: Entry) -> None:
        if entry.revision < self._revisions.get(entry.key, 0):
            return  # what this process has written itself is newer
        self._revisions[entry.key] = entry.revision
        name = subjects.name_of(entry.key)
        before = self._by_name.pop(name, None)
        if before is not None:
            self._forget(self._by_digest, name, [key.digest for key in before.keys])
            self._forget(self._by_subject, name, before.subjects)
        record = _read(entry)
        if record is None:
            return
        self._by_name[name] = record
        if not record.revoked_at:
            self._by_digest.update((key.digest, name) for key in record.keys)
        for subject in record.subjects:
            other = self.of_subject(subject)
            if other is None or other.revoked_at:
                self._by_subject[subject] = name

    @staticmethod
    def _forget(index: dict[str, str], name: str, marks: list[str]) -> None:
        for mark in marks:
            if index.get(mark) == name:
                del index[mark]


def identity_of(record: AgentRecord, key: str) -> Identity:
    return Identity(
        name=f"agent:{record.agent}", role=AGENT, agent=record.agent, room=record.room,
        environment=record.environment, key=key,
    )  # fmt: skip


def _read(entry: Entry) -> AgentRecord | None:
    if not entry.value:
        return None
    try:
        return decode(entry.value, AgentRecord)
    except MessageError as error:
        _log.error("agent %s cannot be read, so it opens nothing: %s", entry.key, error)
        return None
