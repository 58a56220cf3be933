"""Who is alive, and who could be stopped: beats, silence, probes."""

import msgspec

from checkrein.bus import subjects
from checkrein.bus.messages import (
    Beat,
    BeatAnswer,
    LiveRun,
    Progress,
    RunRecord,
    SessionRecord,
    encode,
)
from checkrein.bus.sessions import stand_in
from checkrein.control import records
from checkrein.control.book import Book
from checkrein.control.containment import Gateways
from checkrein.control.receipts import Receipts
from checkrein.control.registry import Run, Session
from checkrein.control.rules import NOT_GUARANTEED
from checkrein.control.types import Desired, Reply, Save, Send
from checkrein.events.refusals import FALSE_ORDER, FORGERY

SWEEP_NS = 250_000_000
_ACTING = frozenset({"running", "waiting_model", "waiting_tool"})
GATES_ASKED_MAX = 100
_CROSSING_MS = 2_000.0
"""A beat may have been on its way when an order was obeyed."""
_LEVELS = frozenset({"L0", "L1", "L2", "L3"})


class Liveness:
    def __init__(self, book: Book, receipts: Receipts, gateways: Gateways = dict) -> None:
        self._book = book
        self._receipts = receipts
        self._gateways = gateways
        self._gates_asked: dict[str, int] = {}
        self._gates_next_ns = book.now
        self.swept_ns = book.now
        self._deaf_since_ns: int | None = None

    def beat(self, session_id: str, beat: Beat, token: object) -> list[str]:
        """A holder is alive, and says how its runs do. Returns the runs it names but does not
        hold: forgeries, for the caller to report."""
        book, now = self._book, self._book.now
        session = book.registry.session(session_id, now)
        self.heard_of(session)
        unknown: list[str] = []
        foreign: list[str] = []
        for line in beat.runs:
            run = book.registry.runs.get(line.run_id)
            if run is None:
                gone = book.registry.ended.get(line.run_id)
                if gone is None or gone.status == "lost":
                    unknown.append(line.run_id)
            elif run.record.session != session_id:
                foreign.append(line.run_id)
            else:
                if book.registry.heard(run, line, now):
                    book.changed(run)
                self._compare(run)
        for line in beat.ended:
            run = book.registry.runs.get(line.run_id)
            if run is None:
                self._receipts.orphan_ended(line.run_id, session_id, line.status)
            elif run.record.session != session_id:
                foreign.append(line.run_id)
            else:
                self.end(run, line.status, line.reason)
        if token is not None:
            answer = BeatAnswer(
                at=book.delivery.clock.now_ns(),
                unknown=unknown,
                ended=[line.run_id for line in beat.ended],
            )
            book.out.append(Reply(token, encode(answer)))
        return foreign

    def heard_of(self, session: Session) -> None:
        """Silence is over: what was held back goes out at once."""
        book, now = self._book, self._book.now
        session.heard_ns = now
        if not session.state:
            return
        was, session.state = session.state, ""
        book.delivery.hasten(session.session, now)
        session.probe_next_ns = now
        for run in session.runs.values():
            book.changed(run)
            if was == "lost":
                self._tell_status(run, run.status, "its holder is heard of again")

    def end(self, run: Run, status: str, reason: str) -> None:
        book = self._book
        self._receipts.ended(run, status)
        for run_id in book.registry.end(run, status, reason, book.now):
            book.out.append(Save("run", run_id))
        book.out.append(Save("run", run.record.run_id))
        book.level(run)
        book.changed(run)

    def _compare(self, run: Run) -> None:
        """The holder's state against what is wanted: level beats edge. A holder that has not heard
        of the standing order, with no open line to repeat it, is told again."""
        standing, line = run.standing, run.state_line
        newer = run.epoch_seen > (0 if standing is None else standing.epoch)
        if newer and run.wanted != "halted":
            self._adopt(run)
            return
        if standing is None:
            return
        asked_ms = 0.0 if line is None else line.command.ms_since(self._book.now)
        if run.epoch_seen < standing.epoch:
            if line is None or (not line.open and asked_ms > _CROSSING_MS):
                data = self._book.delivery.standing(run)
                if data is not None:
                    self._book.out.append(Send(subjects.command(run.record.session), data))
            return
        acts_on = run.wanted == "halted" and run.status in _ACTING and line is not None
        if acts_on and line is not None and not line.open and not run.acting_told:
            patience_ms = self._book.limits.unconfirmed_after_s * 1e3
            if asked_ms > (line.obeyed_ms or 0.0) + patience_ms:
                run.acting_told = True
                self._tell_incident(run, "halt", "the run was halted, and says that it is running")

    def _adopt(self, run: Run) -> None:
        """The holder obeys a newer order than any on record: control died between sending it and
        writing it down. What it obeys is what is wanted; an older order could not win over it. But
        a halt that is wanted stays wanted."""
        if run.standing is not None:
            run.standing = None
            self._receipts.supersede(run, "resume", "of before a restart")
            self._book.level(run)
        wanted: dict[str, Desired] = {"paused": "paused", "halted": "halted"}
        run.state_line = None
        run.wanted = wanted.get(run.status, "running")

    def sweep(self) -> None:
        """Every quarter of a second: who has fallen silent, who is to be probed."""
        book, now = self._book, self._book.now
        gap_ns = now - self.swept_ns
        self.swept_ns = now
        if gap_ns > 8 * SWEEP_NS:
            self.was_deaf(gap_ns)
        probes = 0
        for session in list(book.registry.sessions.values()):
            if self._deaf_since_ns is None:
                self._judge_silence(session, now)
            wanted = session.runs and session.probe_next_ns <= now and session.state != "lost"
            if wanted and probes < book.limits.probes_per_step_max:
                probes += 1
                session.probe_next_ns = now + round(
                    book.limits.probe_every_s * (0.9 + 0.2 * book.world.random()) * 1e9
                )
                book.out.append(book.delivery.probe(session, now))
        if self._gates_next_ns <= now:
            self._gates_next_ns = now + round(book.limits.probe_every_s * 1e9)
            self._ask_gateways(now)
        for run_id in book.registry.forget_ended(now):
            book.out.append(Save("run", run_id))
        self._receipts.forget_orphans()

    def hear(self, up: bool) -> None:
        if up and self._deaf_since_ns is not None:
            self.was_deaf(self._book.now - self._deaf_since_ns)
        if up:
            self._deaf_since_ns = None
        elif self._deaf_since_ns is None:
            self._deaf_since_ns = self._book.now

    def was_deaf(self, gap_ns: int) -> None:
        """Control itself did not listen for so long: nobody is silent for that."""
        now = self._book.now
        for session in self._book.registry.sessions.values():
            session.heard_ns = min(now, session.heard_ns + gap_ns)
            for run in session.runs.values():
                run.heard_ns = min(now, run.heard_ns + gap_ns)

    def _judge_silence(self, session: Session, now: int) -> None:
        limits, book = self._book.limits, self._book
        silent_s = (now - session.heard_ns) / 1e9
        if silent_s >= limits.lost_after_s:
            state = "lost"
        else:
            state = "stuck" if silent_s >= limits.silent_after_s else ""
        if state != session.state and state:
            session.state = state
            for run in session.runs.values():
                book.changed(run)
                if state == "lost":
                    self._tell_status(run, "lost", f"its holder is silent for {silent_s:.0f} s")
        if not session.state:
            self._drop_unnamed(session, now)
        if state != "lost":
            return
        for run in list(session.runs.values()):
            kept_s = limits.lost_kept_s if run.wanted == "running" else limits.standing_kept_s
            if silent_s >= kept_s:
                why = f"its holder is silent for {silent_s:.0f} s: given up"
                event = records.lost_event(
                    run.record, book.next_epoch(), book.world.now_ns(), run.step, why
                )
                book.tell(event)
                self.end(run, "lost", why)
        if not session.runs:
            del book.registry.sessions[session.session]

    def _drop_unnamed(self, session: Session, now: int) -> None:
        """Runs that their living holder no longer names: it has ended them, and a late registration
        brought them back. (If not, its next beat names them and they are registered again.)"""
        patience_ns = self._book.limits.lost_after_s * 1e9
        for run in list(session.runs.values()):
            if session.heard_ns - run.heard_ns > patience_ns:
                self.end(run, "lost", "its holder no longer names it")

    def probed(self, session: Session, run: Run, progress: Progress) -> bool:
        """An answer to a probe. False when it answers no question that was asked."""
        asked_ns = session.nonces.get(progress.nonce)
        if asked_ns is None:
            return False
        holder = run.record.holder
        run.probed_ns = asked_ns
        run.probe_by = progress.by
        run.probe_can = progress.confirmed and progress.by == holder and holder != "sdk"
        run.probe_detail = progress.detail
        level = next((word for word in _LEVELS if word in progress.detail), "")
        if level and level != run.record.level and holder != "sdk":
            run.record = msgspec.structs.replace(run.record, level=level)
            self._book.changed(run)
        return True

    def _ask_gateways(self, now: int) -> None:
        """Of runs that nobody holds from outside, a gateway may know some: it could refuse their
        calls."""
        book = self._book
        runs = [run_id for run_id, run in book.registry.runs.items() if run.record.holder == "sdk"]
        if not runs:
            return
        for session in self._gateways():
            for at in range(0, len(runs), book.limits.runs_per_order_max):
                nonce = book.world.nonce()
                self._gates_asked[nonce] = now
                part = runs[at : at + book.limits.runs_per_order_max]
                book.out.append(book.delivery.probe_of(session, part, nonce))
        while len(self._gates_asked) > GATES_ASKED_MAX:
            del self._gates_asked[next(iter(self._gates_asked))]

    def probed_at_gateway(self, run: Run, progress: Progress) -> bool:
        """A gateway says that it could refuse this run's calls now."""
        asked_ns = self._gates_asked.get(progress.nonce)
        if asked_ns is None or not progress.confirmed or progress.by != "gateway":
            return False
        run.gated_ns = max(run.gated_ns or 0, asked_ns)
        return True

    def _gated(self, run: Run) -> bool:
        fresh_ns = self._book.limits.probe_fresh_s * 1e9
        return run.gated_ns is not None and self._book.now - run.gated_ns <= fresh_ns

    def can_halt(self, run: Run) -> tuple[bool, str]:
        """Could this run be halted now, and how is that known."""
        limits, record = self._book.limits, run.record
        if record.holder == "sdk" and run.gated_ns is not None and self._gated(run):
            ago_s = (self._book.now - run.gated_ns) / 1e9
            return True, f"a gateway answered a probe {ago_s:.0f} s ago: it refuses its calls, L1"
        if record.holder == "sdk":
            return False, NOT_GUARANTEED
        if run.probed_ns is None:
            return False, f"its {record.holder} has not answered a probe yet"
        session = self._book.registry.sessions.get(record.session)
        if session is not None and session.state:
            silent_s = (self._book.now - session.heard_ns) / 1e9
            return False, f"its {record.holder} is silent for {silent_s:.0f} s"
        ago_s = (self._book.now - run.probed_ns) / 1e9
        if ago_s > limits.probe_fresh_s:
            return False, f"its {record.holder} has not answered a probe for {ago_s:.0f} s"
        if not run.probe_can:
            return False, f"its {record.holder} cannot stop it: {run.probe_detail or 'no reason'}"
        return True, f"its {record.holder} answered a probe {ago_s:.0f} s ago: {record.level}"

    def live(self, run: Run) -> LiveRun:
        """A run as `ps` shows it."""
        now = self._book.now
        can, why = self.can_halt(run)
        status, reason = self.status_of(run)
        record = run.record
        if record.holder == "sdk" and record.level == "L0" and self._gated(run):
            record = msgspec.structs.replace(record, level="L1")
        return LiveRun(
            record=record,
            status=status,
            step=run.step,
            epoch=0 if run.standing is None else run.standing.epoch,
            can_halt=can and not run.ended,
            can_halt_why=f"it has ended ({run.status})" if run.ended else why,
            probed_ms_ago=None if run.probed_ns is None else (now - run.probed_ns) / 1e6,
            beat_ms_ago=(now - run.heard_ns) / 1e6,
            in_flight=run.in_flight,
            reason=reason,
        )

    def status_of(self, run: Run) -> tuple[str, str]:
        """The status to show, and why: never better than what has been confirmed."""
        if run.ended:
            return run.status, run.reason
        line = run.state_line
        asked = ""
        if line is not None and line.open:
            ms = line.command.ms_since(self._book.now)
            asked = f"{line.command.verb} asked {ms / 1e3:.1f} s ago, not confirmed"
        session = self._book.registry.sessions.get(run.record.session)
        if session is not None and session.state:
            silent = f"its holder is silent for {(self._book.now - session.heard_ns) / 1e9:.0f} s"
            return session.state, "; ".join(filter(None, [silent, asked]))
        if line is not None and line.confirmed and run.wanted == "halted":
            return "halted", run.reason or line.command.reason
        return run.status, asked or run.reason

    def _tell_status(self, run: Run, status: str, why: str) -> None:
        book = self._book
        book.tell(
            records.status_event(
                run.record, book.next_epoch(), book.world.now_ns(), run.step, status, why
            )
        )

    def tell_forgery(
        self, known: SessionRecord | None, session: str, tried: str, why: str, run_id: str
    ) -> None:
        """Somebody spoke for somebody else: an audit record, and an event of a run of the one who
        did, if the session can be named. `tried` "": bytes that said nothing, only recorded."""
        said = f"session {session}: {why}"
        self._tell_refusal(
            "forged", known, session, None, (FORGERY, "control", tried), said, run_id
        )

    def tell_false_order(
        self, known: SessionRecord | None, session: str, run: RunRecord | None, progress: Progress
    ) -> None:
        """A holder refused an order that control may never have given."""
        tried = progress.detail.partition(":")[0]
        said = f"{progress.by} of session {session}: {progress.detail}"
        self._tell_refusal(
            "refused", known, session, run, (FALSE_ORDER, "holder", tried), said, progress.run_id
        )

    def _tell_refusal(
        self, kind: str, known: SessionRecord | None, session: str, record: RunRecord | None,
        what: tuple[str, str, str], why: str, run_id: str,
    ) -> None:  # fmt: skip
        book = self._book
        epoch, now = book.next_epoch(), book.world.now_ns()
        book.audit(kind, f"{kind}/{epoch}", {
            "kind": kind, "session": session, "run_id": run_id, "why": why, "count": book.forged,
            "at": now,
        })  # fmt: skip
        held = book.registry.sessions.get(session)
        if record is None and held is not None and held.runs:
            record = next(reversed(held.runs.values())).record
        if record is None and known is not None:
            record = stand_in(known)
        if record is not None and known is not None and what[2]:
            book.tell(records.refusal_event(record, epoch, now, *what, why))

    def _tell_incident(self, run: Run, what: str, why: str) -> None:
        book = self._book
        epoch = book.next_epoch()
        book.tell(
            records.incident_event(
                run.record, epoch, book.world.now_ns(), run.step, f"{what}-{run.record.run_id}",
                what, why,
            )
        )  # fmt: skip
        book.audit("incident", f"incident/{epoch}", {
            "kind": "incident", "run_id": run.record.run_id, "agent": run.record.agent, "why": why,
            "at": book.world.now_ns(),
        })  # fmt: skip
