"""Heartbeats: every 10 s, from a thread of their own, whatever the agent's threads are doing."""

import threading
from collections.abc import Callable, Mapping

from checkrein.events import types as events
from checkrein.sdk import quiet
from checkrein.sdk.run import Run
from checkrein.sdk.types import Recording
from checkrein.world import World

INTERVAL_S = 10.0


class Pulse:
    """Records a heartbeat for every live run, with its calls in flight and since when."""

    def __init__(
        self,
        runs: Mapping[str, Run],
        recorder: Recording,
        world: World,
        started_ns: int,
        interval_s: float = INTERVAL_S,
        also: Callable[[], None] = lambda: None,
    ) -> None:
        """`runs` are the live ones, as they come and go; `started_ns` is since when the process is
        up, on the monotonic clock; `also` is called with every beat."""
        self._runs = runs
        self._recorder = recorder
        self._world = world
        self._started_ns = started_ns
        self._interval_s = interval_s
        self._also = also
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="checkrein-pulse", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)

    def beat(self) -> None:
        """One heartbeat of every run that is this process's own."""
        stats = self._recorder.stats()
        uptime_ns = self._world.monotonic_ns() - self._started_ns
        for run in list(self._runs.values()):
            if not run.inherited:
                run.record(
                    events.Heartbeat, interval_ns=round(self._interval_s * 1e9),
                    uptime_ns=uptime_ns, in_flight=run.calls_in_flight(), recorded=stats.recorded,
                    lost=stats.lost,
                )  # fmt: skip

    def _work(self) -> None:
        while not self._stop.wait(self._interval_s):
            with quiet.quiet("heartbeat"):
                self.beat()
            with quiet.quiet("beside the heartbeat"):
                self._also()
