"""Which run this code belongs to.

Within a thread and its asyncio tasks a context variable carries the run. `follow_threads` makes new
threads and jobs of thread pools carry it too. Between processes a W3C `traceparent` carries the
task. Code outside of any run belongs to the process's ambient run.
"""

import concurrent.futures
import functools
import threading
from collections.abc import Callable
from typing import Any

from checkrein.sdk import process
from checkrein.sdk.run import RUN, Run
from checkrein.sdk.traceparent import header_of

_followed = False


def current() -> Run:
    """The run of this code, or the process's ambient run."""
    run = RUN.get()
    if run is not None and not run.ended:
        return run
    return run if run is not None and run.hold.halted else process.client().ambient()


def traceparent(run: Run | None = None) -> str:
    """The W3C `traceparent` header that hands this task on to another process."""
    run = run or current()
    return header_of(run.task_id, run.run_id)


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


def _inside(run: Run, call: Callable[..., Any]) -> Callable[..., Any]:
    def inside(*args: Any, **named: Any) -> Any:
        token = RUN.set(run)
        try:
            return call(*args, **named)
        finally:
            RUN.reset(token)

    return inside
