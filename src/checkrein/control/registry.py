"""The live runs: who holds them, when they were last heard of, what is wanted of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from checkrein.bus.messages import BeatRun, RunRecord
from checkrein.control.commands import Line
from checkrein.control.types import Desired, Limits


class TargetError(ValueError):
    """A target that names nothing. Says what would."""


@dataclass(eq=False, slots=True)
class Standing:
    """The latest state ordered of a run, as it is signed for the bucket."""

    verb: str
    epoch: int
    command_id: str
    reason: str
    issued_by: str
    issued_at: int
    arguments: dict[str, Any]


@dataclass(eq=False, slots=True)
class Run:
    """`wanted` is what was ordered last, `status` what the holder says. `standing` None: nothing
    was ever ordered. `open`: lines of unfinished commands."""

    record: RunRecord
    heard_ns: int
    registered_ns: int
    status: str = "running"
    step: int = 0
    epoch_seen: int = 0
    age_ms: float = 0.0
    in_flight: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""
    wanted: Desired = "running"
    standing: Standing | None = None
    state_line: Line | None = field(default=None, repr=False)
    open: list[Line] = field(default_factory=list, repr=False)
    ended: bool = False
    ended_ns: int = 0
    probed_ns: int | None = None
    probe_can: bool = False
    probe_by: str = ""
    probe_detail: str = ""
    acting_told: bool = False
    gated_ns: int | None = None
    """When a gateway was asked that then said that it could refuse this run's calls."""


@dataclass(eq=False, slots=True)
class Session:
    """One holder. `state`: "" heard of lately, then "stuck", then "lost"."""

    session: str
    heard_ns: int
    runs: dict[str, Run] = field(default_factory=dict)
    state: str = ""
    nonces: dict[str, int] = field(default_factory=dict)
    probe_next_ns: int = 0


class Registry:
    """Runs and sessions. Pure bookkeeping: decides nothing about commands."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.runs: dict[str, Run] = {}
        self.sessions: dict[str, Session] = {}
        self.ended: dict[str, Run] = {}

    def known(self, run_id: str) -> Run | None:
        return self.runs.get(run_id) or self.ended.get(run_id)

    def session(self, name: str, mono_ns: int) -> Session:
        session = self.sessions.get(name)
        if session is None:
            session = self.sessions[name] = Session(name, mono_ns, probe_next_ns=mono_ns)
        return session

    def register(self, session: str, record: RunRecord, mono_ns: int) -> tuple[Run | None, str]:
        """The run, and "" or why it is refused. The same run may be registered again by its own
        session, and by another one once its session is lost."""
        if record.session != session:
            return None, f"run {record.run_id} names session {record.session}, not {session}"
        gone = self.ended.get(record.run_id)
        if gone is not None and gone.status != "lost":
            return gone, ""
        if gone is not None and gone.record.agent == record.agent:
            gone.ended, gone.status = False, "running"
            self.runs[record.run_id] = self.ended.pop(record.run_id)
        run = self.runs.get(record.run_id)
        if run is None:
            if len(self.runs) >= self._limits.runs_max:
                return None, f"{self._limits.runs_max} runs are live, the most this control holds"
            run = self.runs[record.run_id] = Run(record, mono_ns, mono_ns)
        elif run.record.session != session:
            holder = self.sessions.get(run.record.session)
            if run.record.agent != record.agent or (holder and holder.state != "lost"):
                return None, f"run {record.run_id} is held by another session"
            if holder:
                holder.runs.pop(record.run_id, None)
            run.epoch_seen = 0
        run.record = record
        run.heard_ns = mono_ns
        self.session(session, mono_ns).runs[record.run_id] = run
        return run, ""

    def heard(self, run: Run, beat: BeatRun, mono_ns: int) -> bool:
        """Takes in a beat's line; True when something an operator sees has changed."""
        changed = (
            run.status != beat.status or run.step != beat.step or run.in_flight != beat.in_flight
        )
        run.status, run.step, run.reason = beat.status, beat.step, beat.reason
        run.in_flight, run.age_ms = beat.in_flight, beat.age_ms
        run.epoch_seen = max(run.epoch_seen, beat.epoch)
        run.heard_ns = mono_ns
        return changed

    def end(self, run: Run, status: str, reason: str, mono_ns: int) -> list[str]:
        """Moves a run to the ended ones; returns the ids of those forgotten for it."""
        run_id = run.record.run_id
        run.ended, run.ended_ns = True, mono_ns
        run.status, run.reason, run.in_flight = status, reason, []
        self.runs.pop(run_id, None)
        session = self.sessions.get(run.record.session)
        if session is not None:
            session.runs.pop(run_id, None)
        self.ended[run_id] = run
        return self.forget_ended(mono_ns)

    def forget_ended(self, mono_ns: int) -> list[str]:
        gone: list[str] = []
        for run_id, run in self.ended.items():
            old = mono_ns - run.ended_ns > self._limits.ended_kept_s * 1e9
            if not old and len(self.ended) - len(gone) <= self._limits.ended_max:
                break
            gone.append(run_id)
        for run_id in gone:
            del self.ended[run_id]
        return gone

    def resolve(self, target: str) -> list[Run]:
        """The live runs (lost ones included) that a target names. Raises TargetError when the
        target is malformed, ambiguous or names none."""
        if target == "all":
            found = list(self.runs.values())
            if not found:
                raise TargetError("there is no live run")
            return found
        kind, _, name = target.partition(":")
        if not name or kind not in ("agent", "run", "room", "task"):
            raise TargetError(
                f"target {target!r}: give agent:NAME, run:ID, room:NAME, task:ID or all"
            )
        if kind == "run":
            return [self._by_prefix(name)]
        found = [run for run in self.runs.values() if matches(target, run.record)]
        if not found:
            raise TargetError(f"no live run of {kind} {name!r}{_others(kind, self.runs.values())}")
        return found

    def _by_prefix(self, prefix: str) -> Run:
        run = self.runs.get(prefix)
        if run is not None:
            return run
        found = [run for run_id, run in self.runs.items() if run_id.startswith(prefix)]
        if len(found) == 1:
            return found[0]
        if found:
            raise TargetError(f"{len(found)} runs begin with {prefix!r}: give more of the id")
        ended = self.ended.get(prefix) or next(
            (run for run_id, run in self.ended.items() if run_id.startswith(prefix)), None
        )
        if ended is not None:
            raise TargetError(f"run {ended.record.run_id} has ended ({ended.status})")
        raise TargetError(f"no live run {prefix!r}")


def matches(target: str, record: RunRecord) -> bool:
    """Whether a well-formed target names this run."""
    kind, _, name = target.partition(":")
    match kind:
        case "all":
            return True
        case "agent":
            return record.agent == name
        case "room":
            return record.room == name
        case "task":
            return record.task_id == name
        case _:
            return record.run_id == name


def _others(kind: str, runs: Iterable[Run]) -> str:
    names = sorted({getattr(run.record, kind, "") for run in runs} - {""})
    if kind == "task" or not names:
        return ""
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return f"; live now: {shown}"
