"""The recorder's helper thread: does ahead of time what the agent's thread should not wait for."""

import threading
from collections.abc import Callable

RETRY_S = 0.25


class Keeper:
    """Calls `work` in a thread of its own soon after every `nudge`, and every 250 ms for as long as
    `work` answers that it is not done. The thread begins at the first nudge."""

    def __init__(self, work: Callable[[], bool]) -> None:
        self._work = work
        self._nudged = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def nudge(self) -> None:
        if self._thread is None and not self._stopping:
            self._thread = threading.Thread(
                target=self._run, name="checkrein-recorder", daemon=True
            )
            self._thread.start()
        self._nudged.set()

    def stop(self) -> None:
        """Ends the thread and waits for it. Not to be called with a lock that `work` takes."""
        self._stopping = True
        self._nudged.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        done = True
        while True:
            self._nudged.wait(None if done else RETRY_S)
            self._nudged.clear()
            if self._stopping:
                return
            done = self._work()
