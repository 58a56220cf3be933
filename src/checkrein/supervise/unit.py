"""A unit: one process tree under control, the runs that live in it, and what is known of them."""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from checkrein.bus.messages import BeatRun, RunRecord
from checkrein.sdk.local import Instruct, State
from checkrein.supervise import happenings as h
from checkrein.supervise import proc
from checkrein.supervise.ladder import Ladder
from checkrein.supervise.local import Peer
from checkrein.supervise.outcome import UNKNOWN_EXIT, Ending, Exit, ending, said
from checkrein.supervise.tree import Tree

RUNS_MAX = 10_000
PEERS_MAX = 1_000
GOES_ON = "its code has ended the run; the process goes on"


@dataclass
class LiveRun:
    """A run as its unit knows it. `owner` is the process that holds it in its own code; `named`:
    that code began it and ought to end it."""

    record: RunRecord
    owner: Peer | None = None
    named: bool = False
    ended_by_code: bool = False
    status: str = "running"
    reason: str = ""
    step: int = 0
    in_flight: list[dict[str, Any]] = field(default_factory=list)
    heard_ns: int = 0
    standing: Instruct | None = None
    ending: Ending | None = None
    whole: bool = False
    """The run of the process as a whole: it lasts, and can be stopped, as long as the process."""
    said: Ending | None = None
    """The end that its code gave it, while the process goes on."""

    @property
    def over(self) -> bool:
        return self.ending is not None or (self.ended_by_code and not self.whole)


