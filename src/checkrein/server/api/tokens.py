"""The tokens that were made for people and programs, each of a role (`roles`).

A token is 256 random bits; of it only the SHA-256 is kept (bucket `tokens`), so it is shown once,
when it is made. `known` follows the bucket, so that what one api process revokes ends at all.
"""

import logging

import msgspec

from checkrein.bus import subjects
from checkrein.bus.identities import digest_of
from checkrein.bus.messages import MessageError, decode, encode
from checkrein.bus.types import Bucket, Bus, BusError, Entry, WrongRevision
from checkrein.server.api.roles import OWNER_NAME, Identity, Role
from checkrein.world import World

_log = logging.getLogger(__name__)

RETRY_S = 0.5


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    role: Role
    digest: str
    created_at: int
    created_by: str


class NameTaken(Exception):
    """There is a token of this name."""


class Tokens:
    def __init__(self, world: World, bus: Bus) -> None:
        self._world, self._bus = world, bus
        self._bucket: Bucket | None = None
        self._by_digest: dict[str, TokenRecord] = {}
        self._by_key: dict[str, str] = {}

    async def open(self) -> None:
        """Raises BusError."""
        self._bucket = await self._bus.bucket(subjects.BUCKET_TOKENS)
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
                _log.warning("following the tokens: %s", error)
            await self._world.sleep(RETRY_S)

    def identify(self, given: str) -> Identity | None:
        """Whose token this is."""
        found = self._by_digest.get(digest_of(given))
        return None if found is None else Identity(name=found.name, role=found.role)

    def all(self) -> list[TokenRecord]:
        return sorted(self._by_digest.values(), key=lambda record: record.name)

    async def create(self, name: str, role: Role, by: str) -> str:
        """The token itself, which nobody can show again. Raises NameTaken, BusError."""
        given = f"crt_{self._world.random_bytes(32).hex()}"
        record = TokenRecord(
            name=name, role=role, digest=digest_of(given), created_at=self._world.now_ns(),
            created_by=by,
        )  # fmt: skip
        if name == OWNER_NAME or self._bucket is None:
            raise NameTaken(name)
        try:
            revision = await self._bucket.create(subjects.token(name), encode(record))
        except WrongRevision as error:
            raise NameTaken(name) from error
        self._take(Entry(subjects.token(name), encode(record), revision))
        await self._audit("create", record, by)
        return given

    async def revoke(self, name: str, by: str) -> bool:
        """False: there is no such token. Raises BusError."""
        key = subjects.token(name)
        record = self._by_digest.get(self._by_key.get(key, ""))
        if record is None or self._bucket is None:
            return False
        await self._bucket.delete(key)
        self._take(Entry(key, None, 0))
        await self._audit("revoke", record, by)
        return True

    async def _audit(self, verb: str, record: TokenRecord, by: str) -> None:
        line = {
            "kind": "token", "verb": verb, "name": record.name, "role": record.role, "by": by,
            "at": self._world.now_ns(),
        }  # fmt: skip
        await self._bus.append("audit.token", encode(line), message_id=self._world.uuid7())

    def _take(self, entry: Entry) -> None:
        before = self._by_key.pop(entry.key, None)
        if before is not None:
            self._by_digest.pop(before, None)
        if not entry.value:
            return
        try:
            record = decode(entry.value, TokenRecord)
        except MessageError as error:
            _log.error("token %s cannot be read, so it opens nothing: %s", entry.key, error)
            return
        self._by_key[entry.key] = record.digest
        self._by_digest[record.digest] = record
