"""Which run this code belongs to, carried across threads, tasks and processes.

Within a thread and its asyncio tasks a context variable carries the run. `follow_threads` makes new
threads and jobs of thread pools carry it too. Between processes a W3C `traceparent` carries the
task. Code outside of any run belongs to the process's ambient run.
"""

import concurrent.futures
import functools
import re
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from checkrein.world import is_trace_id

if TYPE_CHECKING:
    from checkrein.sdk.run import Run

RUN: ContextVar["Run | None"] = ContextVar("checkrein_run", default=None)

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_followed = False


def current() -> "Run":
    """The run of this code, or the process's ambient run."""
    run = RUN.get()
    if run is not None and not run.ended:
        return run
    from checkrein.sdk import client

    return run if run is not None and run.hold.halted else client.get().ambient()


def traceparent(run: "Run | None" = None) -> str:
    """The W3C `traceparent` header that hands this task on to another process."""
    run = run or current()
    return f"00-{run.task_id}-{span_of(run.run_id)}-01"


def span_of(run_id: str) -> str:
    """A run as a W3C parent id: the last 16 hex digits of its UUID."""
    return run_id.replace("-", "")[-16:]


def task_of(header: str | None) -> str:
    """The task id that a `traceparent` carries; empty when there is none or it is malformed."""
    found = _TRACEPARENT.fullmatch((header or "").strip().lower())
    if found is None or found[1] == "ff" or (found[1] == "00" and found[4]):
        return ""
    return found[2] if is_trace_id(found[2]) and found[3] != "0" * 16 else ""


def follow_threads() -> None:
    """From now on a thread or pool job started inside a run belongs to it. Done once; harmless to
    repeat. Only our own variable is carried: nothing else of the context changes for the thread."""
    global _followed
    if _followed:
        return
    _followed = True
    _follow_start(threading.Thread)
    _follow_submit(concurrent.futures.ThreadPoolExecutor)


def _follow_start(kind: type[threading.Thread]) -> None:
    start = kind.start

    @functools.wraps(start)
    def start_in_run(self: threading.Thread) -> None:
        run = RUN.get()
        if run is not None and not run.ended:
            self.run = _inside(run, self.run)  # type: ignore[method-assign] # of this one thread
        start(self)

    kind.start = start_in_run  # type: ignore[method-assign] # the one way to be at every start


def _follow_submit(kind: type[concurrent.futures.ThreadPoolExecutor]) -> None:
    submit: Any = kind.submit

    @functools.wraps(submit)
    def submit_in_run(self: Any, call: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        run = RUN.get()
        if run is not None and not run.ended:
            call = _inside(run, call)
        return submit(self, call, *args, **named)

    kind.submit = submit_in_run  # type: ignore[method-assign] # as above


def _inside(run: "Run", call: Callable[..., Any]) -> Callable[..., Any]:
    def inside(*args: Any, **named: Any) -> Any:
        token = RUN.set(run)
        try:
            return call(*args, **named)
        finally:
            RUN.reset(token)

    return inside
