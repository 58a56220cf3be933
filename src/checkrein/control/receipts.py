"""What becomes of commands: reports of the holders, ends of runs, lines opened and closed."""

from collections.abc import Callable, Sized

from checkrein.bus.messages import Outcome, Progress
from checkrein.bus.orders import NO_SDK, STATE_VERBS
from checkrein.control import records, rules
from checkrein.control.book import Book
from checkrein.control.commands import RUNGS, Command, Group, Line
from checkrein.control.records import ANSWERED, FINAL
from checkrein.control.registry import Run
from checkrein.control.types import Revoke, Save

FENCE_WAIT_NS = 300_000_000
ORPHAN_MS_MAX = 3_600_000.0
_OBEYED = {"pause": "paused", "resume": "running", "halt": "halted"}


class Receipts:
    def __init__(self, book: Book, gateways: Callable[[], Sized] = tuple) -> None:
        """`gateways`: those that serve now."""
        self._book, self._gateways = book, gateways
        self._unsure: dict[Line, int] = {}
        """Halts of which only the agent's own word has come, until when a fence may still come."""

    def settle(self) -> None:
        """Every quarter of a second: what no gateway has confirmed stands as the agent says."""
        now = self._book.now
        for line, until in list(self._unsure.items()):
            if not line.open or until <= now:
                del self._unsure[line]
                self.close(line, "obeyed")

    def report(self, run: Run, progress: Progress) -> bool:
        """One report about one run; the caller has checked that the session holds the run. False
        when it belongs to no command this control knows."""
        line = self._line_of(run, progress)
        if line is None:
            return False
        self._apply(line, run, progress)
        for follower in line.followers:
            self._mirror(line, follower)
        return True

    def seen_at_gateway(self, session: str, run: Run, progress: Progress) -> bool:
        """One report of a gateway about a run that somebody else holds. As `report`."""
        line = self._line_of(run, progress)
        if line is None:
            return False
        word = rules.at_gateway(line.command.verb, progress, run.record.holder)
        if progress.stage == "fence" and (line.open or "fence" not in line.how):
            line.fences.setdefault(session, round(progress.ms, 3))
            line.how["fence"] = max(line.fences.values())
            self._revoke(line)
        late = not line.open and word.outcome and not line.confirmed
        if word.confirmed and not line.confirmed:
            line.confirmed = word.confirmed
            line.note = word.note
        if word.outcome == "obeyed" and line.outcome in ("", "obeyed"):
            since = line.command.ms_since(self._book.now)
            line.delivered_ms = since if line.delivered_ms is None else line.delivered_ms
            line.obeyed_ms = since if line.obeyed_ms is None else line.obeyed_ms
            self._show(line, run)
            if line.open:
                self.close(line, "obeyed", word.note)
            elif late:
                self._tell_final(line)
        self._book.touch(line.command)
        for follower in line.followers:
            self._mirror(line, follower)
        return True

    def _revoke(self, line: Line) -> None:
        """Something has taken effect of a halt: behind it, the run's keys end."""
        if line.command.verb == "halt" and not line.revoking:
            line.revoking = True
            self._book.out.append(Revoke(line.run_id))

    def revoked(self, run: Run) -> None:
        """The keys of a halted run are gone."""
        line = run.state_line
        if line is None or line.command.verb != "halt" or "revoke" in line.how:
            return
        line.how["revoke"] = line.command.ms_since(self._book.now)
        self._book.touch(line.command)
        for follower in line.followers:
            self._mirror(line, follower)

    def _line_of(self, run: Run, progress: Progress) -> Line | None:
        command = self._book.commands.get(progress.command_id)
        line = None if command is None else command.of_run.get(progress.run_id)
        if line is None:
            line = run.state_line
            if line is None or line.command.command_id != progress.command_id:
                return None
        if line.epoch != progress.epoch and line.command.verb in ("pause", "resume"):
            return None  # it may have been undone since; a halt and an act never are
        return line

    def _tell_final(self, line: Line) -> None:
        if not line.final_told:
            line.final_told = True
            self._book.backlog.append((line, FINAL))

    def _apply(self, line: Line, run: Run, progress: Progress) -> None:
        since = line.command.ms_since(self._book.now)
        word = rules.read(line.command.verb, progress, run.record.holder)
        if line.delivered_ms is None:
            line.delivered_ms = since
        if progress.stage in RUNGS:
            line.how.setdefault(progress.stage, round(progress.ms, 3))
            self._revoke(line)
        if word.outcome == "refused" and self._gateway_may(line, run, progress):
            word = rules.Word(note=word.note)
        if word.outcome == "obeyed" and line.outcome in ("", "obeyed"):
            if line.obeyed_ms is None:
                line.obeyed_ms = since
            if word.confirmed and line.confirmed in ("", "gateway"):
                line.confirmed = word.confirmed
                line.note = ""
            self._show(line, run)
        if word.note and not line.confirmed:
            line.note = word.note
        if word.outcome and line.open and word.note == rules.NOT_GUARANTEED and self._gateways():
            self._unsure.setdefault(line, self._book.now + FENCE_WAIT_NS)
        elif word.outcome and line.open:
            self.close(line, word.outcome)
        elif progress.stage in ("kill", "revoke") and not line.open:
            self._tell_final(line)
        self._book.touch(line.command)

    def _gateway_may(self, line: Line, run: Run, progress: Progress) -> bool:
        """A program without the SDK cannot be told anything, but its calls may pass a gateway,
        which can place a directive in the next of them."""
        acts = line.command.verb in ("inject", "redirect")
        return acts and progress.detail == NO_SDK and run.record.level != "L0"

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
        self._revoke(line)
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
            self.escalate(command, group.still_open(), since_s)

    def escalate(self, command: Command, lines: list[Line], since_s: float) -> None:
        """A human is told, once for a command. Asking goes on."""
        book = self._book
        command.escalated = True
        book.touch(command)
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
                line.confirmed = seen or line.confirmed
                note = "" if status == "halted" and seen else f"the run has ended ({status})"
                if not line.confirmed:
                    note += "; " + rules.NOT_GUARANTEED
                self.close(line, "obeyed", note)
            else:
                self.close(line, "ended", f"the run has ended ({status})")
