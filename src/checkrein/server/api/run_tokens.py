"""The keys of runs: made for the holder of a run's session, good for five minutes, then renewed.

A key is written to the bucket `run_tokens` before it is answered, so no gateway is asked with one
that it could not know. What has expired is swept.
"""

import logging
from contextlib import suppress

import msgspec

from checkrein.bus import subjects
from checkrein.bus.identities import (
    RUN_KEY,
    RUN_KEY_LIFE_S,
    RunToken,
    RunTokenGrant,
    RunTokenRequest,
    digest_of,
)
from checkrein.bus.messages import MessageError, RunRecord, SessionRecord, decode, encode
from checkrein.bus.types import Bucket, Bus, BusError, Entry, WrongRevision
from checkrein.server.api.problems import Forbidden, NotThere
from checkrein.server.api.roles import Identity
from checkrein.world import World

SWEEP_EVERY_S = 60
SWEEP_MAX = 500
CHARS_MAX = 200
HOLDERS = ("supervisor", "sdk")
_log = logging.getLogger(__name__)


class RunTokens:
    def __init__(self, world: World, bus: Bus) -> None:
        self._world, self._bus = world, bus
        self._swept_ns: int | None = None

    async def grant(self, request: RunTokenRequest, asks: Identity) -> RunTokenGrant:
        """A key, or one renewed. Raises Forbidden, NotThere, BusError."""
        session = await self._session(request.session)
        agent = _agent_of(request, session, asks)
        run = await self._run(request.run_id, agent, session)
        bucket = await self._bus.bucket(subjects.BUCKET_RUN_TOKENS)
        expires_at = self._world.now_ns() + RUN_KEY_LIFE_S * 1_000_000_000
        if request.token:
            await self._renew(bucket, request, agent, expires_at)
            return RunTokenGrant(token=request.token, expires_at=expires_at)
        key = RUN_KEY + self._world.random_bytes(32).hex()
        record = RunToken(
            run_id=request.run_id, task_id=request.task_id or (run.task_id if run else ""),
            agent=agent,
            room=session.room or request.room,
            environment=session.environment or request.environment, session=session.session,
            expires_at=expires_at, pid=request.pid, user=request.user[:CHARS_MAX],
            started_at=request.started_at, host=(request.host or session.host)[:CHARS_MAX],
        )  # fmt: skip
        await bucket.create(digest_of(key), encode(record))
        return RunTokenGrant(token=key, expires_at=expires_at)

    async def revoke(self, run_id: str, asks: Identity) -> int:
        """Takes back all keys of a run; how many there were. Raises BusError."""
        gone = 0
        bucket = await self._bus.bucket(subjects.BUCKET_RUN_TOKENS)
        for entry in await bucket.entries():
            found = read(entry)
            if found is not None and found.run_id == run_id and asks.agent in ("", found.agent):
                await bucket.delete(entry.key)
                gone += 1
        return gone

    async def revoke_agent(self, agent: str) -> None:
        """Takes back the keys of all of an agent's runs. Raises BusError."""
        bucket = await self._bus.bucket(subjects.BUCKET_RUN_TOKENS)
        for entry in await bucket.entries():
            found = read(entry)
            if found is not None and found.agent == agent:
                await bucket.delete(entry.key)

    def sweep_is_due(self) -> bool:
        now = self._world.monotonic_ns()
        if self._swept_ns is not None and now - self._swept_ns < SWEEP_EVERY_S * 1_000_000_000:
            return False
        self._swept_ns = now
        return True

    async def sweep(self) -> None:
        """Removes what has expired, SWEEP_MAX of it at most."""
        removed = 0
        now = self._world.now_ns()
        with suppress(BusError):
            bucket = await self._bus.bucket(subjects.BUCKET_RUN_TOKENS)
            for entry in await bucket.entries():
                found = read(entry)
                if found is None or found.expires_at < now:
                    await bucket.delete(entry.key)
                    removed += 1
                    if removed >= SWEEP_MAX:
                        return

    async def _renew(
        self, bucket: Bucket, request: RunTokenRequest, agent: str, expires_at: int
    ) -> None:
        digest = digest_of(request.token)
        entry = await bucket.get(digest)
        found = read(entry) if entry is not None else None
        if entry is None or found is None:
            raise NotThere(
                "this run's key is not known: it was taken back, or ended long ago",
                "Ask for another without naming one, if the run may go on.", "unknown_key",
            )  # fmt: skip
        if (found.run_id, found.session, found.agent) != (request.run_id, request.session, agent):
            raise Forbidden("this key is of another run", "Renew each run's own key.")
        renewed = encode(msgspec.structs.replace(found, expires_at=expires_at))
        try:
            await bucket.update(digest, renewed, entry.revision)
        except WrongRevision as error:  # taken back meanwhile, or renewed twice at once
            raise NotThere(
                "this run's key was changed meanwhile", "Ask again.", "unknown_key"
            ) from error

    async def _session(self, name: str) -> SessionRecord:
        entry = await self._bus.last_value(subjects.BUCKET_SESSIONS, name) if _plain(name) else None
        found = _session_in(entry)
        if found is None or found.kind not in HOLDERS or found.expires_at < self._world.now_ns():
            raise NotThere(
                f"there is no session {name[:80]!r} of a supervisor or an SDK",
                "Open one: POST /api/v1/sessions.", "unknown_session",
            )  # fmt: skip
        return found

    async def _run(self, run_id: str, agent: str, session: SessionRecord) -> RunRecord | None:
        """A run that is registered belongs to one session. One that is not yet, to whoever comes
        first with its id, which nobody can guess."""
        if not _plain(run_id):
            raise Forbidden(f"{run_id[:80]!r} is no run's id", "Name the run by its id.")
        entry = await self._bus.last_value(subjects.BUCKET_RUNS, run_id)
        try:
            run = decode(entry.value, RunRecord) if entry is not None and entry.value else None
        except MessageError:
            run = None
        if run is not None and (run.agent, run.session) != (agent, session.session):
            raise Forbidden(
                f"run {run_id} is held by another session", "Only its holder may ask for its key."
            )
        return run


def _agent_of(request: RunTokenRequest, session: SessionRecord, asks: Identity) -> str:
    if asks.agent and session.by != asks.origin:
        raise Forbidden(
            f"session {session.session} was not opened with this key",
            "An agent asks for keys of its own sessions' runs only.",
        )
    agent = request.agent or (session.agents[0] if len(session.agents) == 1 else "")
    if agent not in session.agents:
        raise Forbidden(
            f"session {session.session} does not speak for agent {agent[:80]!r}",
            "Name one of its agents.",
        )
    return agent


def _plain(name: str) -> bool:
    return 0 < len(name) <= CHARS_MAX and subjects.token(name) == name


def _session_in(entry: Entry | None) -> SessionRecord | None:
    try:
        return decode(entry.value, SessionRecord) if entry is not None and entry.value else None
    except MessageError:
        return None


def read(entry: Entry) -> RunToken | None:
    try:
        return decode(entry.value, RunToken) if entry.value else None
    except MessageError as error:
        _log.error("a run's key cannot be read, so it opens nothing: %s", error)
        return None
