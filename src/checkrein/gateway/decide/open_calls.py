"""Calls that were allowed and have not come back yet: each is ended by whoever made it, or as one
of which nothing more was heard."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from checkrein.gateway.visit import Visit
from checkrein.sdk.calls import ModelCall, ToolCall

C = TypeVar("C", ToolCall, ModelCall)
OPEN_MAX = 10_000
OPEN_S = 3_600.0
"""So long a call may take; then it counts as one of which nothing was heard."""
UNFETCHED_S = 120.0
"""So long an answer that nobody waited for is kept, for whoever asks again."""


class NeverHeard(asyncio.CancelledError):
    """How the call ended was never told: it is recorded as one that nobody waits for any more."""


@dataclass
class OpenCall(Generic[C]):
    """`fetched`: whoever asked has the answer, so the call may be under way. `fail` ends it."""

    visit: Visit
    call: C
    until_ns: int
    fail: Callable[[C, BaseException], None]
    asked: Any = None
    """What it was asked as, for whoever asks again."""
    fetched: bool = True


Key = tuple[str, str]
"""Run and call."""


class OpenCalls(Generic[C]):
    """On the gateway's loop. At most OPEN_MAX: the oldest gives way."""

    def __init__(self) -> None:
        self._calls: OrderedDict[Key, OpenCall[C]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._calls)

    def put(self, key: Key, found: OpenCall[C]) -> None:
        while len(self._calls) >= OPEN_MAX:
            self._lose(self._calls.popitem(last=False)[1])
        self._calls[key] = found

    def get(self, key: Key) -> OpenCall[C] | None:
        return self._calls.get(key)

    def take(self, key: Key) -> OpenCall[C] | None:
        return self._calls.pop(key, None)

    def take_last(self, run_id: str) -> OpenCall[C] | None:
        """The youngest call of a run."""
        for key in reversed(self._calls):
            if key[0] == run_id:
                return self._calls.pop(key)
        return None

    def take_of(self, agent: str, call_id: str) -> OpenCall[C] | None:
        """A call of an agent whose run is not known any more. Looks at all: for rare cases."""
        if not call_id:
            return None
        for key, found in self._calls.items():
            if key[1] == call_id and found.visit.caller.agent == agent:
                return self._calls.pop(key)
        return None

    def sweep(self, now_ns: int) -> None:
        """Ends what has been open for too long."""
        for key, found in list(self._calls.items()):
            if found.until_ns <= now_ns:
                del self._calls[key]
                self._lose(found)

    def end_all(self) -> None:
        while self._calls:
            self._lose(self._calls.popitem(last=False)[1])

    def end_run(self, run_id: str) -> None:
        for key in [key for key in self._calls if key[0] == run_id]:
            self._lose(self._calls.pop(key))

    def _lose(self, found: OpenCall[C]) -> None:
        why = "how it ended was never told" if found.fetched else "the answer was never fetched"
        found.fail(found.call, NeverHeard(why))
