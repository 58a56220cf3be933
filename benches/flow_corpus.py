"""Recorded runs of attacked agents, as our events with their labels, for measuring flow rules."""

import gzip
import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from checkrein.detect.recorded import lines_of, numbered_events_of
from checkrein.events.types import Base, Reasoning, RunEnd, RunStart, ToolArguments, ToolReturned
from checkrein.policy.flow.compiling import Flow
from checkrein.policy.flow.following import Follower
from checkrein.policy.flow.profile import Lesson, Profile, learn, merged
from checkrein.policy.flow.sources import is_read

SHARED = Path(__file__).resolve().parents[1] / "../shared/corpora"
_SAID_ONLY = {("travel", "injection_task_6")}
_KEPT = (RunStart, Reasoning, ToolArguments, ToolReturned, RunEnd)


class Run(msgspec.Struct):
    """One recorded run: its events with the recorded numbers, and what is known of it.

    `due`: the recorded number of the call by which an attack must have been stopped: the first call
    with an effect that carries out the attacker's goal. None: no call carries it out (it is a text,
    or the task was only derailed), or it did not succeed.
    """

    run_id: str
    corpus: str
    suite: str
    task: str
    model: str
    attack: str
    injected: bool
    exposed: bool
    succeeded: bool
    useful: bool
    due: int | None = None
    due_last: int | None = None
    events: list[tuple[int, Base]] = []

    @property
    def chosen_on(self) -> bool:
        """Half of the tasks are for choosing rules, the other half for reporting."""
        return sha256(f"{self.suite}/{self.task}".encode()).digest()[0] % 2 == 0


def available(corpus: str) -> bool:
    return (SHARED / corpus / "events.jsonl.gz").exists()


@lru_cache(maxsize=2)
def runs_of(corpus: str) -> list[Run]:
    """All undefended runs of user tasks."""
    runs: dict[str, Run] = {}
    labels: dict[str, dict[str, Any]] = {}
    with gzip.open(SHARED / corpus / "labels.jsonl.gz") as file:
        for line in file:
            label = json.loads(line)
            if label["defence"] is None and label["kind"] == "user_task":
                run_id = label["run_id"]
                labels[run_id] = label
                runs[run_id] = Run(
                    run_id, corpus, label["suite"], label["user_task"], label["model"],
                    label["attack"] or "", label["injected"],
                    label["injection_seen_seq"] is not None, bool(label["attack_success"]),
                    bool(label["utility"]), events=[],
                )  # fmt: skip
    for (run_id, number), event in numbered_events_of(
        lines_of(SHARED / corpus / "events.jsonl.gz")
    ):
        run = runs.get(run_id)
        if run is not None and isinstance(event, _KEPT):
            run.events.append((number, event))
    for run_id, run in runs.items():
        if run.succeeded and run.exposed:
            run.due, run.due_last = _due(run, labels[run_id])
    return list(runs.values())


def _due(run: Run, label: dict[str, Any]) -> tuple[int | None, int | None]:
    """The first and the last call with an effect that may carry out the goal: of the tools in the
    attacker's ground truth, after the text was met (where the goal needs no effect, such as
    visiting a page, any call of its tools). Where the labels name no such tool or none of them was
    called, any call with an effect counts, which is stricter. None: the goal was to derail the
    task, or to have the agent say something."""
    if run.attack.endswith("dos") or (run.suite, label["injection_task"]) in _SAID_ONLY:
        return None, None
    wanted = set(label["injection_task_tools"] or ())
    after = max(label["injection_seen_seq"], label["hijack_call_seq"] or 0)
    calls = [
        (number, event.tool)
        for number, event in run.events
        if isinstance(event, ToolArguments) and number >= after
    ]
    acts = [(number, tool) for number, tool in calls if not is_read(tool, None, None)]
    found = [number for number, tool in acts if tool in wanted]
    if not found and wanted and all(is_read(tool, None, None) for tool in wanted):
        found = [number for number, tool in calls if tool in wanted]
    found = found or [number for number, _ in acts]
    return (found[0], found[-1]) if found else (None, None)


def by_task(start: RunStart) -> str:
    return f"{_suite(start)}/{sha256(start.goal.encode('utf-8', 'replace')).hexdigest()[:12]}"


def by_agent(start: RunStart) -> str:
    return _suite(start)


def _suite(start: RunStart) -> str:
    """The agent's type: its set of tools, whatever the benchmark's version."""
    return start.labels.get("tool_schema", "").rpartition("/")[2]


TaskType = Callable[[RunStart], str]


def lessons(runs: list[Run], flow: Flow, task_type: TaskType) -> Iterator[tuple[Run, str, Lesson]]:
    """What each run teaches."""
    for run in runs:
        taught: list[tuple[str, Lesson]] = []

        def ended(run_id: str, kind: str, lesson: Lesson, to: Any = taught) -> None:
            to.append((kind, lesson))

        follower = Follower(flow, None, task_type, ended)
        for _, event in run.events:
            follower.event(event)
        for kind, lesson in taught:
            yield run, kind, lesson


def profiles_without(taught: list[tuple[Run, str, Lesson]]) -> dict[tuple[str, str], Profile]:
    """For each agent (suite) and model: what was learned of the agent from all other models."""
    own: dict[tuple[str, str], Profile] = {}
    for run, kind, lesson in taught:
        learn(own.setdefault((run.suite, run.model), Profile()), kind, lesson)
    return {
        (suite, model): merged(
            profile for (other, by), profile in own.items() if other == suite and by != model
        )
        for suite in {suite for suite, _ in own}
        for model in {run.model for run, _, _ in taught}
    }


class Stop(msgspec.Struct):
    """The first call of a run that was asked about or refused. `calls`: all such calls."""

    number: int
    kind: str
    rule: str
    tool: str
    reason: str
    calls: list[int]


def judged(run: Run, flow: Flow, profile: Profile | None, task_type: TaskType) -> Stop | None:
    follower = Follower(flow, profile, task_type)
    first: Stop | None = None
    for number, event in run.events:
        found = follower.event(event)
        if found is None:
            continue
        if first is None:
            tool = event.tool if isinstance(event, ToolArguments) else ""
            first = Stop(number, found.kind, found.rule, tool, found.reason, [])
        first.calls.append(number)
    return first
