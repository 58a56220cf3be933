"""What becomes of commands: reports of the holders, ends of runs, lines opened and closed."""

from checkrein.bus.messages import Outcome, Progress
from checkrein.bus.orders import STATE_VERBS
from checkrein.control import records, rules
from checkrein.control.book import Book
from checkrein.control.commands import RUNGS, Group, Line
from checkrein.control.records import ANSWERED, FINAL
from checkrein.control.registry import Run
from checkrein.control.types import Save

ORPHAN_MS_MAX = 3_600_000.0
_OBEYED = {"pause": "paused", "resume": "running", "halt": "halted"}


class Receipts:
    def __init__(self, book: Book) -> None:
        self._book = book

    def report(self, run: Run, progress: Progress) -> bool:
        """One report about one run; the caller has checked that the session holds the run. False
        when it belongs to no command this control knows."""
        command = self._book.commands.get(progress.command_id)
        line = None if command is None else command.of_run.get(progress.run_id)
        if line is None:
            line = run.state_line
            if line is None or line.command.command_id != progress.command_id:
                return False
        if line.epoch != progress.epoch and line.command.verb in ("pause", "resume"):
            return False  # it may have been undone since; a halt and an act never are
        self._apply(line, run, progress)
        for follower in line.followers:
            self._mirror(line, follower)
        return True

    def _apply(self, line: Line, run: Run, progress: Progress) -> None:
        since = line.command.ms_since(self._book.now)
        word = rules.read(line.command.verb, progress, run.record.holder)
        if line.delivered_ms is None:
            line.delivered_ms = since
        if progress.stage in RUNGS:
            line.how.setdefault(progress.stage, round(progress.ms, 3))
        if word.outcome == "obeyed" and line.outcome in ("", "obeyed"):
            if line.obeyed_ms is None:
                line.obeyed_ms = since
            if word.confirmed and not line.confirmed:
                line.confirmed = word.confirmed
                line.note = ""
            self._show(line, run)
        if word.note and not line.confirmed:
            line.note = word.note
        if word.outcome and line.open:
            self.close(line, word.outcome)
        elif progress.stage in ("kill", "revoke") and not line.open and not line.final_told:
            line.final_told = True
            self._book.backlog.append((line, FINAL))
        self._book.touch(line.command)

    def _show(self, line: Line, run: Run) -> None:
        """What was obeyed is shown at once, and not only with the holder's next beat."""
        status = _OBEYED.get(line.command.verb)
        if status and line is run.state_line and not run.ended and run.status != status:
            run.status = status
            self._book.changed(run)

    def _mirror(self, leader: Line, follower: Line) -> None:
        """A command that asked for what was ordered already shows how that goes, by its own clock:
        what had happened before it was asked counts as 0 ms."""
        since = follower.command.ms_since(self._book.now)
        if leader.delivered_ms is not None and follower.delivered_ms is None:
            follower.delivered_ms = since
        if leader.obeyed_ms is not None and follower.obeyed_ms is None:
            follower.obeyed_ms = since
        follower.how = leader.how
        follower.confirmed = leader.confirmed
        if leader.note and leader.note not in follower.note:
            follower.note = leader.note
        if not leader.open and follower.open:
            self.close(follower, leader.outcome)
        self._book.touch(follower.command)

    def join(self, follower: Line, leader: Line, why: str) -> None:
        follower.leader = leader
        follower.epoch = leader.epoch
        follower.note = f"{why}, by command {leader.command.command_id}"
        leader.followers.append(follower)
        self._mirror(leader, follower)

    def close(self, line: Line, outcome: Outcome, note: str = "") -> None:
        """The line's end. A closed line stays closed."""
        if not line.open:
            return
        line.outcome = outcome
        if note:
            line.note = note
        line.command.open_count -= 1
        run = self._book.registry.known(line.run_id)
        if run is not None and line in run.open:
            run.open.remove(line)
        self._book.backlog.append((line, ANSWERED))
        self._book.touch(line.command)
        for follower in line.followers:
            self._mirror(line, follower)

    def supersede(self, run: Run, verb: str, command_id: str) -> None:
        """A newer state is wanted: what it outranks is closed."""
        for line in list(run.open):
            if verb == "halt" or line.command.verb in ("pause", "resume"):
                self.close(line, "superseded", f"superseded by {verb} (command {command_id})")

    def overdue(self, group: Group) -> None:
        """A group's repeat was due: has it gone on for too long?"""
        book, command = self._book, group.command
        since_s = command.ms_since(book.now) / 1e3
        if command.verb not in STATE_VERBS:
            if since_s >= book.limits.act_life_s:
                for line in group.still_open():
                    said = "not obeyed" if line.delivered_ms is not None else "not delivered"
                    self.close(line, "failed", f"{said} within {since_s:.0f} s: given up")
        elif since_s >= book.limits.escalate_after_s and not command.escalated:
            command.escalated = True
            book.touch(command)
            self._escalate(group, since_s)

    def _escalate(self, group: Group, since_s: float) -> None:
        """A human is told, once for a command. Asking goes on."""
        book, command = self._book, group.command
        lines = group.still_open()
        why = f"{command.verb} not confirmed after {since_s:.0f} s for {len(lines)} of its runs"
        book.audit("escalated", f"{command.command_id}/escalated", {
            "kind": "escalated", "command_id": command.command_id, "why": why,
            "runs": [line.shown(book.note_of(line)) for line in lines], "at": book.world.now_ns(),
        })  # fmt: skip
        run = book.registry.known(lines[0].run_id)
        if run is not None:
            book.tell(
                records.incident_event(
                    run.record, book.next_epoch(), book.world.now_ns(), run.step,
                    f"unconfirmed-{command.command_id}", "unconfirmed", why,
                )
            )  # fmt: skip

    def orphan_ended(self, run_id: str, session: str, status: str) -> None:
        """A run that control forgot in a crash has ended: the lines that waited for it are over."""
        for line in self._book.orphans.pop(run_id, []):
            if line.session not in ("", session):
                self._book.orphans.setdefault(run_id, []).append(line)
                continue
            line.obeyed_ms = line.command.ms_since(self._book.now)
            outcome: Outcome = "obeyed" if line.command.verb == "halt" else "ended"
            self.close(line, outcome, f"the run has ended ({status})")

    def forget_orphans(self) -> None:
        """Lines of runs that never came back after a restart of control."""
        book = self._book
        for run_id, lines in list(book.orphans.items()):
            waiting = [line for line in lines if not self._given_up(line)]
            if waiting:
                book.orphans[run_id] = waiting
                continue
            del book.orphans[run_id]
            for session in {line.session for line in lines} - {""}:
                book.out.append(Save("level", f"{session}.{run_id}"))

    def _given_up(self, line: Line) -> bool:
        since_ms = line.command.ms_since(self._book.now)
        if line.command.verb not in STATE_VERBS:
            if since_ms > self._book.limits.act_life_s * 1e3:
                self.close(line, "failed", "its run was gone when control came back")
        elif since_ms > ORPHAN_MS_MAX:
            self.close(line, "ended", "the run was gone when control came back")
        return not line.open

    def ended(self, run: Run, status: str) -> None:
        """The run is over, and with it everything asked of it. A halt has then reached its aim;
        seen by the supervisor, if that is who says so."""
        seen = run.record.holder if run.record.holder != "sdk" else ""
        for line in list(run.open):
            if status == "lost":
                self.close(line, "ended", "the run was never heard of again")
            elif line.command.verb == "halt":
                line.obeyed_ms = line.command.ms_since(self._book.now)
                line.confirmed = line.confirmed or seen
                note = "" if status == "halted" and seen else f"the run has ended ({status})"
                if not seen:
                    note += "; " + rules.NOT_GUARANTEED
                self.close(line, "obeyed", note)
            else:
                self.close(line, "ended", f"the run has ended ({status})")
