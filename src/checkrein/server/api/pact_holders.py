"""Who enforces which pact: what the holders of runs say of themselves, kept in memory.

A holder says so when it connects, when something changed, and every few seconds; one that is silent
for `SILENT_S` is no longer counted. Its agents are held against its session's record, so that no
session learns or reports the pacts of others.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from checkrein.bus import subjects
from checkrein.bus.messages import MessageError, SessionRecord, decode, encode
from checkrein.bus.pacts import Held, Holding, Newer, PactSet, place_of
from checkrein.bus.types import Bucket, Bus, Message
from checkrein.world import World

SILENT_S = 16.0
SESSIONS_MAX = 20_000
Of = Callable[[str, str], PactSet | None]
"""What is in force for (agent, environment)."""


class InForce(NamedTuple):
    """In how many of the processes that enforce an agent's pact the newest one holds. `behind`
    says what the others do."""

    processes: int
    current: int
    behind: list[Holding]


class _Holder:
    def __init__(self, agents: frozenset[str]) -> None:
        self.agents = agents
        self.environment = ""
        self.at_ns = 0
        self.known: dict[str, int] = {}
        """Revisions by agent: what it has got, or been sent."""
        self.holdings: list[Holding] = []


class Holders:
    """Fed by `held.<session>`."""

    def __init__(self, world: World, bus: Bus) -> None:
        self._world, self._bus = world, bus
        self._sessions: Bucket | None = None
        self._holders: dict[str, _Holder] = {}
        self.newer: Callable[[str, dict[str, int]], list[bytes]] = lambda environment, known: []

    async def open(self) -> None:
        """Raises BusError."""
        self._sessions = await self._bus.bucket(subjects.BUCKET_SESSIONS)
        await self._bus.subscribe(subjects.held("*"), self._hear)

    def behind(self, environment: str, of: Of) -> Iterator[tuple[str, dict[str, int]]]:
        """Sessions with agents whose newest set they have not been sent, and its revision."""
        self._forget_silent()
        for session, holder in list(self._holders.items()):
            if holder.environment != environment:
                continue
            due = {}
            for agent, known in holder.known.items():
                level = of(agent, environment)
                if level is not None and level.revision > known:
                    due[agent] = level.revision
            if due:
                yield session, due

    def was_sent(self, session: str, agent: str, revision: int) -> None:
        holder = self._holders.get(session)
        if holder is not None:
            holder.known[agent] = max(revision, holder.known.get(agent, 0))

    def agents(self) -> set[tuple[str, str]]:
        """(agent, environment) of all that is enforced anywhere."""
        self._forget_silent()
        return {
            (holding.agent, holder.environment)
            for holder in self._holders.values()
            for holding in holder.holdings
        }

    def in_force(self, agent: str, environment: str, level: PactSet | None) -> InForce:
        self._forget_silent()
        processes = current = 0
        behind = []
        for holder in self._holders.values():
            if holder.environment != environment:
                continue
            for holding in holder.holdings:
                if holding.agent != agent:
                    continue
                processes += holding.processes
                if not holding.error and holding.revision == (level.revision if level else 0):
                    current += holding.processes
                else:
                    behind.append(holding)
        return InForce(processes, current, behind)

    async def _hear(self, message: Message) -> None:
        session = message.subject.partition(".")[2]
        try:
            held = decode(message.data, Held)
        except MessageError:
            return
        holder = self._holders.get(session)
        if holder is None or not held.revisions.keys() <= holder.agents:
            holder = await self._known(session)
            if holder is None:
                return
        holder.environment = place_of(held.environment)
        holder.at_ns = self._world.monotonic_ns()
        known = {a: r for a, r in held.revisions.items() if a in holder.agents}
        holder.known = known
        holder.holdings = [each for each in held.holdings if each.agent in holder.agents]
        sets = self.newer(holder.environment, known)
        if message.reply:
            await self._bus.respond(message, encode(Newer(sets=sets)))

    async def _known(self, session: str) -> _Holder | None:
        """The session as its record has it now."""
        entry = await self._sessions.get(session) if self._sessions is not None else None
        if entry is None or not entry.value:
            return None
        try:
            record = decode(entry.value, SessionRecord)
        except MessageError:
            return None
        while len(self._holders) >= SESSIONS_MAX:
            del self._holders[next(iter(self._holders))]
        holder = self._holders[session] = _Holder(frozenset(record.agents))
        return holder

    def _forget_silent(self) -> None:
        since_ns = self._world.monotonic_ns() - round(SILENT_S * 1e9)
        for session in [s for s, holder in self._holders.items() if holder.at_ns < since_ns]:
            del self._holders[session]
