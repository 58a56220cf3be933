"""The pause part of a unit's ladder: hold at the boundary, freeze only who does not get there.

    asked     told to hold at its next boundary; calls in flight may finish
    held      it said that it holds
    frozen    the tree stands still, with a lease: a frozen process keeps its locks

Pure, like the ladder. A paused run may wait in `held` for as long as the operator wants.
"""

from dataclasses import dataclass
from typing import Literal

from checkrein.supervise.happenings import Act, Freeze, Mark, Ordered, Report, SdkDid, Tell, Thaw


@dataclass(frozen=True)
class Limits:
    """The bounds of the ladder, in milliseconds.

    `fence_ms`: how long the freeze waits for the boundary to say that it is shut. `hold_ms`: how
    long a paused run may take to its next boundary, `hold_in_flight_ms` when a call is under way.
    """

    fence_ms: int = 15
    freeze_ms: int = 1_000
    unwind_ms: int = 2_000
    kill_ms: int = 5_000
    hold_ms: int = 3_000
    hold_in_flight_ms: int = 30_000
    answer_ms: int = 2_000
    lease_ms: int = 60_000


@dataclass
class Run:
    """What the ladder knows of one run."""

    parent: str = ""
    epoch: int = 0
    status: str = "running"
    ended: bool = False
    calls: int = 0
    halted_by: Ordered | None = None


@dataclass
class _Waiting:
    """A pause or resume under way, or a pause that stands."""

    ordered: Ordered
    epoch: int
    at_ns: int
    state: Literal["asked", "held", "frozen", "resuming"]
    until_ns: int | None


