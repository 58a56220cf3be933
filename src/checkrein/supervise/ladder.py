"""The ladder of one unit: what to do, and when, to pause it and to stop it. Pure: no I/O, no clock.

    fence     the agent's own boundary is told to refuse (the gateways join here when there are any)
    freeze    the tree stands still: from here on the halt is confirmed
    capture   what stood still is written down
    unwind    let go once more, behind the shut boundary, for `finally` blocks: at most two seconds
    kill      the whole tree, until nobody of it is left
    revoke    its rights end

What it promises, whatever happens in whatever order:
- A halt ends with a dead tree or keeps reporting that it did not; a later resume cannot undo it.
- A frozen tree is let go for the unwind only when the boundary is known to be shut and no call was
  in flight: else what was under way would have its effect after the halt was confirmed.
- A tree frozen for a pause is let go, or parked, when its lease ends.
- A run that shares its process is stopped in its own code first; the tree is killed only if the run
  does not end, and then every run that fell with it is named.
"""

from dataclasses import dataclass, field
from typing import Literal

from checkrein.supervise.happenings import (
    Act,
    Capture,
    Captured,
    Died,
    Freeze,
    Froze,
    Happened,
    InFlight,
    Kill,
    Killed,
    Mark,
    Ordered,
    Report,
    Revoke,
    RunBegan,
    RunEnded,
    SdkChanged,
    SdkDid,
    Tell,
    Thaw,
    Tick,
)  # fmt: skip
from checkrein.supervise.holding import Holding, Limits, Run, ms_since

Phase = Literal["fencing", "freezing", "capturing", "unwinding", "killing", "done"]
SHUT = frozenset({"fence", "unwind", "held", "obeyed"})
ASKED_MAX = 256
CAPTURE_MS_MAX = 250


@dataclass
class _Order:
    """An order under way, and when it came."""

    ordered: Ordered
    at_ns: int
    runs: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.runs = dict(self.ordered.runs)


@dataclass
class _Halt:
    """The whole tree is being stopped. `asked`: who is told; `shut`: whose boundary refuses."""

    orders: list[_Order]
    asked: set[str]
    phase: Phase = "fencing"
    until_ns: int = 0
    frozen: bool = False
    park: bool = False
    shut: set[str] = field(default_factory=set)
    failed: bool = False
    marked: bool = False


@dataclass
class _Partial:
    """Runs that share their process are being stopped in their own code."""

    order: _Order
    left: set[str]
    until_ns: int
    shut: set[str] = field(default_factory=set)


