"""Whose key it is: agents, runs' keys and who is shut out, followed from the control bus.

Nothing is asked of anybody on the way of a call: what is known here is a moment old at most. A key
that is not known is looked up once before it is refused, since it may be younger than its news.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from checkrein.bus import subjects
from checkrein.bus.identities import (
    AGENT_KEY,
    RUN_KEY,
    AgentRecord,
    Contained,
    HaltedRun,
    RunToken,
    digest_of,
)
from checkrein.bus.messages import MessageError, RunRecord, decode, encode
from checkrein.bus.types import Bucket, Bus, BusError, Entry
from checkrein.gateway.types import Caller, Refusal
from checkrein.world import World

_log = logging.getLogger(__name__)
RETRY_S = 0.5
LOOK_S = 1.0
LOOKS_MAX = 16
"""Keys that are looked up at once."""
LOOKED_MAX = 4_096
"""Unknown digests that are remembered, so that a flood of them asks the bus once each."""
_UNREADABLE = "what was written down of it cannot be read"
_CREDENTIALS = ("authorization", "x-api-key", "api-key")
T = TypeVar("T")


async def _believe_nobody(token: str) -> None:
    return None


Verifier = Callable[[str], Awaitable["Caller | None"]]
"""What an identity provider's token says; raises Refusal for one that is not good."""


