"""From an order to what is said of it: the same for both links.

    pause, escalate   delivered, held (when no call is in flight any more)
    resume            delivered, resumed
    halt              delivered, fence (no new call begins), unwind (`Halted` raised or the outer
                      task cancelled), obeyed (the run has ended)
    redirect, inject  delivered, obeyed (taken: acted on at the next step, the next model call)

A repeated order gets the stages that hold by now once more; the first counts.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping

from checkrein.sdk.rein import Ordered
from checkrein.sdk.run import Run

SHUT_ONLY = "no new call begins in this process"
EARLY_MAX = 100
"""Orders kept for a run that has not begun; the newest count."""

Report = Callable[[Ordered, str, str, str], None]
"""(order, run_id, stage, detail): must return at once."""


class Obedience:
    """Takes verified orders and reports on them. Safe from any thread."""

    def __init__(self, runs: Mapping[str, Run], report: Report, expected: str = "") -> None:
        """`expected` is the run of the supervised process: it may be ordered about before this
        process has begun it."""
        self._runs = runs
        self._expected = expected
        self._early: deque[Ordered] = deque(maxlen=EARLY_MAX)
        self._report = report
        self._lock = threading.Lock()
        self._said: set[tuple[str, str, str]] = set()
        self._begun = False

    def take(self, order: Ordered, run_id: str) -> None:
        """Carries out one order for one run, and says what became of it."""
        run = self._runs.get(run_id)
        if run is not None and run.inherited:
            run.obey(order)  # the process that began the run speaks for it
            return
        if run is None and run_id == self._expected:
            with self._lock:
                if not self._begun:
                    self._early.append(order)
                    return
            run = self._runs.get(run_id)
        if run is None:
            self._report(order, run_id, "failed", "this process holds no such run")
            return
        self._report(order, run_id, "delivered", "")
        answer = run.obey(order)
        if answer.taken == "refused":
            self._report(order, run_id, "refused", answer.why)
            return
        if answer.taken == "repeated":
            self._forget(order.command_id, run_id)
        match order.verb:
            case "resume":
                self._once(order, run_id, "resumed", "")
            case "redirect" | "inject":
                self._once(order, run_id, "obeyed", "")
            case _:
                self.look(run)

    def began(self, run: Run) -> None:
        """A run has begun: what was ordered of it before is carried out before its first call."""
        if run.run_id == self._expected:
            with self._lock:
                self._begun = True
                early, self._early = list(self._early), deque(maxlen=EARLY_MAX)
            for order in early:
                self.take(order, run.run_id)

    def look(self, run: Run) -> None:
        """After anything changed: says the stages of the run's standing order that now hold."""
        order = run.hold.rein.order
        if order is None or run.inherited:
            return
        match order.verb:
            case "pause" | "escalate" if run.hold.rein.state == "paused" and not run.in_flight:
                self._once(order, run.run_id, "held", "no call is in flight; the next one waits")
            case "halt":
                self._once(order, run.run_id, "fence", SHUT_ONLY)
                if run.hold.raised:
                    self._once(order, run.run_id, "unwind", "")
                if run.ended:
                    self._once(order, run.run_id, "obeyed", f"the run ended: {run.ended_status}")
            case _:
                pass

    def gone(self, run: Run) -> None:
        """The run has ended: nothing more will be said of it."""
        self.look(run)
        with self._lock:
            self._said = {said for said in self._said if said[1] != run.run_id}

    def _once(self, order: Ordered, run_id: str, stage: str, detail: str) -> None:
        with self._lock:
            if (order.command_id, run_id, stage) in self._said:
                return
            self._said.add((order.command_id, run_id, stage))
        self._report(order, run_id, stage, detail)

    def _forget(self, command_id: str, run_id: str) -> None:
        with self._lock:
            self._said = {said for said in self._said if said[:2] != (command_id, run_id)}