class Holding:
    """Pauses and resumes of one unit's runs."""

    def __init__(self, limits: Limits, runs: dict[str, Run]) -> None:
        self._limits = limits
        self._runs = runs
        self._waiting: dict[str, _Waiting] = {}
        self.tree: Literal["running", "freezing", "frozen"] = "running"
        self._lease_until_ns = 0
        self._alarm_at_ns: int | None = None

    def times(self) -> list[int]:
        times = [w.until_ns for w in self._waiting.values() if w.until_ns is not None]
        if self.tree == "frozen":
            times.append(self._lease_until_ns)
            if self._alarm_at_ns is not None:
                times.append(self._alarm_at_ns)
        return times

    def held(self) -> set[str]:
        """Runs whose boundary is known to be shut."""
        return {run_id for run_id, w in self._waiting.items() if w.state == "held"}

    def knows(self, did: SdkDid) -> bool:
        waiting = self._waiting.get(did.run_id)
        return waiting is not None and waiting.ordered.command_id == did.command_id

    def pause(self, now_ns: int, ordered: Ordered, runs: set[str], has_sdk: bool) -> list[Act]:
        acts: list[Act] = []
        for run_id in sorted(runs):
            epoch = dict(ordered.runs)[run_id]
            before = self._waiting.get(run_id)
            if before is not None and before.state in ("held", "frozen"):
                before.ordered, before.epoch, before.at_ns = ordered, epoch, now_ns
                how = "held" if before.state == "held" else "freeze"
                acts += self._paused(now_ns, run_id, before, how)
                continue
            ms = self._limits.hold_ms
            if self._runs[run_id].calls:
                ms = self._limits.hold_in_flight_ms
            until_ns = now_ns + (ms * 1_000_000 if has_sdk else 0)
            self._waiting[run_id] = _Waiting(ordered, epoch, now_ns, "asked", until_ns)
            if has_sdk:
                acts.append(_tell(ordered, run_id, epoch))
        if not has_sdk:
            acts += self._freeze_or_fail(now_ns)
        return acts

    def resume(self, now_ns: int, ordered: Ordered, runs: set[str], has_sdk: bool) -> list[Act]:
        acts: list[Act] = []
        was_frozen = self.tree != "running"
        for run_id in sorted(runs):
            epoch = dict(ordered.runs)[run_id]
            before = self._waiting.pop(run_id, None)
            waiting = _Waiting(ordered, epoch, now_ns, "resuming", None)
            if before is not None and before.state == "frozen":
                acts += self._resumed(now_ns, run_id, waiting, "supervisor", "")
            elif before is None:
                acts += self._resumed(now_ns, run_id, waiting, "supervisor", "it was not paused")
                continue
            else:
                waiting.until_ns = now_ns + self._limits.answer_ms * 1_000_000
                self._waiting[run_id] = waiting
            if has_sdk:
                acts.append(_tell(ordered, run_id, epoch))
        if was_frozen:
            acts.insert(0, Thaw())
            self._thawed(now_ns)
        return acts

    def forget(self, runs: set[str]) -> list[Act]:
        """These runs end or are being halted: they wait no more."""
        for run_id in runs:
            self._waiting.pop(run_id, None)
        if self.tree != "running" and not self._waiting:
            self.tree = "running"
            return [Thaw()]
        return []

    def let_go(self, now_ns: int) -> list[Act]:
        """One run of a frozen tree must move (to end): the others hold at their boundary again."""
        if self.tree == "running":
            return []
        self._thawed(now_ns)
        return [Thaw()]

    def sdk_did(self, now_ns: int, did: SdkDid) -> list[Act]:
        waiting = self._waiting[did.run_id]
        if waiting.state == "asked" and did.stage in ("held", "obeyed"):
            waiting.state, waiting.until_ns = "held", None
            return self._paused(now_ns, did.run_id, waiting, "held")
        if waiting.state == "resuming" and did.stage in ("resumed", "obeyed"):
            del self._waiting[did.run_id]
            return self._resumed(now_ns, did.run_id, waiting, "sdk", did.detail)
        if did.stage in ("refused", "failed"):
            return [_report(now_ns, did.run_id, waiting, did.stage, by="sdk", detail=did.detail)]
        return []

    def froze(self, now_ns: int, ok: bool) -> list[Act]:
        if self.tree != "freezing":
            return []
        acts: list[Act] = []
        waiting = {r: w for r, w in self._waiting.items() if w.state == "asked"}
        if not ok:
            self.tree = "running"
            for run_id, one in waiting.items():
                del self._waiting[run_id]
                detail = "the process did not stand still in time"
                acts.append(_report(now_ns, run_id, one, "failed", detail=detail))
            return [Thaw(), *acts]
        self.tree = "frozen"
        lease_ns = self._limits.lease_ms * 1_000_000
        self._lease_until_ns, self._alarm_at_ns = now_ns + lease_ns, now_ns + lease_ns // 2
        for run_id, one in waiting.items():
            one.state, one.until_ns = "frozen", None
            acts += self._paused(now_ns, run_id, one, "freeze")
        return acts

    def tick(self, now_ns: int, has_sdk: bool) -> list[Act]:
        acts: list[Act] = []
        for run_id, waiting in list(self._waiting.items()):
            if waiting.state == "resuming" and _due(waiting, now_ns):
                del self._waiting[run_id]
                detail = "no answer from the agent's code"
                acts.append(_report(now_ns, run_id, waiting, "failed", by="sdk", detail=detail))
        if any(w.state == "asked" and _due(w, now_ns) for w in self._waiting.values()):
            acts += self._freeze_or_fail(now_ns)
        if self.tree == "frozen" and self._alarm_at_ns is not None and self._alarm_at_ns <= now_ns:
            self._alarm_at_ns = None
            left_s = (self._lease_until_ns - now_ns) / 1e9
            note = f"frozen, its locks are held; parked in {left_s:.0f} s"
            for run_id, waiting in sorted(self._waiting.items()):
                acts += [
                    Mark(run_id, "paused", note),
                    _report(now_ns, run_id, waiting, "delivered", detail=note),
                ]
        return acts

    def overdue(self, now_ns: int) -> list[tuple[Ordered, int]]:
        """The pauses whose frozen tree has used up its lease; empty while there is time."""
        if self.tree != "frozen" or self._lease_until_ns > now_ns:
            return []
        orders: list[tuple[Ordered, int]] = []
        for waiting in self._waiting.values():
            if all(waiting.ordered is not ordered for ordered, _ in orders):
                orders.append((waiting.ordered, waiting.at_ns))
        return orders

    def died(self, now_ns: int) -> list[Act]:
        detail = "the process ended first"
        acts: list[Act] = [
            _report(now_ns, run_id, waiting, "failed", detail=detail)
            for run_id, waiting in sorted(self._waiting.items())
            if waiting.state in ("asked", "resuming")
        ]
        self._waiting.clear()
        self.tree = "running"
        return acts

    def _freeze_or_fail(self, now_ns: int) -> list[Act]:
        """Freezing stops every run of the tree, so all of them must be paused."""
        live = {run_id for run_id, run in self._runs.items() if not run.ended}
        if self.tree != "running":
            return []
        if live <= {r for r, w in self._waiting.items() if w.state in ("asked", "held")}:
            self.tree = "freezing"
            for waiting in self._waiting.values():
                if waiting.state == "asked":
                    waiting.until_ns = None
            return [Freeze()]
        acts: list[Act] = []
        for run_id, waiting in list(self._waiting.items()):
            if waiting.state == "asked" and _due(waiting, now_ns):
                waiting.until_ns = None
                detail = "not at a boundary yet; not frozen, for other runs share its process"
                acts.append(_report(now_ns, run_id, waiting, "failed", detail=detail))
        return acts

    def _thawed(self, now_ns: int) -> None:
        """Let go: runs that stay paused have to reach a boundary, as at first."""
        self.tree = "running"
        for waiting in self._waiting.values():
            if waiting.state == "frozen":
                waiting.state = "asked"
                waiting.until_ns = now_ns + self._limits.hold_ms * 1_000_000

    def _paused(self, now_ns: int, run_id: str, waiting: _Waiting, how: str) -> list[Act]:
        self._runs[run_id].status = "paused"
        by, sure = ("supervisor", True) if how == "freeze" else ("sdk", False)
        return [
            Mark(run_id, "paused", waiting.ordered.reason),
            _report(now_ns, run_id, waiting, how, by=by, confirmed=sure),
            _report(now_ns, run_id, waiting, "obeyed", by=by, confirmed=sure),
        ]

    def _resumed(
        self, now_ns: int, run_id: str, waiting: _Waiting, by: str, detail: str
    ) -> list[Act]:
        self._runs[run_id].status = "running"
        sure = by == "supervisor"
        return [
            Mark(run_id, "running", waiting.ordered.reason),
            _report(now_ns, run_id, waiting, "resumed", by=by, confirmed=sure, detail=detail),
            _report(now_ns, run_id, waiting, "obeyed", by=by, confirmed=sure, detail=detail),
        ]


def ms_since(at_ns: int, now_ns: int) -> float:
    return round((now_ns - at_ns) / 1e6, 3)


def _due(waiting: _Waiting, now_ns: int) -> bool:
    return waiting.until_ns is not None and waiting.until_ns <= now_ns


def _tell(ordered: Ordered, run_id: str, epoch: int) -> Tell:
    return Tell(
        ordered.command_id, ordered.verb, run_id, epoch, ordered.reason, ordered.issued_by,
        dict(ordered.arguments or {}),
    )  # fmt: skip


def _report(
    now_ns: int, run_id: str, waiting: _Waiting, stage: str,
    by: str = "supervisor", confirmed: bool = False, detail: str = "",
) -> Report:  # fmt: skip
    return Report(
        waiting.ordered.command_id, run_id, waiting.epoch, stage,  # type: ignore[arg-type] # stages are checked by the type of Progress
        ms_since(waiting.at_ns, now_ns), by, confirmed, detail,
    )  # fmt: skip
