"""A call that the agent's SDK has announced is in the record already: the gateway judges it all the
same, and writes down its own decisions and its passage, not the call again.

Which calls those are is told by a context variable, so that everything below (the run, its guard,
its calls) is the very code that runs in an agent's process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from checkrein.events import types as events
from checkrein.policy.types import Pact, Verdict
from checkrein.sdk.allowance import Allowance, Asked
from checkrein.sdk.place import RecorderStats
from checkrein.sdk.purse import Paying
from checkrein.sdk.types import Recording

ANNOUNCED: ContextVar[bool] = ContextVar("checkrein_announced", default=False)
_TOLD_ALREADY: frozenset[type[events.Base]] = frozenset({
    events.ModelRequest, events.ModelResponse, events.Reasoning, events.StepStart, events.StepEnd,
    events.Iteration, events.ToolSelected, events.ToolArguments, events.ToolInvoked,
    events.ToolReturned, events.ToolParsed, events.ToolReentered,
})  # fmt: skip


@contextmanager
def announced(is_announced: bool) -> Iterator[None]:
    token = ANNOUNCED.set(is_announced)
    try:
        yield
    finally:
        ANNOUNCED.reset(token)


class HushedRecorder:
    """A recorder that leaves out what the SDK has recorded."""

    def __init__(self, inner: Recording) -> None:
        self._inner = inner

    @property
    def id(self) -> str:
        return self._inner.id

    def record(self, kind: Any, place: Any, step: int, /, **fields: Any) -> int:
        if ANNOUNCED.get() and kind in _TOLD_ALREADY:
            return 0
        return self._inner.record(kind, place, step, **fields)

    def stats(self) -> RecorderStats:
        return self._inner.stats()

    def close(self) -> None:
        self._inner.close()


class HushedAllowance(Allowance):
    """Budgets that runs share are paid once: by the SDK, when it has announced the call."""

    __slots__ = ()

    def tool(self, pact: Pact, call_id: str, wait: bool) -> Verdict | None:
        return None if ANNOUNCED.get() else super().tool(pact, call_id, wait)

    def model(self, asked: Asked, wait: bool) -> Verdict | None:
        return None if ANNOUNCED.get() else super().model(asked, wait)

    def tool_again(self, pact: Pact, call_id: str) -> Paying | None:
        return None if ANNOUNCED.get() else super().tool_again(pact, call_id)

    def model_again(self, asked: Asked) -> Paying | None:
        return None if ANNOUNCED.get() else super().model_again(asked)
