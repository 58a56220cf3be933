"""The board: each run once, from what control holds, what came by, and what is stored. Pure."""

from collections.abc import Iterable, Mapping

from checkrein.bus.messages import LiveRun
from checkrein.server.api.identity_shapes import AgentIdentity
from checkrein.server.api.shapes import ENDED, STATUSES, AgentLine, RoomLine, RunLine
from checkrein.store.runs import RunSummary

UNHEARD_S = 30.0
"""A run that nobody holds and that was not heard of for so long is shown as unfinished."""


def line(
    summary: RunSummary | None, live: LiveRun | None, now_ns: int, control_answers: bool
) -> RunLine:
    """One run's line. Either part may be missing, not both."""
    if summary is None:
        assert live is not None, "a run nobody has told of"  # noqa: S101 # says what callers owe
        return _registered(live, now_ns)
    age_s = max(0.0, (now_ns - summary.last_event_at) / 1e9)
    status, reason = _status(summary, live, age_s, control_answers)
    ended = bool(summary.ended_at)
    held = live is not None and not ended and live.status not in ENDED
    can_halt, why = _can_halt(live, held, ended or status in ENDED, control_answers)
    return RunLine(
        run_id=summary.run_id,
        agent=summary.agent,
        room=summary.room,
        environment=summary.environment,
        task_id=summary.task_id,
        status=status,
        step=max(summary.step, live.step if live else 0),
        tokens=summary.tokens,
        usd=summary.usd,
        started_at=summary.started_at,
        last_event_age_s=round(age_s, 3),
        can_halt=can_halt,
        can_halt_why=why,
        level=live.record.level if live and held else "",
        live=held,
        reason=reason,
        goal=summary.goal or (live.record.goal if live else ""),
        task_type=summary.task_type,
        parent_run_id=summary.parent,
        holder=live.record.holder if live and held else "",
        epoch=live.epoch if live else 0,
        ended_at=summary.ended_at or None,
        tool_calls=summary.tool_calls,
        errors=summary.errors,
        in_flight=live.in_flight if live and held else [],
    )


def _registered(live: LiveRun, now_ns: int) -> RunLine:
    """A run that control holds and that has recorded nothing yet."""
    record = live.record
    held = live.status not in ENDED
    can_halt, why = _can_halt(live, held, not held, True)
    return RunLine(
        run_id=record.run_id, agent=record.agent, room=record.room,
        environment=record.environment, task_id=record.task_id, status=_known(live.status),
        step=live.step, tokens=0, usd=0.0, started_at=record.started_at,
        last_event_age_s=round(max(0.0, (now_ns - record.started_at) / 1e9), 3),
        can_halt=can_halt, can_halt_why=why, level=record.level, live=held, reason=live.reason,
        goal=record.goal, task_type=record.task_type, parent_run_id=record.parent_run_id,
        holder=record.holder, epoch=live.epoch, in_flight=live.in_flight,
    )  # fmt: skip


def _known(status: str) -> str:
    return status if status in STATUSES else "running"


def _status(
    summary: RunSummary, live: LiveRun | None, age_s: float, control_answers: bool
) -> tuple[str, str]:
    """What to call the run, and why where there is a reason."""
    if summary.ended_at:
        return summary.status, summary.reason
    if live is not None:
        return _known(live.status), live.reason or summary.reason
    if control_answers and age_s > UNHEARD_S:
        return "unfinished", f"nothing heard for {age_s:.0f} s, and nobody holds it"
    return _known(summary.status), summary.reason


def _can_halt(
    live: LiveRun | None, held: bool, ended: bool, control_answers: bool
) -> tuple[bool, str]:
    if ended:
        return False, "it has ended"
    if not control_answers:
        return False, "unknown: control does not answer"
    if live is None or not held:
        return False, "nobody holds this run: stop not guaranteed"
    return live.can_halt, live.can_halt_why


def join(
    summaries: Mapping[str, RunSummary],
    live: Iterable[LiveRun],
    now_ns: int,
    control_answers: bool,
) -> list[RunLine]:
    """Every run, latest first."""
    held = {run.record.run_id: run for run in live}
    lines = [
        line(summaries.get(run_id), held.get(run_id), now_ns, control_answers)
        for run_id in summaries.keys() | held.keys()
    ]
    lines.sort(key=lambda run: (run.started_at, run.run_id), reverse=True)
    return lines


def agents(
    lines: Iterable[RunLine], now_ns: int, known: Mapping[str, AgentIdentity]
) -> list[AgentLine]:
    """The runs by agent, the latest seen first; those that were added and never ran come last."""
    groups: dict[str, list[RunLine]] = {agent: [] for agent in known}
    for run in lines:
        groups.setdefault(run.agent, []).append(run)
    found = [
        AgentLine(
            agent=agent,
            runs=len(runs),
            live=sum(run.live for run in runs),
            can_halt=sum(run.can_halt for run in runs),
            tokens=sum(run.tokens for run in runs),
            usd=round(sum(run.usd or 0.0 for run in runs), 9),
            last_seen=max((_seen(run, now_ns) for run in runs), default=0),
            rooms=sorted({run.room for run in runs}),
            identity=known.get(agent),
        )
        for agent, runs in groups.items()
    ]
    return sorted(found, key=lambda agent: agent.last_seen, reverse=True)


def _seen(run: RunLine, now_ns: int) -> int:
    return now_ns - round((run.last_event_age_s or 0) * 1e9)


def rooms(lines: Iterable[RunLine]) -> list[RoomLine]:
    groups: dict[str, list[RunLine]] = {}
    for run in lines:
        groups.setdefault(run.room, []).append(run)
    return [
        RoomLine(
            room=room,
            runs=len(runs),
            live=sum(run.live for run in runs),
            agents=sorted({run.agent for run in runs}),
        )
        for room, runs in sorted(groups.items())
    ]
