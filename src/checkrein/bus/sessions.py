"""What a session may do beyond what its credential lets it: whose runs, and whose word.

The bus knows a session by its subjects only. That its runs are of its own agents, and that it is
the kind of holder it says, is held against its `SessionRecord` here. Pure.
"""

from hashlib import blake2b

from checkrein.bus.messages import Progress, RunRecord, SessionRecord

WITNESSES = ("supervisor", "gateway")
"""Kinds of holders that see a run from outside: only their word confirms."""


def objection_to_run(session: SessionRecord, run: RunRecord) -> str:
    """Why this session may not register this run ("": it may)."""
    if run.agent not in session.agents:
        return f"a run of agent {run.agent!r}, which is not one of session {session.session}"
    if run.holder != session.kind:
        return f"a run held by a {run.holder}; session {session.session} is a {session.kind}"
    return ""


def objection_to_word(session: SessionRecord | None, progress: Progress) -> str:
    """Why this report may not count ("": it may). A supervisor may pass on what the SDK said; a
    gateway speaks of runs that others hold, too, but only as what it is."""
    kind = "" if session is None else session.kind
    if progress.by in WITNESSES and progress.by != kind:
        return f"a report as {progress.by}, from {_kind(kind)}"
    if progress.confirmed and kind not in WITNESSES:
        return f"a confirmation, which {_kind(kind)} cannot give"
    return ""


def stand_in(session: SessionRecord) -> RunRecord:
    """What a session did outside any run of its own stands under a run and a task made from its
    name, and under the first of its agents."""
    run_id, task_id = outside(session.agents[0], session.session)
    return RunRecord(
        run_id=run_id, task_id=task_id, agent=session.agents[0], room=session.room,
        environment=session.environment, session=session.session, holder=session.kind,
        started_at=0, pid=session.pid, host=session.host,
    )  # fmt: skip


def outside(agent: str, origin: str) -> tuple[str, str]:
    """The run id and the task id for what an agent did outside its runs; always the same for the
    same agent and origin, and never those of a run."""
    name = f"{agent}\0{origin}".encode("utf-8", "surrogatepass")
    digest = blake2b(name, digest_size=16).hexdigest()
    return f"outside-{digest}", digest


def _kind(kind: str) -> str:
    return f"a session of kind {kind}" if kind else "a session that is not known"
