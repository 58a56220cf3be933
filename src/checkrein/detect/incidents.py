"""Signals that belong together, as one incident: pure, deterministic, bounded.

Breaches open incidents; warnings only join one that is open. One task has one incident at a time:
the chain of agents that serve one request fails together, so the incident stands at the earliest
breached ancestor, and what breaches later down the chain is counted as its members. A breach more
than half an hour after the last one of its task opens a new incident. A forgery is an attack and no
failure of the chain: it stands in an incident of its own run, so that no other trouble hides it.

An incident is published when it opens, when it grows graver, when it moves to an ancestor, and when
its count reaches the next power of two; the bucket always gets the latest. The same signals always
make the same incidents with the same ids.
"""

from hashlib import blake2b
from typing import Literal

import msgspec

from checkrein.events.types import Handoff, Incident, RunEnd, RunStart, Signal

TASKS_MAX = 10_000
NODES_PER_TASK_MAX = 512
GROUP_NS = 1_800 * 1_000_000_000

Severity = Literal["low", "medium", "high", "critical"]
_ORDER: tuple[Severity, ...] = ("low", "medium", "high", "critical")
_APART = ("forgery", "false-order")
_GRAVE = ("process-death", "silence", *_APART)


class Member(msgspec.Struct):
    """One run with a signal in an incident."""

    run_id: str
    agent: str
    first_ns: int
    count: int = 1


class Case(msgspec.Struct):
    """An incident as it is kept: what `incidents` shows, and what grouping needs."""

    incident_id: str
    severity: Severity
    detector: str
    agent: str
    run_id: str
    task_id: str
    room: str
    environment: str
    opened_at: int
    last_at: int
    count: int
    why: str
    step: int = 0
    status: Literal["open", "acknowledged", "closed"] = "open"
    outcome: str = ""
    owner: str = ""
    published: int = 0
    members: dict[str, Member] = {}
    detectors: dict[str, int] = {}


class Task(msgspec.Struct):
    """What grouping knows of a task: who called whom, and its latest incident."""

    parents: dict[str, str] = {}
    case: Case | None = None


class Incidents:
    """`link` tells it who descends from whom; `add` takes a signal in and returns the incident it
    belongs to and whether that is worth an event. State: 10,000 tasks, the one heard of longest ago
    forgotten first, of 512 runs each."""

    def __init__(self, tasks_max: int = TASKS_MAX) -> None:
        self.tasks: dict[str, Task] = {}
        self._tasks_max = tasks_max

    def link(self, event: RunStart | Handoff) -> None:
        """A run's parent, from its start or from the handoff that made it."""
        match event:
            case RunStart():
                child, parent = event.run_id, event.parent_run_id
            case Handoff():
                child, parent = event.to_run_id, event.run_id
        if not child or not parent or child == parent:
            return
        task = self._task(event.task_id)
        if len(task.parents) < NODES_PER_TASK_MAX:
            task.parents.setdefault(child, parent)

    def add(self, signal: Signal) -> tuple[Case, bool] | None:
        """The incident a signal belongs to, and whether an event should tell of the change; None
        for a warning that belongs to none."""
        group = _group_of(signal)
        case = self.tasks[group].case if group in self.tasks else None
        if case is not None and signal.ts - case.last_at > GROUP_NS:
            case = None
        if case is None:
            if signal.level != "breach":
                return None
            case = self._task(group).case = _opened(signal)
            return case, True
        task = self._task(group)
        changed = _joined(case, signal)
        if signal.level == "breach":
            changed |= _moved(case, task.parents, signal)
        if not changed and case.count < 2 * case.published:
            return case, False
        case.published = case.count
        return case, True

    def ended(self, event: RunEnd) -> Case | None:
        """A run's end becomes the outcome of the incident that stands at it."""
        task = self.tasks.get(event.task_id)
        if task is None or task.case is None or task.case.run_id != event.run_id:
            return None
        if task.case.outcome == event.status:
            return None
        task.case.outcome = event.status
        return task.case

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self.tasks)

    def restore(self, data: bytes) -> None:
        """Raises ValueError when the bytes are not a snapshot."""
        try:
            self.tasks = msgspec.msgpack.decode(data, type=dict[str, Task])
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a snapshot of incidents: {error}") from error

    def _task(self, task_id: str) -> Task:
        task = self.tasks.pop(task_id, None)
        if task is None:
            if len(self.tasks) >= self._tasks_max:
                del self.tasks[next(iter(self.tasks))]
            task = Task()
        self.tasks[task_id] = task
        return task