class KeyBook:
    """`on_contained(agent, Contained or None)` is told of every change of who is shut out,
    `on_revoked(agent)` of every agent that was revoked."""

    def __init__(
        self, world: World, on_contained: Callable[[str, Contained | None], None],
        verify: Verifier = _believe_nobody,
        on_revoked: Callable[[str], None] = lambda agent: None,
    ) -> None:  # fmt: skip
        self.world, self._on_contained, self._verify = world, on_contained, verify
        self._on_revoked = on_revoked
        self._agents: dict[str, AgentRecord] = {}
        self._agent_of: dict[str, str] = {}
        self._runs_keys: dict[str, RunToken] = {}
        self._looked: OrderedDict[str, None] = OrderedDict()
        self._looking = asyncio.Semaphore(LOOKS_MAX)
        self._reading = asyncio.Lock()
        self._readings = 0
        self._buckets: dict[str, Bucket] = {}
        self._read: dict[str, set[str]] = {}
        """The keys that `open` has read, until `follow` has told what became of them."""
        self.runs: dict[str, RunRecord] = {}
        self.contained: dict[str, Contained] = {}
        self.halted: dict[str, HaltedRun] = {}
        """By `HaltedRun.key`."""

    async def open(self, bus: Bus) -> None:
        """Reads all there is: before this returns, nobody may be let in. Raises BusError."""
        for name, take in self._takers().items():
            bucket = self._buckets[name] = await bus.bucket(name)
            self._read[name] = set()
            for entry in await bucket.entries():
                self._read[name].add(entry.key)
                take(entry)

    async def follow(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, take in self._takers().items():
                group.create_task(self._follow(name, take))

    async def caller_of(self, headers: Mapping[str, str]) -> Caller:
        """Raises Refusal (401) for a key that is none of ours, is over, or was taken back."""
        key = key_of(headers)
        if not key:
            raise Refusal(
                401, "unauthenticated", "no key was sent",
                appeal="Give the agent a key of its own (`checkrein agent add NAME`) as its "
                "provider's API key, or start it with `checkrein run`.",
            )  # fmt: skip
        if key.startswith(RUN_KEY):
            return await self._of_run(key)
        if key.startswith(AGENT_KEY):
            return await self._of_agent(key)
        found = await self._verify(key)
        if found is None:
            raise _unknown("this is no key of an agent or a run")
        return found

    def check(self, caller: Caller) -> None:
        """Raises Refusal (401) for a caller whose agent was revoked since it was let in."""
        if self._revoked(caller.agent):
            raise _unknown(f"agent {caller.agent} was revoked")

    async def _of_run(self, key: str) -> Caller:
        digest = digest_of(key)
        token = self._runs_keys.get(digest)
        if token is None and await self._look(subjects.BUCKET_RUN_TOKENS, digest):
            token = self._runs_keys.get(digest)
        if token is None:
            raise _unknown("this run's key is not known here: it is over, or was taken back")
        if token.expires_at <= self.world.now_ns():
            raise _unknown("this run's key has expired: nobody has renewed it")
        caller = Caller(
            agent=token.agent, key=digest[:12], room=token.room, environment=token.environment,
            run_id=token.run_id, task_id=token.task_id, session=token.session,
        )  # fmt: skip
        self.check(caller)
        return caller

    async def _of_agent(self, key: str) -> Caller:
        digest = digest_of(key)
        if digest not in self._agent_of:
            await self._look_at_agents(digest)
        agent = self._agents.get(self._agent_of.get(digest, ""))
        if agent is None or agent.revoked_at:
            raise _unknown("this agent's key is not known: it was mistyped, or taken back")
        return Caller(
            agent=agent.agent, key=digest[:12], room=agent.room, environment=agent.environment
        )

    def agent_of_subject(self, subject: str) -> AgentRecord | None:
        """The agent that a principal of an identity provider is (`issuer subject`)."""
        for record in self._agents.values():
            if subject in record.subjects and not record.revoked_at:
                return record
        return None

    def agent(self, name: str) -> AgentRecord | None:
        """The agent of this name, unless it was revoked."""
        record = self._agents.get(subjects.token(name)) if name else None
        return None if record is None or record.revoked_at else record

    def _revoked(self, agent: str) -> bool:
        record = self._agents.get(subjects.token(agent))
        return record is not None and record.revoked_at > 0

    def _is_new(self, mark: str) -> bool:
        """Whether it is asked for the first time."""
        if mark in self._looked:
            return False
        self._looked[mark] = None
        while len(self._looked) > LOOKED_MAX:
            self._looked.popitem(last=False)
        return True

    async def _look(self, name: str, key: str) -> bool:
        """Reads one key directly, once for each; True if it was read."""
        bucket = self._buckets.get(name)
        if bucket is None or not self._is_new(f"{name}.{key}"):
            return False
        with suppress(BusError, TimeoutError):
            async with asyncio.timeout(LOOK_S), self._looking:
                entry = await bucket.get(key)
                if entry is not None:
                    self._takers()[name](entry)
        return True

    async def _look_at_agents(self, digest: str) -> None:
        """Reads all agents for a key that none of them has, once for each key. However many ask,
        one reading is under way, and whoever comes meanwhile shares the next."""
        bucket, arrived = self._buckets.get(subjects.BUCKET_AGENTS), self._readings
        if bucket is None or not self._is_new(digest):
            return
        with suppress(BusError, TimeoutError):
            async with asyncio.timeout(LOOK_S), self._reading:
                if self._readings > arrived:
                    return  # one that began meanwhile is over
                self._readings += 1
                for entry in await bucket.entries():
                    self._take_agent(entry)

    async def _follow(self, name: str, take: Callable[[Entry], None]) -> None:
        while True:
            try:
                told: set[str] = set()
                async for entry in self._buckets[name].watch():
                    if entry.key:
                        told.add(entry.key)
                        take(entry)
                        continue
                    for gone in self._read[name] - told:  # deleted before this began to watch
                        take(Entry(gone, None, 0))
                    self._read[name].clear()
            except BusError as error:
                _log.warning("following %s: %s", name, error)
            await self.world.sleep(RETRY_S)

    def _takers(self) -> dict[str, Callable[[Entry], None]]:
        return {
            subjects.BUCKET_CONTAINED: self._take_contained,
            subjects.BUCKET_AGENTS: self._take_agent,
            subjects.BUCKET_RUN_TOKENS: self._take_run_token,
            subjects.BUCKET_RUNS: self._take_run,
            subjects.BUCKET_HALTED: self._take_halted,
        }

    def _take_contained(self, entry: Entry) -> None:
        found = _read(entry, Contained)
        agent = subjects.name_of(entry.key)
        if found is None and entry.value:  # who cannot be read is not let in by it
            found = Contained(agent=agent, reason=_UNREADABLE, issued_by="the gateway", at=0)
        if found is None:
            self.contained.pop(agent, None)
        else:
            self.contained[agent] = found
        self._on_contained(agent, found)

    def _take_agent(self, entry: Entry) -> None:
        before = self._agents.pop(entry.key, None)
        for key in before.keys if before is not None else ():
            self._agent_of.pop(key.digest, None)
        found = _read(entry, AgentRecord)
        if found is not None:
            self._agents[entry.key] = found
            self._agent_of.update((key.digest, entry.key) for key in found.keys)
            if found.revoked_at:
                self._on_revoked(found.agent)

    def _take_run_token(self, entry: Entry) -> None:
        found = _read(entry, RunToken)
        if found is None:
            self._runs_keys.pop(entry.key, None)
        else:
            self._runs_keys[entry.key] = found

    def _take_run(self, entry: Entry) -> None:
        found = _read(entry, RunRecord)
        if found is None:
            self.runs.pop(entry.key, None)
        else:
            self.runs[entry.key] = found

    def _take_halted(self, entry: Entry) -> None:
        found = _read(entry, HaltedRun)
        if found is None and entry.value:
            found = HaltedRun(agent="", name="", run_id="", reason=_UNREADABLE)
        if found is None:
            self.halted.pop(entry.key, None)
        else:
            self.halted[entry.key] = found

    async def remember(self, record: HaltedRun | None, key: str) -> None:
        """Writes down, for every gateway and for later starts, that a run was halted (None: that
        its calls have ceased). Tried until it is written."""
        if record is None:
            self.halted.pop(key, None)
        else:
            self.halted[key] = record
        bucket = self._buckets[subjects.BUCKET_HALTED]
        while True:
            try:
                if record is None:
                    await bucket.delete(key)
                else:
                    await bucket.put(key, encode(record))
            except BusError as error:
                _log.warning("a halt cannot be written down yet: %s", error)
                await self.world.sleep(RETRY_S)
            else:
                return


def key_of(headers: Mapping[str, str]) -> str:
    """The key that a request brings: a bearer token, or as a provider's client sends its own.
    Raises Refusal when it brings two of ours."""
    found = [key for name in _CREDENTIALS if (key := _given(headers.get(name, "")))]
    if len(found) > 1 and len({key for key in found if key.startswith((AGENT_KEY, RUN_KEY))}) > 1:
        raise Refusal(400, "bad_request", "two keys were sent, and they are not the same: send one")
    return found[0] if found else ""


def _given(value: str) -> str:
    kind, _, rest = value.strip().partition(" ")
    return rest.strip() if kind.lower() == "bearer" else value.strip()


def _unknown(reason: str) -> Refusal:
    return Refusal(
        401, "unauthenticated", reason,
        appeal="`checkrein agent list` shows who has keys; `checkrein agent add NAME` makes one.",
    )  # fmt: skip


def _read(entry: Entry, kind: type[T]) -> T | None:
    if not entry.value:
        return None
    try:
        return decode(entry.value, kind)
    except MessageError as error:
        _log.error("%s cannot be read, so nothing opens by it: %s", entry.key, error)
        return None


def no_secrets(headers: Mapping[str, str]) -> dict[str, Any]:
    """Headers as they may be written down or passed on: without whoever asked's keys."""
    return {name: value for name, value in headers.items() if name not in _CREDENTIALS}
