"""The steps of a run: what was done in each, for the iteration record at its end; and what a run is
called."""

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from checkrein.sdk.run import Run

ACTIONS_MAX = 100
"""Actions named in one iteration record; more are only counted."""


class Step:
    """A reasoning cycle. The agent may set `outcome` and `confidence`; what it does not set is
    taken from the last tool or model call."""

    __slots__ = (
        "actions", "confidence", "input_tokens", "number", "outcome", "output_tokens", "skipped",
        "started_ns", "tools", "usd",
    )  # fmt: skip

    def __init__(self, number: int, started_ns: int) -> None:
        self.number = number
        self.started_ns = started_ns
        self.actions: list[str] = []
        self.tools: list[str] = []
        self.skipped = 0
        self.outcome = ""
        self.confidence: float | None = None
        self.input_tokens = 0
        self.output_tokens = 0
        self.usd: float | None = None

    def act(self, action: str, tool: str = "") -> None:
        if len(self.actions) >= ACTIONS_MAX:
            self.skipped += 1
            return
        self.actions.append(action)
        if tool:
            self.tools.append(tool)

    def named_actions(self) -> list[str]:
        return [*self.actions, f"and {self.skipped} more"] if self.skipped else self.actions

    def spent(self, input_tokens: int, output_tokens: int, usd: float | None) -> None:
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        if usd is not None:
            self.usd = (self.usd or 0.0) + usd

    def __repr__(self) -> str:
        return f"<step {self.number}>"


class Steps:
    """The iterator of `run.steps()`, for `for` and `async for`."""

    def __init__(self, run: "Run") -> None:
        self._run = run

    def __iter__(self) -> Iterator[Step]:
        run = self._run
        try:
            while not run.ended or run.hold.halted:
                run.hold.check()
                if run.hold.taut:
                    run.end_step()
                    run.hold.wait()
                yield run.begin_step()
        finally:
            run.end_step()

    async def __aiter__(self) -> AsyncIterator[Step]:
        run = self._run
        try:
            while not run.ended or run.hold.halted:
                run.hold.check()
                if run.hold.taut:
                    run.end_step()
                    await run.hold.wait_async()
                yield run.begin_step()
        finally:
            run.end_step()


class Held(Exception):
    """The run is held, and the caller will wait in its own way. Never reaches the agent."""


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is called. `adopted`: it was begun by the supervisor, for the whole process."""

    run_id: str
    task_id: str
    agent: str
    room: str
    goal: str = ""
    task_type: str = ""
    parent_run_id: str = ""
    labels: dict[str, str] = {}
    adopted: bool = False
    ambient: bool = False