def _group_of(signal: Signal) -> str:
    if signal.detector in _APART:
        return f"{signal.detector}/{signal.run_id}"
    return signal.task_id


def severity_of(signal: Signal) -> Severity:
    """What one signal alone is worth."""
    if signal.runaway:
        return "critical"
    if signal.level == "warn":
        return "low"
    return "high" if signal.detector in _GRAVE else "medium"


def shown(case: Case) -> dict[str, object]:
    """The incident as the bucket keeps it and `incidents --json` shows it."""
    return {
        "incident_id": case.incident_id, "severity": case.severity, "detector": case.detector,
        "agent": case.agent, "run_id": case.run_id, "task_id": case.task_id, "room": case.room,
        "environment": case.environment, "opened_at": case.opened_at, "last_at": case.last_at,
        "count": case.count, "why": case.why, "status": case.status, "outcome": case.outcome,
        "owner": case.owner, "step": case.step, "detectors": case.detectors,
        "members": [
            {"run_id": each.run_id, "agent": each.agent, "count": each.count}
            for each in list(case.members.values())[:64]
        ],
    }  # fmt: skip


def event_of(case: Case, recorder: str) -> Incident:
    """The incident as an event; `seq` is the publisher's to give."""
    return Incident(
        recorder=recorder, seq=0, ts=case.last_at, environment=case.environment, room=case.room,
        agent=case.agent, run_id=case.run_id, task_id=case.task_id, step=case.step,
        incident_id=case.incident_id, severity=case.severity, detector=case.detector, why=case.why,
        status=case.status, count=case.count, outcome=case.outcome, owner=case.owner,
    )  # fmt: skip


def _opened(signal: Signal) -> Case:
    digest = blake2b(f"{signal.task_id}\0{signal.signal_id}".encode(), digest_size=16)
    return Case(
        incident_id=digest.hexdigest(), severity=severity_of(signal), detector=signal.detector,
        agent=signal.agent, run_id=signal.run_id, task_id=signal.task_id, room=signal.room,
        environment=signal.environment, opened_at=signal.ts, last_at=signal.ts, count=1,
        why=signal.why, step=signal.step, published=1,
        members={signal.run_id: Member(signal.run_id, signal.agent, signal.ts)},
        detectors={signal.detector: 1},
    )  # fmt: skip


def _joined(case: Case, signal: Signal) -> bool:
    """Counts a signal in; True when the incident has become graver by it."""
    case.count += 1
    case.last_at = max(case.last_at, signal.ts)
    case.detectors[signal.detector] = case.detectors.get(signal.detector, 0) + 1
    member = case.members.get(signal.run_id)
    if member is not None:
        member.count += 1
    elif len(case.members) < NODES_PER_TASK_MAX and signal.level == "breach":
        case.members[signal.run_id] = Member(signal.run_id, signal.agent, signal.ts)
    worst = max(case.severity, severity_of(signal), key=_ORDER.index)
    if len(case.members) > 1 and worst == "medium":
        worst = "high"  # a breach that has spread to another run
    if worst == case.severity:
        return False
    case.severity = worst
    if signal.run_id == case.run_id:
        case.detector, case.why, case.step = signal.detector, signal.why, signal.step
    return True


def _moved(case: Case, parents: dict[str, str], signal: Signal) -> bool:
    """Puts the incident at its earliest breached ancestor; True when that is another run."""
    if not _descends(case.run_id, signal.run_id, parents):
        return False
    if signal.ts > case.members[case.run_id].first_ns:
        return False
    case.run_id, case.agent, case.step = signal.run_id, signal.agent, signal.step
    case.detector, case.why = signal.detector, signal.why
    return True


def _descends(child: str, ancestor: str, parents: dict[str, str]) -> bool:
    run = child
    for _ in range(NODES_PER_TASK_MAX):
        parent = parents.get(run)
        if parent is None:
            return False
        if parent == ancestor:
            return True
        run = parent
    return False