class Ladder:
    """One unit's. Feed it with `step`, do what it returns, in order; call again by `wake_at_ns`."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits if limits is not None else Limits()
        self.runs: dict[str, Run] = {}
        self.connected = 0
        self.dead = False
        self._halt: _Halt | None = None
        self._partial: list[_Partial] = []
        self._asked: dict[tuple[str, str], _Order] = {}
        self._holding = Holding(self.limits, self.runs)

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
    def halting(self) -> bool:
        """Whether the whole tree is being, or has been, stopped by an order."""
        return self._halt is not None

    @property
    def done(self) -> bool:
        """Whether an order stopped the whole tree, and nobody of it is left."""
        return self._halt is not None and self._halt.phase == "done"

    @property
    def parking(self) -> bool:
        """Whether the tree is being stopped because a pause outlived its lease."""
        return self._halt is not None and self._halt.park

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
            case Tick():
                return self._tick(now_ns)

    # -- orders --------------------------------------------------------------------------------

    def _ordered(self, now_ns: int, ordered: Ordered) -> list[Act]:
        order = _Order(ordered, now_ns)
        acts: list[Act] = []
        live: dict[str, int] = {}
        for run_id, epoch in ordered.runs:
            acts.append(self._report(now_ns, order, run_id, "delivered"))
            run = self.runs.get(run_id)
            if run is None or run.ended or self.dead:
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

    def _too_late(self, now_ns: int, order: _Order, run_id: str, run: Run | None) -> list[Act]:
        if run is None:
            return self._refuse(now_ns, order, {run_id}, "no such run here")
        if order.ordered.verb == "halt":
            detail = "it had ended before"
            return [self._report(now_ns, order, run_id, "obeyed", confirmed=True, detail=detail)]
        return self._refuse(now_ns, order, {run_id}, "the run has ended")

    def _refuse(self, now_ns: int, order: _Order, runs: set[str], why: str) -> list[Act]:
        return [self._report(now_ns, order, run, "refused", detail=why) for run in sorted(runs)]

    def _forward(self, now_ns: int, order: _Order, runs: set[str]) -> list[Act]:
        if self.connected == 0:
            return self._refuse(now_ns, order, runs, "no SDK answers in this program")
        acts: list[Act] = []
        for run_id in sorted(runs):
            while len(self._asked) >= ASKED_MAX:
                del self._asked[next(iter(self._asked))]
            self._asked[order.ordered.command_id, run_id] = order
            acts.append(self._tell(order, run_id))
        return acts

    # -- halt ----------------------------------------------------------------------------------

    def _halt_runs(self, now_ns: int, order: _Order, runs: set[str]) -> list[Act]:
        if self._halt is not None:
            return self._join(now_ns, self._halt, order, runs)
        below = self._with_descendants(runs)
        halting = below | {run for partial in self._partial for run in partial.left}
        live = {run_id for run_id, run in self.runs.items() if not run.ended}
        if live <= halting or self.connected == 0:
            return self._halt_tree(now_ns, [*self._take_partial(), order], halting)
        until_ns = now_ns + self.limits.unwind_ms * 1_000_000
        self._partial.append(_Partial(order, below, until_ns))
        acts = self._holding.forget(below) + self._holding.let_go(now_ns)
        return acts + [self._tell(order, run_id) for run_id in sorted(below)]

    def _join(self, now_ns: int, halt: _Halt, order: _Order, runs: set[str]) -> list[Act]:
        halt.orders.append(order)
        if halt.phase == "done":
            return [
                self._report(now_ns, order, run, "obeyed", confirmed=True, detail="already halted")
                for run in sorted(runs)
            ]
        if halt.frozen:
            return [self._report(now_ns, order, r, "freeze", confirmed=True) for r in sorted(runs)]
        return []

    def _halt_tree(
        self, now_ns: int, orders: list[_Order], runs: set[str], park: bool = False
    ) -> list[Act]:
        """All live runs go; those not named are affected, and told so."""
        frozen, held = self._holding.tree == "frozen", self._holding.held()
        halt = self._halt = _Halt(orders, set(runs), frozen=frozen, park=park, shut=held & runs)
        acts = self._affected(now_ns, halt)
        acts += [self._tell_halt(halt, run_id) for run_id in sorted(self._live())]
        if frozen:
            return acts + self._stands_still(now_ns, halt)
        if self.connected > 0 and not runs <= halt.shut:
            return acts + self._phase(now_ns, halt, "fencing", self.limits.fence_ms)
        return acts + self._freeze(now_ns, halt)

    def _affected(self, now_ns: int, halt: _Halt) -> list[Act]:
        """Names the runs that fall with the halted ones, in the receipt."""
        named = {run_id for order in halt.orders for run_id in order.runs}
        affected = sorted(self._live() - named - halt.asked)
        if not affected:
            return []
        note = f"also stopped, in the same process: {', '.join(affected)}"
        return self._report_all(now_ns, halt, "delivered", detail=note)

    def _stands_still(self, now_ns: int, halt: _Halt) -> list[Act]:
        acts = self._mark_all(halt) + self._report_all(now_ns, halt, "freeze", confirmed=True)
        return acts + self._capture(now_ns, halt)

    def _mark_all(self, halt: _Halt) -> list[Act]:
        """Once it is seen that they stand still, and not before."""
        if halt.marked:
            return []
        halt.marked = True
        return [
            Mark(run_id, "halted", self._reason(halt, run_id)) for run_id in sorted(self._live())
        ]

    def _reason(self, halt: _Halt, run_id: str) -> str:
        named = next((order for order in halt.orders if run_id in order.runs), None)
        reason = (named or halt.orders[0]).ordered.reason
        if halt.park:
            return f"parked: paused for longer than its lease ({reason})"
        if named is None and run_id not in halt.asked:
            return f"shares its process with a halted run ({reason})"
        return reason

    def _phase(self, now_ns: int, halt: _Halt, phase: Phase, ms: int) -> list[Act]:
        halt.phase = phase
        halt.until_ns = now_ns + ms * 1_000_000
        return []

    def _freeze(self, now_ns: int, halt: _Halt) -> list[Act]:
        self._phase(now_ns, halt, "freezing", self.limits.freeze_ms)
        return [Freeze()]

    def _capture(self, now_ns: int, halt: _Halt) -> list[Act]:
        self._phase(now_ns, halt, "capturing", CAPTURE_MS_MAX)
        return [Capture()]

    def _unwind(self, now_ns: int, halt: _Halt) -> list[Act]:
        live = self._live()
        quiet = all(self.runs[run_id].calls == 0 for run_id in live)
        may = self.connected > 0 and ((live <= halt.shut and quiet) or halt.park)
        if not may or self.dead:
            return self._kill(now_ns, halt)
        halt.frozen = False
        self._phase(now_ns, halt, "unwinding", self.limits.unwind_ms)
        return [Thaw()]

    def _kill(self, now_ns: int, halt: _Halt) -> list[Act]:
        self._phase(now_ns, halt, "killing", self.limits.kill_ms)
        return [Kill()]

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

    def _by_sdk(
        self, now_ns: int, order: _Order, run_id: str, stage: str, detail: str
    ) -> list[Act]:
        if stage not in ("fence", "unwind", "held", "resumed", "obeyed", "refused", "failed"):
            return []
        if run_id not in order.runs:
            return []
        return [self._report(now_ns, order, run_id, stage, by="sdk", detail=detail)]

    def _halt_shut(self, now_ns: int, halt: _Halt, run_id: str) -> list[Act]:
        if run_id in halt.shut:
            return []
        halt.shut.add(run_id)
        acts: list[Act] = []
        for order in halt.orders:
            acts += self._by_sdk(now_ns, order, run_id, "fence", "")
        if halt.phase == "fencing" and self._live() <= halt.shut:
            acts += self._freeze(now_ns, halt)
        return acts

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

    def _captured(self, now_ns: int, count: str) -> list[Act]:
        halt = self._halt
        if halt is None or halt.phase != "capturing":
            return []
        detail = f"{count} process(es)" if count else ""
        return self._report_all(now_ns, halt, "capture", detail=detail) + self._unwind(now_ns, halt)

    def _killed(self, now_ns: int, survivors: tuple[int, ...]) -> list[Act]:
        halt = self._halt
        if halt is None or halt.phase != "killing":
            return []
        if survivors:
            acts: list[Act] = []
            if not halt.failed:
                halt.failed = True
                pids = ", ".join(map(str, survivors[:8]))
                acts = self._report_all(now_ns, halt, "failed", detail=f"still alive: {pids}")
            return acts + self._kill(now_ns, halt)
        halt.phase = "done"
        halt.frozen = True
        acts = self._mark_all(halt) + self._report_all(now_ns, halt, "kill", confirmed=True)
        for run_id in sorted(self._live() | {run for order in halt.orders for run in order.runs}):
            acts.append(Revoke(run_id))
        for run in self.runs.values():
            run.ended = True
        acts += self._report_all(now_ns, halt, "revoke")
        return acts + self._report_all(now_ns, halt, "obeyed", confirmed=True)

    def _died(self, now_ns: int) -> list[Act]:
        """The main process is gone; what it started may still live, so a halt sweeps anyway."""
        self.dead = True
        halt = self._halt
        if halt is None and self._partial:
            partial = self._take_partial()
            halt = self._halt = _Halt(partial, {run for order in partial for run in order.runs})
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
        orders = [_Order(ordered, at_ns) for ordered, at_ns in parked]
        runs = {run_id for order in orders for run_id in order.runs}
        return self._halt_tree(now_ns, orders, runs, park=True)

    # -- small -----------------------------------------------------------------------------------

    def _live(self) -> set[str]:
        return {run_id for run_id, run in self.runs.items() if not run.ended}

    def _is_halting(self, run_id: str) -> bool:
        return any(run_id in partial.left for partial in self._partial)

    def _take_partial(self) -> list[_Order]:
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

    def _late_run(self, run_id: str) -> list[Act]:
        """A run that begins in a tree which is being stopped is stopped with it."""
        if self._halt is None or self._halt.phase == "done":
            return []
        return [self._tell_halt(self._halt, run_id)]

    def _tell(self, order: _Order, run_id: str) -> Tell:
        ordered = order.ordered
        epoch = order.runs.get(run_id, 0) or self.runs[run_id].epoch + 1
        return Tell(
            ordered.command_id, ordered.verb, run_id, epoch, ordered.reason, ordered.issued_by,
            dict(ordered.arguments or {}),
        )  # fmt: skip

    def _tell_halt(self, halt: _Halt, run_id: str) -> Tell:
        """A run that no order names gets an epoch above its own: nothing less is taken."""
        first = next((o for o in halt.orders if run_id in o.runs), halt.orders[0])
        ordered = first.ordered
        epoch = first.runs.get(run_id, 0)
        command_id, arguments = ordered.command_id, dict(ordered.arguments or {})
        if halt.park:
            command_id, epoch, arguments["park"] = f"{command_id}:park", 0, True
        return Tell(
            command_id, "halt", run_id, epoch or self.runs[run_id].epoch + 1,
            self._reason(halt, run_id), ordered.issued_by, arguments,
        )  # fmt: skip

    def _report_all(
        self, now_ns: int, halt: _Halt, stage: str, confirmed: bool = False, detail: str = ""
    ) -> list[Act]:
        return [
            self._report(now_ns, order, run_id, stage, confirmed=confirmed, detail=detail)
            for order in halt.orders
            for run_id in sorted(order.runs)
        ]

    def _report(
        self, now_ns: int, order: _Order, run_id: str, stage: str,
        by: str = "supervisor", confirmed: bool = False, detail: str = "",
    ) -> Report:  # fmt: skip
        return Report(
            order.ordered.command_id, run_id, order.runs.get(run_id, 0), stage,  # type: ignore[arg-type] # stages are checked by the type of Progress
            ms_since(order.at_ns, now_ns), by, confirmed, detail,
        )  # fmt: skip
