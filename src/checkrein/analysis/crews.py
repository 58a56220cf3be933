"""Whose history counts for a run, and what kind of task it is, when the recording does not say.

Agents of our own have a name, and a task type if they gave one. Runs that others recorded often
have neither: a hundred benchmarks call their agent `assistant`. Such an agent is then told apart by
the tools that it has (by the name of their schema where there is one), and its task by the goal's
own words.
"""

from hashlib import sha256

from checkrein.events.types import RunStart

_FOREIGN = "recorded_run_id"
"""The label that recorded runs of others carry: see `detect.recorded`."""


def is_foreign(start: RunStart) -> bool:
    """Whether others have recorded it."""
    return _FOREIGN in start.labels


def crew_of(start: RunStart) -> str:
    """Whose runs teach what is usual in this one."""
    if not is_foreign(start):
        return start.agent
    schema = start.labels.get("tool_schema", "").rpartition("/")[2]
    return f"{start.agent} with {schema or _short(*sorted(start.tools))}"


def task_type_of(start: RunStart) -> str:
    """The run's task type; of one that was recorded elsewhere and gives none, its goal's mark."""
    if start.task_type or not is_foreign(start):
        return start.task_type
    return f"goal {_short(start.goal)}"


def _short(*texts: str) -> str:
    return sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()[:12]
