"""Who is shut out at the gateways: `contain` and `release`, of agents and not of runs.

What stands in the bucket `contained` is what holds: every gateway reads it before it lets anybody
in, and follows it. A command has a line for each agent, without a run. It is obeyed when every
gateway that serves has said that nothing of the agent is in flight there any more; one that falls
silent without saying so may still let calls through, and then the command has failed and says so.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from checkrein.bus import subjects
from checkrein.bus.identities import Contained, GatewayRecord
from checkrein.bus.messages import Progress, RunRecord, encode
from checkrein.bus.sessions import outside
from checkrein.control.book import Book
from checkrein.control.commands import Command, Line
from checkrein.control.receipts import Receipts
from checkrein.control.registry import TargetError
from checkrein.control.types import Keep

Gateways = Callable[[], Mapping[str, GatewayRecord]]
"""Those that serve now, by session."""
VERBS = frozenset({"contain", "release"})
REPEAT_NS = 2_000_000_000
RELEASE_WAIT_MS = 5_000.0
RULE = "rule:"
"""How the issuer of a command is named that no person gave."""
NO_GATEWAY = (
    "no gateway serves, so nothing could refuse its calls: start one (`checkrein up`, or "
    "`checkrein serve gateway`), or halt its runs"
)


@dataclass(eq=False, slots=True)
class _Wait:
    """A line that waits for gateways. `said_under`: the id under which they report. `asked` and
    `told`: gateways as they are known by where they serve and which process they are."""

    line: Line
    said_under: str
    next_ns: int
    asked: dict[tuple[str, str, int], GatewayRecord] = field(default_factory=dict)
    told: set[tuple[str, str, int]] = field(default_factory=set)


class Containment:
    def __init__(self, book: Book, receipts: Receipts, gateways: Gateways) -> None:
        self._book, self._receipts, self._gateways = book, receipts, gateways
        self._waits: dict[str, _Wait] = {}
        self.contained: dict[str, Contained] = {}

    def restore(self, records: Iterable[Contained], commands: Iterable[Command]) -> None:
        """What stands, and the commands that were under way; the bucket is written anew, so that
        gateways say again how it stands."""
        self.contained = {record.agent: record for record in records}
        for command in commands:
            for line in command.lines if command.verb in VERBS else ():
                if line.open and not line.run_id:
                    self._begin(line)

    # -- orders ----------------------------------------------------------------------------------

    def order(self, command: Command) -> None:
        """Gives the command its lines, or its error."""
        try:
            agents = self._agents(command)
        except TargetError as fault:
            command.error = str(fault)
            return
        command.error = self._fault(command, agents)
        if command.error:
            return
        for agent in agents:
            line = command.add("", agent, "")
            if (agent in self.contained) == (command.verb == "contain"):
                self._stands(line)
            else:
                self._begin(line)

    def _agents(self, command: Command) -> list[str]:
        """Raises TargetError."""
        kind, _, name = command.target.partition(":")
        if kind == "agent" and name:
            return [name]
        if command.target == "all" and command.verb == "release":
            if not self.contained:
                raise TargetError("no agent is contained")
            return sorted(self.contained)
        return sorted({run.record.agent for run in self._book.registry.resolve(command.target)})

    def _fault(self, command: Command, agents: list[str]) -> str:
        if command.verb == "contain":
            return "" if self._gateways() else NO_GATEWAY
        if command.issued_by.startswith(RULE) or command.issued_by in agents:
            return f"a contained agent is released by a person, not by {command.issued_by}"
        return ""

    def _stands(self, line: Line) -> None:
        """It is so already."""
        wait = self._waits.get(line.agent)
        if wait is not None and wait.line.command.verb == line.command.verb:
            self._receipts.join(line, wait.line, f"{line.command.verb} was ordered already")
            return
        line.obeyed_ms = 0.0
        note = "it was not contained"
        found = self.contained.get(line.agent)
        if found is not None:
            line.confirmed = "gateway"
            note = f"contained already by {found.issued_by}: {found.reason}"
        self._receipts.close(line, "obeyed", note[:500])

    def _begin(self, line: Line) -> None:
        agent, command = line.agent, line.command
        before = self._waits.pop(agent, None)
        if before is not None:
            why = f"superseded by {command.verb} (command {command.command_id})"
            self._receipts.close(before.line, "superseded", why)
        said_under = command.command_id
        if command.verb == "contain":
            self.contained[agent] = Contained(
                agent=agent, reason=command.reason, issued_by=command.issued_by,
                at=command.asked_at, command_id=command.command_id,
            )  # fmt: skip
        else:
            found = self.contained.pop(agent, None)
            said_under = found.command_id if found is not None else ""
        self._keep(agent)
        self._waits[agent] = wait = _Wait(line, said_under, self._book.now + REPEAT_NS)
        self._look(wait)

    def _keep(self, agent: str) -> None:
        self._book.out.append(Keep("contained", subjects.token(agent)))

    # -- what gateways say -----------------------------------------------------------------------

    def report(self, session: str, progress: Progress) -> bool:
        """False when nobody waits for it."""
        record = self._gateways().get(session)
        for wait in list(self._waits.values()):
            if record is not None and _is_of(progress, wait):
                wait.told.add(_which(record))
                if progress.stage == "fence":
                    wait.line.how["fence"] = wait.line.command.ms_since(self._book.now)
                self._look(wait)
                return True
        return False

    def sweep(self) -> None:
        """Every quarter of a second: who is still to say so, who will not any more."""
        book = self._book
        for agent, wait in list(self._waits.items()):
            command = wait.line.command
            self._look(wait)
            if not wait.line.open:
                continue
            if wait.next_ns <= book.now:
                wait.next_ns = book.now + REPEAT_NS
                self._keep(agent)
            since_s = command.ms_since(book.now) / 1e3
            if since_s >= book.limits.escalate_after_s and not command.escalated:
                self._receipts.escalate(command, [wait.line], since_s)

    def _look(self, wait: _Wait) -> None:
        line, live = wait.line, self._serving()
        wait.asked.update(live)
        if line.delivered_ms is None and wait.told:
            line.delivered_ms = line.command.ms_since(self._book.now)
        pending = [one for which, one in live.items() if which not in wait.told]
        silent = [
            one for which, one in wait.asked.items()
            if which not in live and which not in wait.told and not _replaced(one, live.values())
        ]  # fmt: skip
        line.note = _waiting_for(pending + silent, len(live) + len(silent))
        self._book.touch(line.command)
        if line.command.verb == "release":
            overdue = line.command.ms_since(self._book.now) >= RELEASE_WAIT_MS
            if not pending or overdue:
                self._done(wait, line.note if pending or silent else "", not silent and bool(live))
        elif silent and not pending:
            self._waits.pop(line.agent, None)
            where = ", ".join(f"{one.url} on {one.host}" for one in silent)
            why = f"the gateway at {where} fell silent and has not said so: it may let calls pass"
            self._receipts.close(line, "failed", why)
        elif wait.told and not pending:
            self._done(wait, "", True)

    def _serving(self) -> dict[tuple[str, str, int], GatewayRecord]:
        """One process serves at an address: the last one to say so."""
        latest: dict[tuple[str, str], GatewayRecord] = {}
        for one in sorted(self._gateways().values(), key=lambda record: record.at):
            latest[one.host, one.url] = one
        return {_which(one): one for one in latest.values()}

    def _done(self, wait: _Wait, note: str, seen: bool) -> None:
        line = wait.line
        self._waits.pop(line.agent, None)
        line.obeyed_ms = line.command.ms_since(self._book.now)
        line.confirmed = "gateway" if seen and not note else ""
        line.note = note
        self._receipts.close(line, "obeyed")

    # -- what is known ---------------------------------------------------------------------------

    def saved(self, key: str) -> bytes | None:
        found = self.contained.get(subjects.name_of(key))
        return None if found is None else encode(found)

    def stand_in(self, agent: str) -> RunRecord:
        """The run under which an agent's containment is told: none of its own."""
        run_id, task_id = outside(agent, "contain")
        runs = [run.record for run in self._book.registry.runs.values()]
        like = next((one for one in reversed(runs) if one.agent == agent), None)
        return RunRecord(
            run_id=run_id, task_id=task_id, agent=agent, room=like.room if like else "",
            environment=like.environment if like else "", session="", holder="gateway",
            started_at=0,
        )  # fmt: skip


def _which(record: GatewayRecord) -> tuple[str, str, int]:
    """One process is one gateway, however many sessions it has."""
    return record.host, record.url, record.pid


def _replaced(gone: GatewayRecord, live: Iterable[GatewayRecord]) -> bool:
    """Another process serves at its address: it is no more."""
    return any((one.host, one.url) == (gone.host, gone.url) for one in live)


def _is_of(progress: Progress, wait: _Wait) -> bool:
    line = wait.line
    if progress.command_id != wait.said_under:
        return False
    if line.command.verb == "contain":
        return progress.stage == "fence" and progress.detail.startswith(f"{line.agent}: ")
    return progress.stage == "obeyed" and progress.detail == line.agent


def _waiting_for(missing: list[GatewayRecord], number: int) -> str:
    if not missing:
        return ""
    where = ", ".join(sorted({f"{one.url} on {one.host}" for one in missing})[:3])
    return f"{number - len(missing)} of {number} gateways have said so; waiting for {where}"
