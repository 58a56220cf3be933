"""The control state machine: `Control.step(input)` returns what is to be done, and does nothing.

What it promises, whatever is lost, repeated, late or out of order, and over crashes of its own:

    epochs rise over all commands and all starts, so an older order never wins;
    a halt is asked of a run until a supervisor or a gateway has seen it stopped, the run has ended,
    or the run itself (when nobody else can see it) says so: then it is not called confirmed;
    a run that comes back, or that was on its way in, finds what is wanted of it;
    a command repeated under its id is the same command;
    a session speaks for its own agents and runs, as the kind of holder it is: what goes beyond is
    refused, counted, and told with the name of the one who tried.

The orders of a command come first in what a step returns. What only has to be told (events, audit
records) is left for the ticks that follow, a bounded number at a time.
"""

from collections.abc import Iterable, Mapping
from typing import assert_never

from checkrein.bus.approvals import Approval, Escalation, GateQuery
from checkrein.bus.identities import Contained
from checkrein.bus.messages import (
    CommandState,
    LiveQuery,
    LiveRun,
    Order,
    Progress,
    Registered,
    RunRecord,
    SessionRecord,
    encode,
)
from checkrein.bus.orders import NOT_OBEYED
from checkrein.bus.sessions import objection_to_run, objection_to_word
from checkrein.control import records
from checkrein.control.asking import Desk, refusal
from checkrein.control.book import (
    EPOCHS_PER_GENERATION,
    EPOCHS_RESERVE,
    Book,
    OutOfEpochs,
)
from checkrein.control.commands import Line
from checkrein.control.containment import Containment, Gateways
from checkrein.control.gates import Gates
from checkrein.control.liveness import SWEEP_NS, Liveness
from checkrein.control.receipts import Receipts
from checkrein.control.records import ASKED
from checkrein.control.registry import Run
from checkrein.control.restoring import adopt, restore
from checkrein.control.signing import OrderSigner
from checkrein.control.types import (
    Acknowledging,
    Action,
    Asking,
    Beating,
    Deciding,
    Hearing,
    Input,
    Limits,
    Misread,
    Registering,
    Reply,
    Reporting,
    Revoked,
    Save,
    Seeking,
    Tick,
)
from checkrein.world import World

QUERY_MAX = 5_000
CLOCK_RESERVE_S = 15.0
QUIET_NS = 10_000_000
"""Telling waits until no command and no report has come for so long (a quarter second at most)."""


