"""Stopping a whole process tree, rung by rung: the part of the ladder that cannot be taken back.

    fencing     told to refuse; waits a moment for the boundary to say that it does
    freezing    waits until it is seen that the tree stands still
    capturing   what stands still is written down
    unwinding   let go once more, behind the shut boundary
    killing     until nobody is left
    done        for good

Pure, like the ladder whose part it is.
"""

from dataclasses import dataclass, field
from typing import Literal

from checkrein.supervise.happenings import (
    Act,
    Capture,
    Freeze,
    Kill,
    Mark,
    Ordered,
    Report,
    Revoke,
    Tell,
    Thaw,
)  # fmt: skip
from checkrein.supervise.holding import Holding, Limits, Run, ms_since

Phase = Literal["fencing", "freezing", "capturing", "unwinding", "killing", "done"]
SHUT = frozenset({"fence", "unwind", "held", "obeyed"})
CAPTURE_MS_MAX = 250


@dataclass
class Order:
    """An order under way, and when it came."""

    ordered: Ordered
    at_ns: int
    runs: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.runs = dict(self.ordered.runs)


@dataclass
class Halt:
    """The whole tree is being stopped. `asked`: who is told; `shut`: whose boundary refuses."""

    orders: list[Order]
    asked: set[str]
    phase: Phase = "fencing"
    until_ns: int = 0
    frozen: bool = False
    park: bool = False
    shut: set[str] = field(default_factory=set)
    failed: bool = False
    marked: bool = False


class Stopping:
    """At most one whole-tree halt, never taken back. `Ladder` adds what leads to it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.runs: dict[str, Run] = {}
        self.connected = 0
        self.dead = False
        self.gone = False
        self.main = ""
        """The run of the process as a whole: the first one."""
        self._halt: Halt | None = None
        self._holding = Holding(limits, self.runs)

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

    def _join(self, now_ns: int, halt: Halt, order: Order, runs: set[str]) -> list[Act]:
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
        self, now_ns: int, orders: list[Order], runs: set[str], park: bool = False
    ) -> list[Act]:
        """All live runs go; those not named are affected, and told so."""
        frozen, held = self._holding.tree == "frozen", self._holding.held()
        halt = self._halt = Halt(orders, set(runs), frozen=frozen, park=park, shut=held & runs)
        acts = self._affected(now_ns, halt)
        acts += [self._tell_halt(halt, run_id) for run_id in sorted(self._live())]
        if frozen:
            return acts + self._stands_still(now_ns, halt)
        if self.connected > 0 and not runs <= halt.shut:
            return acts + self._phase(now_ns, halt, "fencing", self.limits.fence_ms)
        return acts + self._freeze(now_ns, halt)

    def _affected(self, now_ns: int, halt: Halt) -> list[Act]:
        """Names the runs that fall with the halted ones, in the receipt."""
        named = {run_id for order in halt.orders for run_id in order.runs}
        affected = sorted(self._live() - named - halt.asked)
        if not affected:
            return []
        note = f"also stopped, in the same process: {', '.join(affected)}"
        return self._report_all(now_ns, halt, "delivered", detail=note)

    def _stands_still(self, now_ns: int, halt: Halt) -> list[Act]:
        acts = self._mark_all(halt) + self._report_all(now_ns, halt, "freeze", confirmed=True)
        return acts + self._capture(now_ns, halt)

    def _mark_all(self, halt: Halt) -> list[Act]:
        """Once it is seen that they stand still, and not before."""
        if halt.marked:
            return []
        halt.marked = True
        return [
            Mark(run_id, "halted", self._reason(halt, run_id)) for run_id in sorted(self._live())
        ]

    def _reason(self, halt: Halt, run_id: str) -> str:
        named = next((order for order in halt.orders if run_id in order.runs), None)
        reason = (named or halt.orders[0]).ordered.reason
        if halt.park:
            return f"parked: paused for longer than its lease ({reason})"
        if named is None and run_id not in halt.asked:
            return f"shares its process with a halted run ({reason})"
        return reason

    def _phase(self, now_ns: int, halt: Halt, phase: Phase, ms: int) -> list[Act]:
        halt.phase = phase
        halt.until_ns = now_ns + ms * 1_000_000
        return []

    def _freeze(self, now_ns: int, halt: Halt) -> list[Act]:
        self._phase(now_ns, halt, "freezing", self.limits.freeze_ms)
        return [Freeze()]

    def _capture(self, now_ns: int, halt: Halt) -> list[Act]:
        self._phase(now_ns, halt, "capturing", CAPTURE_MS_MAX)
        return [Capture()]

    def _unwind(self, now_ns: int, halt: Halt) -> list[Act]:
        live = self._live()
        quiet = all(self.runs[run_id].calls == 0 for run_id in live)
        may = self.connected > 0 and ((live <= halt.shut and quiet) or halt.park)
        if not may or self.dead:
            return self._kill(now_ns, halt)
        halt.frozen = False
        self._phase(now_ns, halt, "unwinding", self.limits.unwind_ms)
        return [Thaw()]

    def _kill(self, now_ns: int, halt: Halt) -> list[Act]:
        self._phase(now_ns, halt, "killing", self.limits.kill_ms)
        return [Kill()]

    def _by_sdk(self, now_ns: int, order: Order, run_id: str, stage: str, detail: str) -> list[Act]:
        if stage not in ("fence", "unwind", "held", "resumed", "obeyed", "refused", "failed"):
            return []
        if run_id not in order.runs:
            return []
        return [self._report(now_ns, order, run_id, stage, by="sdk", detail=detail)]

    def _halt_shut(self, now_ns: int, halt: Halt, run_id: str) -> list[Act]:
        if run_id in halt.shut:
            return []
        halt.shut.add(run_id)
        acts: list[Act] = []
        for order in halt.orders:
            acts += self._by_sdk(now_ns, order, run_id, "fence", "")
        if halt.phase == "fencing" and self._live() <= halt.shut:
            acts += self._freeze(now_ns, halt)
        return acts

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

    def _live(self) -> set[str]:
        return {run_id for run_id, run in self.runs.items() if not run.ended}

    def _late_run(self, run_id: str) -> list[Act]:
        """A run that begins in a tree which is being stopped is stopped with it."""
        if self._halt is None or self._halt.phase == "done":
            return []
        return [self._tell_halt(self._halt, run_id)]

    def _tell_halt(self, halt: Halt, run_id: str) -> Tell:
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
        self, now_ns: int, halt: Halt, stage: str, confirmed: bool = False, detail: str = ""
    ) -> list[Act]:
        return [
            self._report(now_ns, order, run_id, stage, confirmed=confirmed, detail=detail)
            for order in halt.orders
            for run_id in sorted(order.runs)
        ]

    def _report(
        self, now_ns: int, order: Order, run_id: str, stage: str,
        by: str = "supervisor", confirmed: bool = False, detail: str = "",
    ) -> Report:  # fmt: skip
        return Report(
            order.ordered.command_id, run_id, order.runs.get(run_id, 0), stage,  # type: ignore[arg-type] # stages are checked by the type of Progress
            ms_since(order.at_ns, now_ns), by, confirmed, detail,
        )  # fmt: skip
