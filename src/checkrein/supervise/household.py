"""What the agents' processes say over the socket, and what it means for the supervisor."""

import msgspec

from checkrein.bus.approvals import Ask, Raise
from checkrein.sdk.local import (
    Began,
    Did,
    Ended,
    FromAgent,
    Hello,
    Holds,
    Lease,
    Need,
    Pacts,
    State,
    Told,
    Welcome,
)
from checkrein.supervise import happenings as h
from checkrein.supervise.journal import host_name
from checkrein.supervise.local import Peer
from checkrein.supervise.outcome import UNKNOWN_EXIT
from checkrein.supervise.seeking import nobody
from checkrein.supervise.supervisor import Supervisor


class Household:
    """Speaks for a supervisor on the agents' socket (see `local.Household`). A process is believed
    about the unit it is in, and about a run only if it holds that run."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def unit_of(self, pid: int) -> str | None:
        return next(
            (name for name, unit in self._supervisor.units.items() if unit.tree.holds(pid)), None
        )

    def came(self, unit_name: str, peer: Peer, hello: Hello) -> Welcome:
        unit = self._supervisor.units[unit_name]
        unit.peers.append(peer)
        for pact_set in self._supervisor.pact_sets.values():
            peer.send(Pacts(sets=[pact_set]))
        return Welcome(
            pacts=self._supervisor.pacts,
            room=self._supervisor.room,
            environment=self._supervisor.environment,
            standing=unit.standing(),
        )

    def left(self, unit_name: str, peer: Peer) -> None:
        unit = self._supervisor.units[unit_name]
        self._supervisor.held_changed.set()
        acts, ended = unit.left(peer, self._supervisor.world.monotonic_ns())
        self._supervisor.apply(unit, acts)
        for run in ended:
            if run.ending is not None:
                self._supervisor.journal.ended(run.record, run.step, run.ending, UNKNOWN_EXIT)
            self._supervisor.to_register.pop(run.record.run_id, None)
        self._supervisor.changed.set()

    def said(self, unit_name: str, peer: Peer, message: FromAgent) -> None:
        unit = self._supervisor.units[unit_name]
        now_ns = self._supervisor.world.monotonic_ns()
        match message:
            case Began(run=record, adopted=adopted):
                record = msgspec.structs.replace(
                    record, session=self._supervisor.session, holder="supervisor", host=host_name(),
                    pid=peer.pid, level=unit.level,
                )  # fmt: skip
                named = not adopted or bool(record.goal or record.task_type)
                self._supervisor.began(unit, record, peer, named)
            case Ended(run_id=run_id, status=status, reason=reason):
                run = unit.runs.get(run_id)
                if run is not None and run.owner is peer:
                    self._supervisor.apply(unit, unit.ended_by_code(run_id, status, reason, now_ns))
                self._supervisor.to_register.pop(run_id, None)
            case State():
                self._supervisor.apply(unit, unit.stated(message, now_ns))
            case Did(command_id=command_id, run_id=run_id, stage=stage, detail=detail):
                run = unit.runs.get(run_id)
                if run is not None and run.owner is peer:
                    self._supervisor.feed(unit, h.SdkDid(command_id, run_id, stage, detail))
            case Ask(run_id=run_id) | Raise(run_id=run_id):
                run = unit.runs.get(run_id)
                if run is not None and run.owner is peer:
                    self._ask(peer, message)
            case Need(agents=agents):
                self._supervisor.need(agents)
            case Lease():
                self._supervisor.leasing.ask(peer, message)
            case Holds(holdings=holdings):
                peer.holdings = holdings
                self._supervisor.held_changed.set()
            case Hello():
                pass
        self._supervisor.changed.set()

    def _ask(self, peer: Peer, word: Ask | Raise) -> None:
        if not self._supervisor.session:
            peer.send(Told(answer=nobody(word)))
        else:
            self._supervisor.seeking.add(word, lambda answer: peer.send(Told(answer=answer)))