class Control:
    """One control. `generation` must be larger than any recorded by an earlier start, and
    `not_before` the latest time recorded (see `generation_wanted`, `clock_wanted`). `sessions`:
    who the sessions are, by name, kept up to date by the caller. Not for threads."""

    def __init__(
        self,
        signer: OrderSigner,
        world: World,
        generation: int,
        sessions: Mapping[str, SessionRecord],
        limits: Limits | None = None,
        not_before: int = 0,
        gateways: Gateways = dict,
    ) -> None:
        self._book = Book(signer, world, limits or Limits(), generation)
        self._book.delivery.clock.not_before(not_before)
        self._receipts = Receipts(self._book, gateways)
        self._gates = Gates(self._book, sessions, self._forgery)
        self._shut = Containment(self._book, self._receipts, gateways)
        self._desk = Desk(
            self._book, self._receipts, self._gates.escalations.of_command, self._shut
        )
        self._live = Liveness(self._book, self._receipts, gateways)
        self._sessions = sessions
        self._forgeries: dict[str, int] = {}

    def restore(
        self, runs: Iterable[RunRecord], commands: Iterable[CommandState], levels: Iterable[Order],
        approvals: Iterable[Approval] = (), escalations: Iterable[Escalation] = (),
        contained: Iterable[Contained] = (),
    ) -> list[Action]:  # fmt: skip
        """What an earlier start wrote down; to be called before the first step. Finished commands
        of late are told again, in case the earlier start died before it could."""
        restore(self._book, self._desk, self._receipts, runs, commands, levels)
        self._gates.restore(approvals, escalations)
        self._shut.restore(contained, list(self._book.commands.values()))
        return self._book.flush()

    def step(self, given: Input) -> list[Action]:
        """Takes one input in. The actions are to be carried out in order; Send and Reply at once,
        the others when there is time."""
        match given:
            case Asking():
                self._ask(given)
            case Reporting():
                self._report(given)
            case Beating():
                self._beat(given)
            case Registering():
                self._register(given)
            case Seeking():
                self._gates.seek(given)
            case Deciding():
                self._gates.decide(given)
            case Acknowledging():
                self._gates.acknowledge(given)
            case Misread():
                self._forgery(given.session, "", f"{given.subject}: {given.why}")  # no name in it
            case Tick():
                self._tick()
            case Hearing():
                self._live.hear(given.up)
            case Revoked():
                run = self._book.registry.known(given.run_id)
                if run is not None:
                    self._receipts.revoked(run)
            case _:
                assert_never(given)
        return self._book.flush()

    @property
    def due_ns(self) -> int:
        """When the next Tick is wanted, on the monotonic clock."""
        book = self._book
        due = self._live.swept_ns + SWEEP_NS
        if book.backlog:
            due = min(due, book.busy_ns + QUIET_NS)
        if book.delivery.due_ns is not None:
            due = min(due, book.delivery.due_ns)
        if book.waits:
            due = min(due, book.waits[0][0])
        return due

    @property
    def clock_wanted(self) -> int:
        """The time (ns) that must be on record so that no later start dates its orders before those
        of this one. Good for CLOCK_RESERVE_S: the edge records it anew more often than that."""
        return self._book.delivery.clock.now_ns() + round(CLOCK_RESERVE_S * 1e9)

    @property
    def generation_wanted(self) -> int:
        """The generation that must be on record for the epochs in use and those to come soon: the
        edge keeps the recorded one at least so high (`reserved` says when it is)."""
        book = self._book
        near = book.epoch_end - book.epoch < EPOCHS_RESERVE
        return book.epoch_end // EPOCHS_PER_GENERATION - 1 + near

    def reserved(self, generation: int) -> None:
        """This generation is on record: its epochs may be used."""
        end = (generation + 1) * EPOCHS_PER_GENERATION
        self._book.epoch_end = max(self._book.epoch_end, end)

    @property
    def forged(self) -> int:
        """How many messages were refused because their sender spoke for somebody else."""
        return self._book.forged

    @property
    def stray(self) -> int:
        """How many reports belonged to no command or probe known (late ones, mostly)."""
        return self._book.stray

    def saved(self, kind: str, key: str) -> bytes | None:
        """The value that a Save asks to be written under `key` now; None: delete the key."""
        book = self._book
        if kind in ("approval", "escalation"):
            return self._gates.saved(kind, key)
        if kind == "contained":
            return self._shut.saved(key)
        if kind == "command":
            command = book.commands.get(key)
            return None if command is None else encode(book.state_of(command))
        if kind == "run":
            run = book.registry.runs.get(key)
            return None if run is None else encode(run.record)
        session, _, run_id = key.partition(".")
        run = book.registry.runs.get(run_id)
        if run is None or run.record.session != session:
            return None
        return book.delivery.standing(run)

    def halted(self, run_id: str) -> bool:
        """Whether this run is to be halted, or is."""
        run = self._book.registry.known(run_id)
        return run is not None and run.wanted == "halted"

    def runs(self, query: LiveQuery) -> list[LiveRun]:
        """Live runs, and those that ended in the last minutes."""
        registry = self._book.registry
        if query.ids:
            found = [registry.known(run_id) for run_id in query.ids[:QUERY_MAX]]
            return [self._live.live(run) for run in found if run is not None]
        if query.session:
            session = registry.sessions.get(query.session)
            return [] if session is None else [self._live.live(r) for r in session.runs.values()]
        ids = sorted(run_id for run_id in (registry.runs | registry.ended) if run_id > query.after)
        shown = (registry.known(run_id) for run_id in ids[: min(query.limit, QUERY_MAX)])
        return [self._live.live(run) for run in shown if run is not None]

    def commands(self, query: LiveQuery) -> list[CommandState]:
        """Commands, the newest first."""
        book = self._book
        if query.ids:
            found = [book.commands.get(command_id) for command_id in query.ids[:QUERY_MAX]]
            return [book.state_of(command) for command in found if command is not None]
        newest = sorted(book.commands.values(), key=lambda command: -command.epoch)
        if query.after in book.commands:
            newest = newest[newest.index(book.commands[query.after]) + 1 :]
        return [book.state_of(command) for command in newest[: min(query.limit, 100)]]

    def approvals(self, query: GateQuery) -> list[Approval]:
        """What people were asked: what is open first, the newest first."""
        return self._gates.approvals.list(query)

    def escalations(self, query: GateQuery) -> list[Escalation]:
        """What people are to look at: what waits for them first, the newest first."""
        return self._gates.escalations.list(query)

    def _ask(self, given: Asking) -> None:
        self._book.busy_ns = self._book.now
        try:
            self._desk.ask(given.request, given.token)
        except OutOfEpochs as error:
            answer = encode(refusal(given.request, str(error)))
            self._book.out.append(Reply(given.token, answer))

    def _report(self, given: Reporting) -> None:
        registry = self._book.registry
        self._book.busy_ns = self._book.now
        session = registry.sessions.get(given.session)
        for progress in given.progress:
            why = self._objection(given.session, progress)
            run = registry.known(progress.run_id)
            if why:
                self._forgery(given.session, "report", why, progress.run_id)
            elif progress.stage == "refused" and not progress.run_id:
                self._false_order(given.session, None, progress)
            elif self._from_outside(given.session, run):
                self._book.stray += not self._witnessed(given.session, run, progress)
            elif run is None or session is None:
                self._book.stray += 1
            elif run.record.session != given.session:
                why = "a report on a run it does not hold"
                self._forgery(given.session, "report", why, progress.run_id)
            elif progress.stage == "probe":
                self._book.stray += not self._live.probed(session, run, progress)
            else:
                if progress.stage == "refused" and progress.detail in NOT_OBEYED:
                    self._false_order(given.session, run.record, progress)
                self._book.stray += not self._receipts.report(run, progress)

    def _from_outside(self, session: str, run: Run | None) -> bool:
        """Whether this is a gateway that speaks of what somebody else holds, as it may."""
        known = self._sessions.get(session)
        return (
            known is not None and known.kind == "gateway"
            and (run is None or run.record.session != session)
        )  # fmt: skip

    def _witnessed(self, session: str, run: Run | None, progress: Progress) -> bool:
        if not progress.run_id:
            return self._shut.report(session, progress)
        if run is None:
            return False
        if progress.stage == "probe":
            return self._live.probed_at_gateway(run, progress)
        return self._receipts.seen_at_gateway(session, run, progress)

    def _objection(self, session: str, progress: Progress) -> str:
        if progress.session != session:
            return f"a report in the name of session {progress.session}"
        return objection_to_word(self._sessions.get(session), progress)

    def _beat(self, given: Beating) -> None:
        if given.beat.session != given.session:
            why = f"a beat in the name of session {given.beat.session}"
            self._forgery(given.session, "beat", why)
            return
        for run_id in self._live.beat(given.session, given.beat, given.token):
            self._forgery(given.session, "beat", "a beat for a run it does not hold", run_id)

    def _register(self, given: Registering) -> None:
        book, registration = self._book, given.registration
        if registration.session != given.session:
            why = f"a registration in the name of session {registration.session}"
            self._forgery(given.session, "register", why)
            book.out.append(Reply(given.token, encode(Registered(error=why))))
            return
        known = self._sessions.get(given.session)
        if known is None:
            why = f"session {given.session} is not known here: ask the server for it again"
            self._forgery(given.session, "register", why)
            book.out.append(Reply(given.token, encode(Registered(error=why))))
            return
        session = book.registry.session(given.session, book.now)
        orders: list[bytes] = []
        errors: list[str] = []
        for record in registration.runs:
            why = objection_to_run(known, record)
            if why:
                errors.append(why)
                self._forgery(given.session, f"register {record.agent}", why, record.run_id)
                continue
            run, error = book.registry.register(given.session, record, book.now)
            if run is None:
                errors.append(error)
                if "another session" in error or "names session" in error:
                    self._forgery(given.session, "register", error, record.run_id)
                continue
            adopt(book, self._receipts, run)
            for line in run.open:
                if line.session != given.session:
                    line.session = given.session
                    book.out.extend(book.delivery.open(line.command, [line]))
            self._desk.late(run)
            standing = None if run.ended else book.delivery.standing(run)
            if standing is not None:
                orders.append(standing)
                book.level(run)
            book.out.append(Save("run", record.run_id))
            book.changed(run)
        self._live.heard_of(session)
        book.delivery.hasten(given.session, book.now)
        session.probe_next_ns = book.now
        answer = Registered(orders=orders, error="; ".join(errors[:5]))
        book.out.insert(0, Reply(given.token, encode(answer)))

    def _tick(self) -> None:
        book = self._book
        for group, sends in book.delivery.due(book.now, book.registry.sessions):
            book.out.extend(sends)
            self._receipts.overdue(group)
        book.answer_waits()
        swept = book.now - self._live.swept_ns >= SWEEP_NS
        if swept:
            self._live.sweep()
            self._gates.sweep()
            self._shut.sweep()
            self._receipts.settle()
            self._forgeries.clear()
        if swept or book.now - book.busy_ns >= QUIET_NS:
            self._tell_backlog()

    def _tell_backlog(self) -> None:
        """Events for the history, and audit records, one a command for all lines told together."""
        book = self._book
        asked: dict[str, list[Line]] = {}
        told: dict[str, list[Line]] = {}
        for _ in range(min(len(book.backlog), book.limits.records_per_step_max)):
            line, kind = book.backlog.popleft()
            (asked if kind == ASKED else told).setdefault(line.command.command_id, []).append(line)
            run = book.registry.known(line.run_id)
            if run is None and line.run_id:
                continue
            of = self._shut.stand_in(line.agent) if run is None else run.record
            step = 0 if run is None else run.step
            if kind == ASKED:
                book.tell(records.asked_event(line, of, step))
            else:
                now, note = book.world.now_ns(), book.note_of(line)
                book.tell(records.receipt_event(line, of, step, note, now, kind))
        for lines in told.values():
            command = lines[0].command
            shown = [line.shown(book.note_of(line)) for line in lines]
            record = records.receipt_record(command, shown, book.world.now_ns())
            ends = f"{lines[0].index}-{lines[-1].index}/{sum(line.final_told for line in lines)}"
            book.audit("receipt", f"{command.command_id}/receipt/{ends}", record)

    def _forgery(self, session: str, tried: str, why: str, run_id: str = "") -> None:
        """Counts, and reports by name. `run_id`: the run it was about, if there is one."""
        self._book.forged += 1
        if self._may_tell(session):
            self._live.tell_forgery(self._sessions.get(session), session, tried, why, run_id)

    def _false_order(self, session: str, run: RunRecord | None, progress: Progress) -> None:
        if self._may_tell(session):
            self._live.tell_false_order(self._sessions.get(session), session, run, progress)

    def _may_tell(self, session: str) -> bool:
        """Bounds what is told of each session in a quarter of a second."""
        told = self._forgeries[session] = self._forgeries.get(session, 0) + 1
        return told <= self._book.limits.forgeries_per_s_max and len(self._forgeries) <= 1_000
