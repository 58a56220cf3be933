"""The ladder of one unit: what to do, and when, to pause it and to stop it. Pure: no I/O, no clock.

    fence     the agent's own boundary is told to refuse (the gateways hear of it by themselves, and
              say so themselves)
    freeze    the tree stands still: from here on the halt is confirmed
    capture   what stood still is written down
    unwind    let go once more, behind the shut boundary, for `finally` blocks: at most two seconds
    kill      the whole tree, until nobody of it is left
    revoke    its rights end (its key at the gateways is taken back by control, and renewed no more)

What it promises, whatever happens in whatever order:
- A halt ends with a dead tree or keeps reporting that it did not; a later resume cannot undo it.
- A frozen tree is let go for the unwind only when the boundary is known to be shut and no call was
  in flight: else what was under way would have its effect after the halt was confirmed.
- A tree frozen for a pause is let go, or parked, when its lease ends.
- A run that shares its process is stopped in its own code first; the tree is killed only if the run
  does not end, and then every run that fell with it is named.
"""

from dataclasses import dataclass, field

from checkrein.bus.orders import NO_SDK
from checkrein.supervise.happenings import (
    Act,
    Captured,
    Died,
    Froze,
    Gone,
    Happened,
    InFlight,
    Killed,
    Mark,
    Ordered,
    Revoke,
    RunBegan,
    RunEnded,
    SdkChanged,
    SdkDid,
    Tell,
    Tick,
)  # fmt: skip
from checkrein.supervise.holding import Limits, Run
from checkrein.supervise.stopping import SHUT, Halt, Order, Stopping

ASKED_MAX = 256


@dataclass
class _Partial:
    """Runs that share their process are being stopped in their own code."""

    order: Order
    left: set[str]
    until_ns: int
    shut: set[str] = field(default_factory=set)


