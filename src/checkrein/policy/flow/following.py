"""Recorded runs through flow rules: events in, findings out. The same code judges a run offline
that judges it live."""

from collections.abc import Callable
from typing import Any

from checkrein.events.types import (
    Base,
    MemoryWrite,
    Reasoning,
    RunEnd,
    RunStart,
    ToolArguments,
    ToolReturned,
)
from checkrein.policy.flow.compiling import Flow
from checkrein.policy.flow.profile import Lesson, Profile
from checkrein.policy.flow.state import State
from checkrein.policy.types import Deed, Finding

RUNS_OPEN_MAX = 1_024
CALLS_OPEN_MAX = 1_024
TaskType = Callable[[RunStart], str]


def task_type_of(start: RunStart) -> str:
    """The type of task that a run declared."""
    return start.task_type


class Follower:
    """Follows runs by their events, in their order; runs may interleave. `ended`: what each run
    taught, given once it has ended. Bounded: 1,024 runs at once, the oldest forgotten first."""

    def __init__(
        self,
        flow: Flow,
        profile: Profile | None = None,
        task_type: TaskType = task_type_of,
        ended: Callable[[str, str, Lesson], None] | None = None,
    ) -> None:
        self._flow = flow
        self._profile = profile
        self._task_type = task_type
        self._ended = ended
        self._runs: dict[str, State] = {}
        self._open: dict[str, dict[str, Deed]] = {}

    def event(self, event: Base) -> Finding | None:
        """What the rules say of this event: only a tool call's arguments can be found fault with.
        A run that began before this follower did is followed from here on."""
        match event:
            case RunStart():
                state = self._begin(event.run_id, self._task_type(event))
                self._flow.heard(state, "system", event.labels.get("system", ""))
                self._flow.heard(state, "user", event.goal)
            case Reasoning(role=role, text=text) if role:
                self._flow.heard(self._state(event.run_id), role, text)
            case ToolArguments():
                return self._call(event)
            case ToolReturned() if event.status in ("ok", "error"):
                self._return(event)
            case MemoryWrite():
                state = self._state(event.run_id)
                self._flow.remembered(state, event.key, event.value, True)
            case RunEnd():
                ended = self._runs.pop(event.run_id, None)
                self._open.pop(event.run_id, None)
                if ended is not None and self._ended is not None:
                    self._ended(event.run_id, ended.task_type, ended.lesson)
            case _:
                pass
        return None

    def _begin(self, run_id: str, task_type: str) -> State:
        if len(self._runs) >= RUNS_OPEN_MAX:
            oldest = next(iter(self._runs))
            del self._runs[oldest]
            self._open.pop(oldest, None)
        state = self._runs[run_id] = self._flow.new_state(self._profile, task_type)
        return state

    def _state(self, run_id: str) -> State:
        return self._runs.get(run_id) or self._begin(run_id, "")

    def _call(self, event: ToolArguments) -> Finding | None:
        deed = Deed(tool=event.tool, args=_map(event.arguments), call_id=event.call_id)
        deed.facts = {"args": deed.args, "tool": deed.tool}
        flying = self._open.setdefault(event.run_id, {})
        if len(flying) < CALLS_OPEN_MAX:
            flying[event.call_id] = deed
        return self._flow.judge(self._state(event.run_id), deed)

    def _return(self, event: ToolReturned) -> None:
        deed = self._open.get(event.run_id, {}).pop(event.call_id, None)
        if deed is None:
            deed = Deed(tool=event.tool, args={}, call_id=event.call_id)
        failed = event.status == "error"
        result = event.error if failed and event.result is None else event.result
        self._flow.returned(self._state(event.run_id), deed, result, failed)


def _map(arguments: Any) -> dict[str, Any]:
    return arguments if type(arguments) is dict else {"value": arguments}
