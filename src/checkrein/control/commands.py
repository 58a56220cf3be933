"""Commands and their lines: one line says what became of one command for one run."""

from dataclasses import dataclass, field
from typing import Any

from checkrein.bus.messages import CommandRun, CommandState, Order, Outcome

RUNGS = frozenset({"fence", "freeze", "capture", "unwind", "kill", "revoke"})
ARGUMENT_BYTES_MAX = 64 * 1024


@dataclass(eq=False, slots=True)
class Line:
    """One run of one command, as it stands (`run_id` empty: an agent of it). `leader`: this command
    asked for what another one had already ordered, so it lives by that one's receipts."""

    run_id: str
    agent: str
    index: int
    command: "Command" = field(repr=False)
    session: str = ""
    epoch: int = 0
    delivered_ms: float | None = None
    obeyed_ms: float | None = None
    how: dict[str, float] = field(default_factory=dict)
    confirmed: str = ""
    note: str = ""
    outcome: Outcome = ""
    sent_at_ns: int = 0
    leader: "Line | None" = field(default=None, repr=False)
    followers: list["Line"] = field(default_factory=list, repr=False)
    final_told: bool = False
    fences: dict[str, float] = field(default_factory=dict)
    """When each gateway had nothing of the run in flight any more, in its own milliseconds."""
    revoking: bool = False

    @property
    def open(self) -> bool:
        return not self.outcome

    def shown(self, note: str) -> CommandRun:
        return CommandRun(
            run_id=self.run_id,
            agent=self.agent,
            epoch=self.epoch,
            delivered_ms=self.delivered_ms,
            obeyed_ms=self.obeyed_ms,
            how=dict(self.how),
            confirmed=self.confirmed,
            note=note,
            outcome=self.outcome,
        )


@dataclass(eq=False, slots=True)
class Command:
    """A command since it was asked. `asked_ns` is on the monotonic clock, `asked_at` on the wall's.
    `waiting`: who wants to be told when it is done, and until when at the latest."""

    command_id: str
    verb: str
    target: str
    reason: str
    issued_by: str
    asked_at: int
    asked_ns: int
    epoch: int
    arguments: dict[str, Any]
    lines: list[Line] = field(default_factory=list)
    of_run: dict[str, Line] = field(default_factory=dict)
    open_count: int = 0
    error: str = ""
    escalated: bool = False
    rebuilt: bool = False
    """Known only by the orders it left: perhaps not all of its runs."""
    waiting: list[tuple[int, object]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.open_count == 0

    def ms_since(self, mono_ns: int) -> float:
        return round(max(0, mono_ns - self.asked_ns) / 1e6, 3)

    def add(self, run_id: str, agent: str, session: str) -> Line:
        line = Line(run_id, agent, len(self.lines), self, session, self.epoch)
        self.lines.append(line)
        self.of_run[run_id or f"agent:{agent}"] = line
        self.open_count += 1
        return line

    def state(self, lines: list[CommandRun]) -> CommandState:
        return CommandState(
            command_id=self.command_id,
            verb=self.verb,
            target=self.target,
            reason=self.reason,
            issued_by=self.issued_by,
            asked_at=self.asked_at,
            runs=lines,
            done=self.done,
            error=self.error,
            epoch=self.epoch,
            arguments=self.arguments,
            escalated=self.escalated,
        )


@dataclass(eq=False, slots=True)
class Group:
    """The lines of one command for one session: one signed order, sent again until all are closed.
    Lines that are closed, or whose run went over to another session, are left out of the next."""

    command: Command
    session: str
    lines: dict[str, Line]
    attempt: int = 0
    next_ns: int = 0

    def still_open(self) -> list[Line]:
        if any(line.outcome or line.session != self.session for line in self.lines.values()):
            self.lines = {
                run: line
                for run, line in self.lines.items()
                if line.open and line.session == self.session
            }
        return list(self.lines.values())


def command_of_order(order: Order, mono_ns: int, now_ns: int, epoch: int) -> Command:
    """A command found only as a standing order (control died before it wrote the command down)."""
    return Command(
        command_id=order.command_id,
        verb=order.verb,
        target=f"run:{order.runs[0].run_id}" if len(order.runs) == 1 else "",
        reason=order.reason,
        issued_by=order.issued_by,
        asked_at=order.issued_at,
        asked_ns=mono_ns - max(0, now_ns - order.issued_at),
        epoch=epoch,
        arguments=order.arguments,
        rebuilt=True,
    )


def command_of_state(state: CommandState, mono_ns: int, now_ns: int) -> Command:
    """A command as it was written down before a restart."""
    command = Command(
        command_id=state.command_id,
        verb=state.verb,
        target=state.target,
        reason=state.reason,
        issued_by=state.issued_by,
        asked_at=state.asked_at,
        asked_ns=mono_ns - max(0, now_ns - state.asked_at),
        epoch=state.epoch,
        arguments=state.arguments,
        error=state.error,
        escalated=state.escalated,
    )
    for shown in state.runs:
        line = command.add(shown.run_id, shown.agent, "")
        line.epoch = shown.epoch
        line.delivered_ms = shown.delivered_ms
        line.obeyed_ms = shown.obeyed_ms
        line.how = dict(shown.how)
        line.confirmed = shown.confirmed
        line.note = shown.note
        line.outcome = shown.outcome
        command.open_count -= bool(shown.outcome)
    return command