class Ladder(Stopping):
    """One unit's. Feed it with `step`, do what it returns, in order; call again by `wake_at_ns`."""

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits if limits is not None else Limits())
        self._partial: list[_Partial] = []
        self._asked: dict[tuple[str, str], Order] = {}

    @property
    def wake_at_ns(self) -> int | None:
        """When `Tick` is due; None: nothing waits."""
        times = [partial.until_ns for partial in self._partial]
        if self._halt is not None and self._halt.phase != "done":
            times.append(self._halt.until_ns)
        if self._halt is None:
            times += self._holding.times()
        return min(times, default=None)

    @property
    def frozen(self) -> bool:
        """Whether the tree stands still, as far as was asked and seen."""
        if self._halt is not None:
            return self._halt.frozen
        return self._holding.tree == "frozen"

    def halt_of(self, run_id: str) -> Ordered | None:
        """The order that stopped, or is stopping, this run."""
        orders = [partial.order for partial in self._partial]
        orders += self._halt.orders if self._halt is not None else []
        named = [order.ordered for order in orders if run_id in order.runs]
        if named:
            return named[0]
        run = self.runs.get(run_id)
        if run is not None and run.status == "halted":
            return run.halted_by
        return self._halt.orders[0].ordered if self._halt is not None else None

    def step(self, now_ns: int, happened: Happened) -> list[Act]:
        """What to do about it, in this order."""
        match happened:
            case Ordered():
                return self._ordered(now_ns, happened)
            case RunBegan(run_id, parent):
                self.main = self.main or run_id
                self.runs[run_id] = Run(parent)
                return self._late_run(run_id)
            case RunEnded(run_id):
                return self._ended(now_ns, run_id)
            case SdkChanged(connected):
                self.connected = connected
                return []
            case SdkDid():
                return self._sdk_did(now_ns, happened)
            case InFlight(run_id, calls):
                if run_id in self.runs:
                    self.runs[run_id].calls = calls
                return []
            case Froze(ok):
                return self._froze(now_ns, ok)
            case Captured(detail):
                return self._captured(now_ns, str(detail.get("processes", "")))
            case Killed(survivors):
                return self._killed(now_ns, survivors)
            case Died():
                return self._died(now_ns)
            case Gone():
                self.gone = True
                return []
            case Tick():
                return self._tick(now_ns)

    # -- orders --------------------------------------------------------------------------------

    def _ordered(self, now_ns: int, ordered: Ordered) -> list[Act]:
        order = Order(ordered, now_ns)
        acts: list[Act] = []
        live: dict[str, int] = {}
        self._revive(ordered)
        for run_id, epoch in ordered.runs:
            acts.append(self._report(now_ns, order, run_id, "delivered"))
            run = self.runs.get(run_id)
            outlived = self.dead and not self.gone and ordered.verb == "halt"
            if run is None or ((run.ended or self.dead) and not outlived):
                acts += self._too_late(now_ns, order, run_id, run)
            else:
                run.epoch = max(run.epoch, epoch)
                live[run_id] = epoch
        if not live:
            return acts
        if ordered.verb == "halt":
            return acts + self._halt_runs(now_ns, order, set(live))
        if self._halt is not None or any(self._is_halting(run_id) for run_id in live):
            return acts + self._refuse(now_ns, order, set(live), "halted")
        if ordered.verb == "pause":
            return acts + self._holding.pause(now_ns, ordered, set(live), self.connected > 0)
        if ordered.verb == "resume":
            return acts + self._holding.resume(now_ns, ordered, set(live), self.connected > 0)
        return acts + self._forward(now_ns, order, set(live))

    def _revive(self, ordered: Ordered) -> None:
        """The run of the process as a whole is not over while the process goes on, whatever its
        code said, unless runs that are not meant live there."""
        run = self.runs.get(self.main)
        meant = {run_id for run_id, _ in ordered.runs}
        if run is None or not run.ended or self.dead or self.main not in meant:
            return
        if ordered.verb in ("pause", "resume", "halt") and self._live() <= meant:
            run.ended = False
            run.calls = 0

    def _too_late(self, now_ns: int, order: Order, run_id: str, run: Run | None) -> list[Act]:
        if run is None:
            return self._refuse(now_ns, order, {run_id}, "no such run here")
        if order.ordered.verb == "halt":
            others = len(self._live()) if not self.dead else 0
            detail = "it had ended before"
            if others:
                detail += f" in its own code; {others} other run(s) of its process go on"
            sure = self.dead or run.status == "halted" or run_id != self.main
            return [self._report(now_ns, order, run_id, "obeyed", confirmed=sure, detail=detail)]
        return self._refuse(now_ns, order, {run_id}, "the run has ended")

    def _refuse(self, now_ns: int, order: Order, runs: set[str], why: str) -> list[Act]:
        return [self._report(now_ns, order, run, "refused", detail=why) for run in sorted(runs)]

    def _forward(self, now_ns: int, order: Order, runs: set[str]) -> list[Act]:
        if self.connected == 0:
            return self._refuse(now_ns, order, runs, NO_SDK)
        acts: list[Act] = []
        for run_id in sorted(runs):
            while len(self._asked) >= ASKED_MAX:
                del self._asked[next(iter(self._asked))]
            self._asked[order.ordered.command_id, run_id] = order
            acts.append(self._tell(order, run_id))
        return acts

    # -- halt ----------------------------------------------------------------------------------

    def _halt_runs(self, now_ns: int, order: Order, runs: set[str]) -> list[Act]:
        if self._halt is not None:
            return self._join(now_ns, self._halt, order, runs)
        if self.dead:  # what it started lives on
            halt = self._halt = Halt([*self._take_partial(), order], runs)
            return self._kill(now_ns, halt)
        below = self._with_descendants(runs)
        halting = below | {run for partial in self._partial for run in partial.left}
        live = {run_id for run_id, run in self.runs.items() if not run.ended}
        if live <= halting or self.connected == 0:
            return self._halt_tree(now_ns, [*self._take_partial(), order], halting)
        until_ns = now_ns + self.limits.unwind_ms * 1_000_000
        self._partial.append(_Partial(order, below, until_ns))
        acts = self._holding.forget(below) + self._holding.let_go(now_ns)
        return acts + [self._tell(order, run_id) for run_id in sorted(below)]

    def _escalate(self, now_ns: int, partial: _Partial) -> list[Act]:
        """A run that shares its process did not end in its own code: the tree is stopped."""
        if self._halt is not None:
            return []
        left = partial.left | {run for other in self._partial for run in other.left}
        return self._halt_tree(now_ns, [partial.order, *self._take_partial()], left)

    # -- answers -------------------------------------------------------------------------------

    def _sdk_did(self, now_ns: int, did: SdkDid) -> list[Act]:
        halt = self._halt
        if halt is not None and did.stage in SHUT and did.run_id in self.runs:
            return self._halt_shut(now_ns, halt, did.run_id)
        for partial in self._partial:
            if did.run_id in partial.left and did.stage in SHUT and did.run_id not in partial.shut:
                partial.shut.add(did.run_id)
                return self._by_sdk(now_ns, partial.order, did.run_id, "fence", did.detail)
        if self._holding.knows(did):
            return self._holding.sdk_did(now_ns, did)
        order = self._asked.get((did.command_id, did.run_id))
        if order is None:
            return []
        return self._by_sdk(now_ns, order, did.run_id, did.stage, did.detail)

    def _ended(self, now_ns: int, run_id: str) -> list[Act]:
        run = self.runs.get(run_id)
        if run is None or run.ended:
            return []
        run.ended = True
        self._holding.forget({run_id})
        acts: list[Act] = []
        if self._halt is not None:
            if self._halt.phase in ("fencing", "unwinding"):
                for order in self._halt.orders:
                    acts += self._by_sdk(now_ns, order, run_id, "unwind", "")
            return acts
        for partial in list(self._partial):
            partial.left.discard(run_id)
            acts += self._by_sdk(now_ns, partial.order, run_id, "unwind", "")
            if not partial.left:
                self._partial.remove(partial)
                acts += self._stopped_in_code(now_ns, partial)
        return acts

    def _stopped_in_code(self, now_ns: int, partial: _Partial) -> list[Act]:
        others = len(self._live())
        detail = f"it ended in its own code; {others} other run(s) of its process go on"
        acts: list[Act] = []
        for run_id in sorted(partial.order.runs):
            run = self.runs.get(run_id)
            if run is not None:
                run.status, run.halted_by = "halted", partial.order.ordered
            sure = run_id in partial.shut
            acts += [
                Mark(run_id, "halted", partial.order.ordered.reason),
                Revoke(run_id),
                self._report(now_ns, partial.order, run_id, "revoke"),
                self._report(
                    now_ns, partial.order, run_id, "obeyed", confirmed=sure, detail=detail
                ),
            ]
        return acts

    def _froze(self, now_ns: int, ok: bool) -> list[Act]:
        halt = self._halt
        if halt is None:
            return self._holding.froze(now_ns, ok)
        if halt.phase != "freezing":
            return []
        if not ok:
            return self._kill(now_ns, halt)
        halt.frozen = True
        return self._stands_still(now_ns, halt)

    def _died(self, now_ns: int) -> list[Act]:
        """The main process is gone; what it started may still live, so a halt sweeps anyway."""
        self.dead = True
        halt = self._halt
        if halt is None and self._partial:
            partial = self._take_partial()
            halt = self._halt = Halt(partial, {run for order in partial for run in order.runs})
        if halt is not None:
            return [] if halt.phase in ("killing", "done") else self._kill(now_ns, halt)
        acts = self._holding.died(now_ns)
        for run in self.runs.values():
            run.ended = True
        return acts

    def _tick(self, now_ns: int) -> list[Act]:
        halt = self._halt
        if halt is None:
            acts: list[Act] = []
            for partial in list(self._partial):
                if self._halt is None and partial.until_ns <= now_ns:
                    acts += self._escalate(now_ns, partial)
            if self._halt is not None:
                return acts
            acts += self._holding.tick(now_ns, self.connected > 0)
            return acts + self._park(now_ns)
        if halt.phase == "done" or halt.until_ns > now_ns:
            return []
        match halt.phase:
            case "fencing":
                return self._freeze(now_ns, halt)
            case "capturing":
                return self._unwind(now_ns, halt)
            case _:  # freezing, unwinding, killing: not there in time
                return self._kill(now_ns, halt)

    def _park(self, now_ns: int) -> list[Act]:
        parked = self._holding.overdue(now_ns)
        if not parked:
            return []
        orders = [Order(ordered, at_ns) for ordered, at_ns in parked]
        runs = {run_id for order in orders for run_id in order.runs}
        return self._halt_tree(now_ns, orders, runs, park=True)

    # -- small -----------------------------------------------------------------------------------

    def _is_halting(self, run_id: str) -> bool:
        return any(run_id in partial.left for partial in self._partial)

    def _take_partial(self) -> list[Order]:
        orders = [partial.order for partial in self._partial]
        self._partial.clear()
        return orders

    def _with_descendants(self, runs: set[str]) -> set[str]:
        below = set(runs)
        grew = True
        while grew:
            more = {r for r, run in self.runs.items() if not run.ended and run.parent in below}
            grew = not more <= below
            below |= more
        return below

    def _tell(self, order: Order, run_id: str) -> Tell:
        ordered = order.ordered
        epoch = order.runs.get(run_id, 0) or self.runs[run_id].epoch + 1
        return Tell(
            ordered.command_id, ordered.verb, run_id, epoch, ordered.reason, ordered.issued_by,
            dict(ordered.arguments or {}),
        )  # fmt: skip
