"""The steps of a run: what was done and spent in each, for the iteration record at its end."""

import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from checkrein.sdk.asking import Questions, drive, drive_async
from checkrein.sdk.hold import Hold

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


class Tally:
    """What a run does and spends, in its open step and in all. Safe from any thread."""

    def __init__(self, goal: str) -> None:
        self.tokens = 0
        self.usd: float | None = None
        """US dollars of all model calls whose price is known; None: of none."""
        self.input_tokens_last = 0
        self._open: Step | None = None
        self._context = hashlib.sha256(goal.encode())
        self._lock = threading.Lock()

    def forked(self) -> None:
        """In a forked child: the lock may be one that another thread of the parent held."""
        self._lock = threading.Lock()

    @property
    def context_hash(self) -> str:
        """Of all that came into the agent's context so far, in order. Lower-case hex SHA-256."""
        return self._context.hexdigest()

    def open(self, step: Step) -> None:
        self._open = step

    def close(self) -> Step | None:
        """The step that was open, to one caller."""
        with self._lock:
            step, self._open = self._open, None
        return step

    def saw(self, digest: str) -> None:
        """Something came into the agent's context."""
        self._context.update(digest.encode())

    def acted(self, tool: str) -> None:
        step = self._open
        if step is not None:
            step.act(tool, tool)

    def tool_ended(self, status: str, error: str) -> None:
        step = self._open
        if step is not None:
            step.outcome = status if not error else f"{status}: {error}"

    def model_began(self, model: str) -> None:
        step = self._open
        if step is not None:
            step.act(f"model {model}")

    def model_ended(
        self, input_tokens: int, output_tokens: int, usd: float | None, error: str
    ) -> None:
        with self._lock:
            self.tokens += input_tokens + output_tokens
            if usd is not None:
                self.usd = (self.usd or 0.0) + usd
            self.input_tokens_last = input_tokens
        step = self._open
        if step is not None:
            step.spent(input_tokens, output_tokens, usd)
            step.outcome = f"error: {error}" if error else "answered"


class Stepping(Protocol):
    """A run, as its steps see it."""

    hold: Hold
    ended: bool

    def begin_step(self) -> Questions[Step]: ...
    def end_step(self) -> None: ...


class Steps:
    """The iterator of `run.steps()`, for `for` and `async for`."""

    def __init__(self, run: Stepping) -> None:
        self._run = run

    def __iter__(self) -> Iterator[Step]:
        run = self._run
        try:
            while not run.ended or run.hold.halted:
                run.hold.check()
                if run.hold.taut:
                    run.end_step()
                    run.hold.wait()
                yield drive(run.begin_step())
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
                yield await drive_async(run.begin_step())
        finally:
            run.end_step()
