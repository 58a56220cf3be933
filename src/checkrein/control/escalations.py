"""Escalations: what somebody must look at, with a clock that control keeps.

    open ──acknowledged──▶ acknowledged
      └──due──▶ overdue (an incident of its own, and people outside are told) ──▶ acknowledged

The clock is a moment, written down with the escalation: it goes on over restarts of control. What
was raised while nobody listened comes late, with the time that it has waited.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from checkrein.bus.approvals import (
    Acknowledge,
    Asked,
    Decided,
    DecidedOne,
    Escalation,
    GateQuery,
    Raise,
)
from checkrein.bus.messages import RunRecord, encode
from checkrein.control import deciding, records
from checkrein.control.book import Book
from checkrein.control.commands import Command
from checkrein.control.types import Changed, Keep, Notify, Reply

WITHIN_S_MAX = 30 * 86400.0
PREFIX_CHARS_MIN = 8
LIST_BYTES_MAX = 1_500_000


class Escalations:
    def __init__(self, book: Book) -> None:
        self._book = book
        self._all: OrderedDict[str, Escalation] = OrderedDict()
        self._open: dict[str, None] = {}
        """Those that nobody has acknowledged."""

    def restore(self, escalations: Iterable[Escalation]) -> None:
        for record in sorted(escalations, key=lambda one: one.raised_at):
            self._all[record.escalation_id] = record
            if record.status != "acknowledged":
                self._open[record.escalation_id] = None

    def raised(self, of: RunRecord, word: Raise, token: object) -> None:
        """A holder raises one, or asks how it stands. The caller has checked that the session holds
        the run."""
        known = self._all.get(word.escalation_id)
        if known is None:
            if len(self._open) >= self._book.limits.escalations_open_max:
                why = f"{len(self._open)} escalations are open already, the most there may be"
                answer = Asked(claim=word.escalation_id, status="denied", reason=why)
                self._book.out.append(Reply(token, encode(answer)))
                return
            known = self._new(of, word)
        elif known.agent != of.agent:
            answer = Asked(claim=word.escalation_id, status="denied", reason="not its own")
            self._book.out.append(Reply(token, encode(answer)))
            return
        reply = Reply(token, encode(self._answer(known)))
        self._book.out.append(Keep("escalation", known.escalation_id, (reply,)))

    def of_command(self, command: Command, runs: Iterable[RunRecord]) -> None:
        """A person escalated these runs: each has somebody look at it, by a clock."""
        within = command.arguments.get("within_s", self._book.limits.escalate_within_s)
        within_s = float(within) if isinstance(within, int | float) else 0.0
        for record in runs:
            self._keep(
                self._of(
                    record, f"{command.command_id}-{record.run_id}", command.reason,
                    min(max(0.0, within_s), WITHIN_S_MAX), to=str(command.arguments.get("to", "")),
                    rule="command",
                ),
                record,
            )  # fmt: skip

    def _new(self, of: RunRecord, word: Raise) -> Escalation:
        within_s = min(max(0.0, word.within_s), WITHIN_S_MAX)
        record = self._of(
            of, word.escalation_id, word.why[:4_000], within_s, to=word.to[:500],
            rule=word.rule[:1_000], tool=word.tool, arguments=word.arguments,
            call_id=word.call_id, step=word.step, hold=word.hold,
            waited_s=max(0.0, word.waited_s),
        )  # fmt: skip
        self._keep(record, of, told=True)
        return record

    def _of(
        self, of: RunRecord, ident: str, why: str, within_s: float, *, waited_s: float = 0.0,
        **fields: Any,
    ) -> Escalation:  # fmt: skip
        at = self._now - round(waited_s * 1e9)
        return Escalation(
            escalation_id=ident, agent=of.agent, run_id=of.run_id, why=why, raised_at=at,
            due_at=at + round(within_s * 1e9) if within_s else 0, task_id=of.task_id,
            room=of.room, environment=of.environment, session=of.session, **fields,
        )  # fmt: skip

    def _keep(self, record: Escalation, of: RunRecord, told: bool = False) -> None:
        book, ident = self._book, record.escalation_id
        self._all[ident] = record
        self._open[ident] = None
        self._kept(record)
        if not told:
            epoch = book.next_epoch()
            book.tell(records.raised_event(of, epoch, book.world.now_ns(), record))
        book.audit("escalation", f"{ident}/raised", {
            "kind": "escalation.raised", **shown(record), "at": self._now,
        })  # fmt: skip
        book.out.append(Notify("escalation.raised", ident, shown(record)))

    def acknowledge(self, request: Acknowledge, token: object) -> None:
        fault = deciding.fault_of_acknowledgement(request)
        if fault:
            self._book.out.append(Reply(token, encode(Decided(error=fault))))
            return
        done = [self._acknowledge(ident, request) for ident in dict.fromkeys(request.ids[:1_000])]
        last = next((one.id for one in reversed(done) if one.ok), "")
        answer = Reply(token, encode(Decided(done=done)))
        self._book.out.append(Keep("escalation", last, (answer,)) if last else answer)

    def _acknowledge(self, ident: str, request: Acknowledge) -> DecidedOne:
        record = self._named(ident)
        if record is None:
            return DecidedOne(id=ident, ok=False, error="there is no escalation of this id")
        ident, status = record.escalation_id, record.status
        if status == "acknowledged":
            why = f"it was acknowledged by {record.acknowledged_by} already"
            return DecidedOne(id=ident, ok=False, status=status, error=why)
        if deciding.is_itself(request.by, record.agent, record.session, record.run_id):
            why = f"{request.by} is whom it is about: somebody else must acknowledge it"
            return DecidedOne(id=ident, ok=False, status=status, error=why)
        self._judge(record)
        record = self._all[ident] = replace(
            self._all[ident], status="acknowledged", acknowledged_by=request.by,
            acknowledged_at=self._now, note=request.note,
        )  # fmt: skip
        self._open.pop(ident, None)
        self._kept(record)
        book = self._book
        book.audit("escalation", f"{ident}/acknowledged", {
            "kind": "escalation.acknowledged", "escalation_id": ident, "by": request.by,
            "note": request.note, "late": record.overdue_at > 0, "at": self._now,
        })  # fmt: skip
        event = records.acknowledged_event(
            self._run_of(record), book.next_epoch(), book.world.now_ns(), record
        )
        book.tell(event)
        return DecidedOne(id=ident, ok=True, status="acknowledged")

    def sweep(self) -> None:
        """Every quarter of a second: whose time is up."""
        for ident in list(self._open):
            self._judge(self._all[ident])

    def _judge(self, record: Escalation) -> None:
        if record.status != "open" or not record.due_at or self._now < record.due_at:
            return
        book, ident = self._book, record.escalation_id
        record = self._all[ident] = replace(record, status="overdue", overdue_at=self._now)
        self._kept(record)
        within_s = (record.due_at - record.raised_at) / 1e9
        whom = record.to or "nobody named"
        why = f"escalated to {whom}, not acknowledged within {within_s:.0f} s: {record.why}"
        of = self._run_of(record)
        book.tell(
            records.incident_event(
                of, book.next_epoch(), book.world.now_ns(), record.step, f"escalation-{ident}",
                "escalation", why[:4_000], "high",
            )
        )  # fmt: skip
        book.audit("escalation", f"{ident}/overdue", {
            "kind": "escalation.overdue", **shown(record), "at": self._now,
        })  # fmt: skip
        book.out.append(Notify("escalation.overdue", ident, shown(record)))

    def saved(self, key: str) -> bytes | None:
        record = self._all.get(key)
        return None if record is None else encode(record)

    def list(self, query: GateQuery) -> list[Escalation]:
        """Those that wait for somebody first; of both, the newest first."""
        if query.ids:
            named = [self._named(ident) for ident in query.ids[:1_000]]
            found = [record for record in named if record is not None]
        else:
            newest = list(reversed(self._all.values()))
            found = [one for one in newest if query.all or one.status != "acknowledged"]
            found.sort(key=lambda record: record.status == "acknowledged")
        answer: list[Escalation] = []
        room = LIST_BYTES_MAX
        for record in found[: query.limit]:
            room -= len(encode(record))
            if room < 0 and answer:
                break
            answer.append(record)
        return answer

    def _answer(self, record: Escalation) -> Asked:
        left_s = (record.due_at - self._now) / 1e9 if record.due_at else 0.0
        return Asked(
            claim=record.escalation_id, status=record.status, approval_id=record.escalation_id,
            by=record.acknowledged_by, reason=record.note, left_s=max(0.0, left_s),
        )  # fmt: skip

    @property
    def _now(self) -> int:
        return self._book.delivery.clock.now_ns()

    def _named(self, ident: str) -> Escalation | None:
        record = self._all.get(ident)
        if record is not None or len(ident) < PREFIX_CHARS_MIN:
            return record
        found = [one for key, one in self._all.items() if key.startswith(ident)]
        return found[0] if len(found) == 1 else None

    def _run_of(self, record: Escalation) -> RunRecord:
        run = self._book.registry.known(record.run_id)
        return records.stand_in_run(record) if run is None else run.record

    def _kept(self, record: Escalation) -> None:
        out = self._book.out
        out.append(Keep("escalation", record.escalation_id))
        out.append(Changed("escalation", record.escalation_id))
        excess = len(self._all) - len(self._open) - self._book.limits.escalations_kept_max
        for ident in list(self._all) if excess > 0 else ():
            if excess > 0 and ident not in self._open:
                del self._all[ident]
                out.append(Keep("escalation", ident))
                excess -= 1


def shown(record: Escalation) -> dict[str, Any]:
    """An escalation as people outside are told of it."""
    return {
        "escalation_id": record.escalation_id, "agent": record.agent, "run_id": record.run_id,
        "room": record.room, "to": record.to, "why": record.why, "rule": record.rule,
        "tool": record.tool, "arguments": record.arguments, "status": record.status,
        "raised_at": record.raised_at, "due_at": record.due_at,
    }  # fmt: skip
