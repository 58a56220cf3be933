"""What control writes down: events for the history, records for the audit stream.

Every event has a number that follows from what it says (the command's epoch, the run's place in the
command, asked or answered), so the same event told twice, also by the next start of control, is
told once: readers drop repeats by (agent, recorder, seq).
"""

from typing import Any, Literal

from checkrein.bus.approvals import Approval, Escalation
from checkrein.bus.messages import CommandRun, RunRecord
from checkrein.control.commands import Command, Line
from checkrein.events.refusals import refused
from checkrein.events.types import (
    ApprovalDecided,
    Base,
    EscalationAcknowledged,
    EscalationRaised,
    Incident,
    Receipt,
    RunEnd,
    Status,
)
from checkrein.events.types import Command as CommandEvent

RECORDER = "role:control"
LINES_PER_COMMAND_MAX = 16_384
SEQS_PER_EPOCH = LINES_PER_COMMAND_MAX * 4
ASKED, ANSWERED, FINAL, LOST = range(4)


def seq_of(epoch: int, index: int, kind: int) -> int:
    """Rises with the epoch; 53 bits last for 137,000 starts of a million commands each."""
    return epoch * SEQS_PER_EPOCH + index * 4 + kind


def common(record: RunRecord, seq: int, ts: int, step: int) -> dict[str, Any]:
    return {
        "recorder": RECORDER,
        "seq": seq,
        "ts": ts,
        "environment": record.environment,
        "room": record.room,
        "agent": record.agent,
        "run_id": record.run_id,
        "task_id": record.task_id,
        "step": step,
    }


def asked_event(line: Line, record: RunRecord, step: int) -> Base:
    command = line.command
    return CommandEvent(
        **common(record, seq_of(command.epoch, line.index, ASKED), command.asked_at, step),
        command_id=command.command_id,
        verb=command.verb,
        target=command.target,
        reason=command.reason,
        issued_by=command.issued_by,
        epoch=line.epoch,
        arguments=command.arguments,
    )


def receipt_event(line: Line, record: RunRecord, step: int, note: str, now: int, kind: int) -> Base:
    return Receipt(
        **common(record, seq_of(line.command.epoch, line.index, kind), now, step),
        command_id=line.command.command_id,
        verb=line.command.verb,
        delivered_ms=line.delivered_ms,
        obeyed_ms=line.obeyed_ms,
        how=[{"rung": rung, "ms": ms} for rung, ms in line.how.items()],
        confirmed=line.confirmed,
        note=note,
    )


def status_event(record: RunRecord, epoch: int, now: int, step: int, what: str, why: str) -> Base:
    return Status(**common(record, seq_of(epoch, 0, LOST), now, step), status=what, reason=why)


def lost_event(record: RunRecord, epoch: int, now: int, step: int, why: str) -> Base:
    return RunEnd(
        **common(record, seq_of(epoch, 0, LOST), now, step), status="lost", reason=why, steps=step
    )


def incident_event(
    record: RunRecord, epoch: int, now: int, step: int, incident_id: str, detector: str, why: str,
    severity: Literal["high", "critical"] = "critical",
) -> Base:  # fmt: skip
    return Incident(
        **common(record, seq_of(epoch, 0, LOST), now, step),
        incident_id=incident_id,
        severity=severity,
        detector=detector,
        why=why,
    )


def decided_event(record: RunRecord, epoch: int, now: int, approval: Approval) -> Base:
    decision: Literal["approved", "denied", "expired", "withdrawn"] = "approved"
    if approval.status in ("denied", "expired", "withdrawn"):
        decision = approval.status
    return ApprovalDecided(
        **common(record, seq_of(epoch, 0, LOST), now, approval.step),
        approval_id=approval.approval_id,
        decision=decision,
        decided_by=approval.decided_by,
        reason=approval.decision_reason,
    )


def acknowledged_event(record: RunRecord, epoch: int, now: int, escalation: Escalation) -> Base:
    return EscalationAcknowledged(
        **common(record, seq_of(epoch, 0, LOST), now, escalation.step),
        escalation_id=escalation.escalation_id,
        by=escalation.acknowledged_by,
        note=escalation.note,
    )


def raised_event(record: RunRecord, epoch: int, now: int, escalation: Escalation) -> Base:
    return EscalationRaised(
        **common(record, seq_of(epoch, 0, LOST), now, escalation.step),
        escalation_id=escalation.escalation_id,
        to=escalation.to,
        why=escalation.why,
        due_at=escalation.due_at,
    )


def stand_in_run(gate: Approval | Escalation) -> RunRecord:
    """The run of an approval or an escalation, when it is not registered any more."""
    return RunRecord(
        run_id=gate.run_id, task_id=gate.task_id, agent=gate.agent, room=gate.room,
        environment=gate.environment, session=gate.session, holder="sdk", started_at=0,
    )  # fmt: skip


def refusal_event(
    record: RunRecord, epoch: int, now: int, rule: str, guard: str, tried: str, why: str
) -> Base:
    return refused(common(record, seq_of(epoch, 0, LOST), now, 0), rule, guard, tried, why)


def asked_record(command: Command) -> dict[str, Any]:
    return {
        "kind": "command",
        "command_id": command.command_id,
        "verb": command.verb,
        "target": command.target,
        "reason": command.reason,
        "issued_by": command.issued_by,
        "asked_at": command.asked_at,
        "epoch": command.epoch,
        "arguments": command.arguments,
        "error": command.error,
        "runs": [line.run_id for line in command.lines],
    }


def receipt_record(command: Command, lines: list[CommandRun], now: int) -> dict[str, Any]:
    return {
        "kind": "receipt",
        "command_id": command.command_id,
        "verb": command.verb,
        "at": now,
        "runs": lines,
    }