@dataclass(eq=False)
class Unit:
    """Made when its main process is held or running. `main_run` is the run of the process as a
    whole. Nothing here does I/O but `close`."""

    name: str
    tree: Tree
    main_run: str
    ladder: Ladder
    argv: Sequence[str] = ()
    runs: dict[str, LiveRun] = field(default_factory=dict)
    peers: list[Peer] = field(default_factory=list)
    exit: Exit | None = None
    sent: int = 0
    freezes: int = 0
    level: str = "L0"
    """Protection really reached, L0 to L3: L0 is held and stoppable, but free on the network."""

    def began(
        self, record: RunRecord, now_ns: int, owner: Peer | None = None, named: bool = False
    ) -> list[h.Act]:
        """A run began, or the process's run was adopted and got its name. A unit keeps at most
        RUNS_MAX runs: the longest ended are forgotten, and beyond that none is taken."""
        known = self.runs.get(record.run_id)
        if known is not None:
            kept = known.record
            known.record = msgspec.structs.replace(
                record, started_at=kept.started_at, session=kept.session, host=kept.host
            )
            known.owner, known.named = owner, known.named or named
            known.heard_ns = now_ns
            return self._owners_changed(now_ns)
        self._forget_ended()
        if len(self.runs) >= RUNS_MAX:
            return []
        whole = record.run_id == self.main_run
        self.runs[record.run_id] = LiveRun(record, owner, named, heard_ns=now_ns, whole=whole)
        acts = self.ladder.step(now_ns, h.RunBegan(record.run_id, record.parent_run_id))
        return acts + self._owners_changed(now_ns)

    def left(self, peer: Peer, now_ns: int) -> tuple[list[h.Act], list[LiveRun]]:
        """A process hung up. If it is gone, and is not the main one (whose end is told by its
        exit), the runs that it held have ended with it: they are returned."""
        with suppress(ValueError):
            self.peers.remove(peer)
        ended: list[LiveRun] = []
        gone = peer.pid != self.tree.main and not proc.alive(proc.look(peer.pid))
        acts: list[h.Act] = []
        for run_id, run in self.runs.items():
            if run.owner is not peer:
                continue
            run.owner = None
            if gone and not run.over and run_id != self.main_run:
                words = f"its process (pid {peer.pid}) ended without finishing the run"
                halted = run.status == "halted"
                run.ending = Ending("halted", run.reason) if halted else Ending("unfinished", words)
                run.status, run.reason = run.ending.status, run.ending.reason
                run.in_flight = []
                ended.append(run)
                acts += self.ladder.step(now_ns, h.RunEnded(run_id))
        return acts + self._owners_changed(now_ns), ended

    def _owners_changed(self, now_ns: int) -> list[h.Act]:
        owners = {id(run.owner) for run in self.runs.values() if run.owner and not run.over}
        if len(owners) == self.ladder.connected:
            return []
        return self.ladder.step(now_ns, h.SdkChanged(len(owners)))

    def stated(self, state: State, now_ns: int) -> list[h.Act]:
        run = self.runs.get(state.run_id)
        if run is None or run.over or run.ended_by_code:
            return []
        run.step, run.in_flight, run.heard_ns = state.step, state.in_flight, now_ns
        if run.status not in ("paused", "halted"):
            run.status = state.status
        return self.ladder.step(now_ns, h.InFlight(state.run_id, len(state.in_flight)))

    def ended_by_code(self, run_id: str, status: str, reason: str, now_ns: int) -> list[h.Act]:
        run = self.runs.get(run_id)
        if run is None or run.over or run.ended_by_code:
            return []
        run.ended_by_code = True
        run.in_flight = []
        if run.whole:
            run.said, run.owner = said(status, reason), None
        if status == "halted" or not run.whole:
            run.status, run.reason = status, reason
        elif run.status != "halted":
            run.status, run.reason = "running", GOES_ON
        acts = self.ladder.step(now_ns, h.RunEnded(run_id))
        return acts + self._owners_changed(now_ns)

    def died(self, exited: Exit) -> None:
        self.exit = exited
        self.tree.exited = True

    def end_runs(self) -> list[LiveRun]:
        """Gives every run that has no end yet the end its process's death implies; returns them."""
        ended: list[LiveRun] = []
        for run_id, run in self.runs.items():
            if run.over:
                continue
            order = self.ladder.halt_of(run_id) if self.ladder.halting else None
            halted = run.reason if run.status == "halted" else ""
            if order is not None and not halted:
                halted = order.reason or "halted"
            if run.said is not None and (not halted or run.said.status == "halted"):
                run.ending = run.said  # its code has recorded it
                run.status, run.reason = run.ending.status, run.ending.reason
                continue
            run.ending = ending(
                self.exit or UNKNOWN_EXIT,
                halted=halted,
                ended_by_code=run.ended_by_code,
                sent=self.sent,
                named=run.named,
            )
            run.status, run.reason = run.ending.status, run.ending.reason
            run.in_flight = []
            ended.append(run)
        return ended

    def beats(self, now_ns: int, epoch_of: dict[str, int]) -> tuple[list[BeatRun], list[BeatRun]]:
        """The live runs and the ended ones."""
        live: list[BeatRun] = []
        ended: list[BeatRun] = []
        for run_id, run in self.runs.items():
            beat = BeatRun(
                run_id=run_id,
                status=run.status,
                step=run.step,
                epoch=epoch_of.get(run_id, 0),
                age_ms=round((now_ns - run.heard_ns) / 1e6, 1),
                in_flight=run.in_flight,
                reason=run.reason,
            )
            (ended if run.over else live).append(beat)
        return live, ended

    def tell(self, told: h.Tell) -> None:
        """Instructs the process that holds the run, all of them while none does; whoever connects
        later hears it, too."""
        instruct = Instruct(
            command_id=told.command_id,
            verb=told.verb,
            run_id=told.run_id,
            epoch=told.epoch,
            reason=told.reason,
            issued_by=told.issued_by,
            arguments=told.arguments,
        )
        run = self.runs.get(told.run_id)
        if run is not None and told.verb in ("pause", "halt", "resume"):
            run.standing = None if told.verb == "resume" else instruct
        owner = run.owner if run is not None else None
        for peer in [owner] if owner is not None else self.peers:
            peer.send(instruct)

    def standing(self) -> list[Instruct]:
        return [run.standing for run in self.runs.values() if run.standing is not None]

    def can_signal(self) -> bool:
        """Whether its tree is in reach right now: asked of the kernel, not remembered."""
        if self.exit is not None:
            return True
        with suppress(OSError):
            signal.pidfd_send_signal(self.tree.pidfd, 0)
            if self.tree.leaf is not None:
                return os.access(self.tree.leaf.path / "cgroup.freeze", os.W_OK)
            return True
        return False

    def _forget_ended(self) -> None:
        if len(self.runs) < RUNS_MAX:
            return
        for run_id in [r for r, run in self.runs.items() if run.over][: RUNS_MAX // 10]:
            del self.runs[run_id]
            self.ladder.runs.pop(run_id, None)
