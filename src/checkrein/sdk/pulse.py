"""Heartbeats: every 10 s, from a thread of their own, whatever the agent's threads are doing."""

import threading
from typing import TYPE_CHECKING

from checkrein.events import types as events
from checkrein.sdk import quiet

if TYPE_CHECKING:
    from checkrein.sdk.client import Client

INTERVAL_S = 10.0


class Pulse:
    """Records a heartbeat for every live run, with its calls in flight and since when."""

    def __init__(self, client: "Client", interval_s: float = INTERVAL_S) -> None:
        self._client = client
        self._interval_s = interval_s
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
        client = self._client
        stats = getattr(client.recorder, "stats", None)
        recorded, lost = (stats().recorded, stats().lost) if stats is not None else (0, 0)
        uptime_ns = client.world.monotonic_ns() - client.started_ns
        for run in list(client.runs.values()):
            if not run.inherited:
                run.record(
                    events.Heartbeat, interval_ns=round(self._interval_s * 1e9),
                    uptime_ns=uptime_ns, in_flight=run.calls_in_flight(), recorded=recorded,
                    lost=lost,
                )  # fmt: skip

    def _work(self) -> None:
        while not self._stop.wait(self._interval_s):
            with quiet.quiet("heartbeat"):
                self.beat()
