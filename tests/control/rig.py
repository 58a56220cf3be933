"""Control, its disk, the bus and holders of runs in one simulated world, with faults."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from checkrein.bus.approvals import Approval, Escalation
from checkrein.bus.identities import Contained, GatewayRecord
from checkrein.bus.messages import (
    Beat,
    BeatAnswer,
    BeatRun,
    CommandRequest,
    CommandState,
    LiveQuery,
    LiveRun,
    Progress,
    Registered,
    Registration,
    RunRecord,
    SessionRecord,
    decode,
    encode,
    progress_of,
)
from checkrein.bus.orders import HALTED, OLD_EPOCH, Inbox, OrderRefused, verify
from checkrein.control.core import Control
from checkrein.control.signing import OrderSigner
from checkrein.control.types import (
    Action,
    Asking,
    Audit,
    Beating,
    Hearing,
    Input,
    Keep,
    Limits,
    Notify,
    Registering,
    Reply,
    Reporting,
    Revoke,
    Save,
    Send,
    Tell,
    Tick,
)
from checkrein.events.types import Base
from checkrein.world import SimWorld

SIGNER = OrderSigner(bytes(range(32)))
GATEWAY_FRESH_NS = 15_000_000_000
TASK = "0123456789abcdef0123456789abcdef"


class Answers(list[Any]):
    """What comes back to one who asks something else than a command: messages of one kind."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind = kind


@dataclass
class Faults:
    """Chances for each message, and how long it takes (seconds)."""

    lost: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    late_s: float = 3.0
    travel_s: float = 0.001


class Net:
    """Plain messages: lost, doubled, late, hence out of order; and an off switch per session."""

    def __init__(self, world: SimWorld, faults: Faults) -> None:
        self.world, self.faults = world, faults
        self.cut: set[str] = set()
        self.up = True

    def carry(self, session: str, deliver: Callable[[], None]) -> None:
        chance, faults = self.world.chance, self.faults
        copies = 0 if chance.random() < faults.lost else 1 + (chance.random() < faults.twice)
        for _ in range(copies):
            delay = faults.travel_s * (0.5 + chance.random())
            if chance.random() < faults.late:
                delay += faults.late_s * chance.random()
            self.world.call_later(delay, lambda: self._arrive(session, deliver))

    def _arrive(self, session: str, deliver: Callable[[], None]) -> None:
        if self.up and session not in self.cut:
            deliver()


@dataclass
class Acting:
    """A run as it really is. `effects` counts what it did; `did` what it obeyed, by epoch."""

    record: RunRecord
    state: str = "running"
    effects: int = 0
    did: list[tuple[str, int]] = field(default_factory=list)
    acts: list[str] = field(default_factory=list)
    stages: dict[str, list[Progress]] = field(default_factory=dict)
    ended: str = ""


class Holder:
    """A supervisor, or a process with the SDK: obeys orders, registers, beats, reports."""

    def __init__(self, rig: "Rig", session: str, kind: str = "supervisor") -> None:
        self.rig, self.session, self.kind = rig, session, kind
        self.world = rig.world
        self.inbox = Inbox(session, SIGNER.public, rig.world)
        self.runs: dict[str, Acting] = {}
        self.unheard: dict[str, BeatRun] = {}
        self.refusals: list[str] = []
        self.can_stop = True
        self.deaf_to_probes = False
        self.stubborn = False
        """Reports that it got the order, and does nothing."""
        self.dead = False
        self._registered = False
        rig.holders[session] = self
        rig.sessions[session] = SessionRecord(
            session=session,
            kind=kind,
            agents=["bot"],
            user="",
            expires_at=0,  # type: ignore[arg-type]
        )
        self.world.call_later(0.0, self._beat)
        self.world.call_later(0.1, self._act)

    def start(self, run_id: str, agent: str = "bot", room: str = "", task: str = TASK) -> Acting:
        record = RunRecord(
            run_id=run_id, task_id=task, agent=agent, room=room, environment="test",
            session=self.session, holder=self.kind, started_at=self.world.now_ns(),  # type: ignore[arg-type]
        )  # fmt: skip
        if agent not in self.rig.sessions[self.session].agents:
            self.rig.sessions[self.session].agents.append(agent)
        acting = self.runs[run_id] = Acting(record)
        self.register()
        return acting

    def register(self) -> None:
        self._registered = False
        self._try_register()

    def _try_register(self) -> None:
        if self._registered or self.dead:
            return
        live = [acting.record for acting in self.runs.values() if not acting.ended]
        message = Registration(session=self.session, runs=live)
        self.rig.to_control(self.session, Registering(self.session, message, self._on_registered))
        self.world.call_later(0.5, self._try_register)

    def _on_registered(self, data: bytes) -> None:
        self._registered = True
        for order in decode(data, Registered).orders:
            self.on_order(order)

    def _beat(self) -> None:
        if self.dead:
            return
        lines = [
            BeatRun(
                run_id=run_id, status=acting.state, step=acting.effects,
                epoch=self.inbox.epoch(run_id),
            )
            for run_id, acting in self.runs.items() if not acting.ended
        ]  # fmt: skip
        beat = Beat(
            session=self.session, at=self.world.now_ns(), runs=lines,
            ended=list(self.unheard.values()),
        )  # fmt: skip
        self.rig.to_control(self.session, Beating(self.session, beat, self._on_beat_answer))
        self.world.call_later(1.0, self._beat)

    def _on_beat_answer(self, data: bytes) -> None:
        answer = decode(data, BeatAnswer)
        for run_id in answer.ended:
            self.unheard.pop(run_id, None)
        if any(run_id in self.runs and not self.runs[run_id].ended for run_id in answer.unknown):
            self.register()

    def _act(self) -> None:
        if self.dead:
            return
        for acting in self.runs.values():
            if acting.state == "running" and not acting.ended:
                acting.effects += 1
        self.world.call_later(0.1, self._act)

    def end(self, run_id: str, status: str) -> None:
        acting = self.runs[run_id]
        acting.ended = acting.state = status
        self.unheard[run_id] = BeatRun(run_id=run_id, status=status, step=acting.effects)

    def on_order(self, data: bytes) -> None:
        if self.dead:
            return
        try:
            accepted = self.inbox.accept(data)
        except OrderRefused as error:
            self.refusals.append(error.why)
            return
        order = accepted.order
        for run in accepted.runs:
            acting = self.runs.get(run.run_id)
            if acting is not None and not acting.ended:
                self._obey(acting, order.verb, order.command_id, run.epoch, order.nonce)
        for run_id, why in accepted.refused:
            acting = self.runs.get(run_id)
            if acting is None:
                continue
            if why in (OLD_EPOCH, HALTED):
                epoch = next(run.epoch for run in order.runs if run.run_id == run_id)
                self._say(acting, order.command_id, epoch, "refused", detail=why)
            else:
                for said in acting.stages.get(order.command_id, []):
                    self.rig.to_control(self.session, Reporting(self.session, [said]))

    def _obey(self, acting: Acting, verb: str, command: str, epoch: int, nonce: str) -> None:
        seen = self.kind == "supervisor"
        if verb == "probe":
            if not self.deaf_to_probes:
                self._say(acting, "", 0, "probe", seen and self.can_stop, "L2", nonce)
            return
        self._say(acting, command, epoch, "delivered")
        if self.stubborn:
            return
        acting.did.append((verb, epoch))
        if verb not in ("pause", "resume"):
            acting.acts.append(command)
        match verb:
            case "halt":
                acting.state = "halted"
                self._say(acting, command, epoch, "freeze" if seen else "obeyed", seen)
                self.world.call_later(0.2, lambda: self._kill(acting, command, epoch))
            case "pause":
                acting.state = "paused"
                self._say(acting, command, epoch, "held", seen)
            case "resume":
                acting.state = "running"
                self._say(acting, command, epoch, "resumed", seen)
            case _:
                self._say(acting, command, epoch, "obeyed")

    def _kill(self, acting: Acting, command: str, epoch: int) -> None:
        if self.dead or acting.ended:
            return
        if self.kind == "supervisor":
            self._say(acting, command, epoch, "kill", True)
        self.end(acting.record.run_id, "halted")

    def _say(
        self, acting: Acting, command: str, epoch: int, stage: str, confirmed: bool = False,
        detail: str = "", nonce: str = "",
    ) -> None:  # fmt: skip
        said = Progress(
            command_id=command, session=self.session, run_id=acting.record.run_id, epoch=epoch,
            stage=stage, ms=1.0, at=self.world.now_ns(), by=self.kind, confirmed=confirmed,  # type: ignore[arg-type]
            detail=detail, nonce=nonce,
        )  # fmt: skip
        if command:
            acting.stages.setdefault(command, []).append(said)
        (carried,) = progress_of(encode(said))
        self.rig.to_control(self.session, Reporting(self.session, [carried]))


class Gate(Protocol):
    """A gateway, as the bus and the buckets reach it (see `gate_party`)."""

    def overhear(self, data: bytes) -> None: ...

    def shut(self, key: str, value: bytes | None) -> None: ...

    def catch_up(self) -> None: ...


class Rig:
    """All of it. `disk` is what would survive a crash of control."""

    def __init__(
        self, seed: int = 0, faults: Faults | None = None, limits: Limits | None = None
    ) -> None:
        self.world = SimWorld(seed)
        self.net = Net(self.world, faults or Faults())
        self.limits = limits or Limits()
        self.holders: dict[str, Holder] = {}
        self.sessions: dict[str, SessionRecord] = {}
        self.disk: dict[str, dict[str, bytes]] = {
            "level": {}, "run": {}, "command": {}, "approval": {}, "escalation": {},
            "contained": {},
        }  # fmt: skip
        self.notices: list[Notify] = []
        self.gates: dict[str, Gate] = {}
        self.gateways: dict[str, GatewayRecord] = {}
        """What stands in the bucket; stale records are left out as the role does it."""
        self.revoking: list[str] = []
        self._kept_at = 0.0
        self.disk_up = True
        self.generation = 0
        self.clock = 0
        self.events: dict[int, Base] = {}
        self.audit: dict[str, Audit] = {}
        self.sent: list[Send] = []
        self.control: Control | None = None
        self.frozen = False
        self._life = 0
        self._tick_at = 0
        self.boot()

    # Control's process.

    def boot(self) -> None:
        self.generation += 1
        self._life += 1
        self.control = Control(
            SIGNER, self.world, self.generation, self.sessions, self.limits, self.clock,
            self.live_gateways,
        )  # fmt: skip
        self.clock = self.control.clock_wanted
        self.world.call_later(5.0, self._record_clock)
        disk = self.disk
        self._carry_out(
            self.control.restore(
                [decode(data, RunRecord) for data in disk["run"].values()],
                [decode(data, CommandState) for data in disk["command"].values()],
                [verify(data, SIGNER.public) for data in disk["level"].values()],
                [decode(data, Approval) for data in disk["approval"].values()],
                [decode(data, Escalation) for data in disk["escalation"].values()],
                [decode(data, Contained) for data in disk["contained"].values()],
            )
        )
        self._next_tick()

    def live_gateways(self) -> dict[str, GatewayRecord]:
        since = self.world.monotonic_ns() - GATEWAY_FRESH_NS
        return {name: one for name, one in self.gateways.items() if one.at >= since}

    def _record_clock(self) -> None:
        if self.control is not None and self.disk_up:
            self.clock = max(self.clock, self.control.clock_wanted)
            self.world.call_later(5.0, self._record_clock)

    def crash(self) -> None:
        self._life += 1
        self.control = None

    def give(self, given: Input) -> None:
        if self.control is not None and not self.frozen:
            self._carry_out(self.control.step(given))
            if self.control.due_ns < self._tick_at:
                self._next_tick()

    def _next_tick(self) -> None:
        life, control, now = self._life, self.control, self.world.monotonic_ns()
        assert control is not None
        at = self._tick_at = max(now + 1_000_000, control.due_ns)

        def tick() -> None:
            if self._life == life and self._tick_at == at:
                self._tick_at = at + 10**9
                self.give(Tick())
                self._next_tick()

        self.world.call_later((at - now) / 1e9, tick)

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send():
                    self.sent.append(action)
                    session = action.subject.partition(".")[2]
                    for name, gate in list(self.gates.items()):
                        self.net.carry(name, lambda to=gate, data=action.data: to.overhear(data))  # type: ignore[misc]
                    self.net.carry(session, lambda send=action, to=session: self._deliver(to, send))  # type: ignore[misc]
                case Reply() if isinstance(action.token, Answers):
                    action.token.append(decode(action.data, action.token.kind))
                case Reply() if isinstance(action.token, list):
                    action.token.append(decode(action.data, CommandState))
                case Reply():
                    token: Any = action.token
                    if token is not None:
                        self.net.carry("", lambda call=token, data=action.data: call(data))  # type: ignore[misc]
                case Save():
                    self._save(action.kind, action.key)
                case Keep():
                    self._keep(action)
                case Notify():
                    self.notices.append(action)
                case Tell():
                    self.events.setdefault(action.event.seq, action.event)
                case Revoke():
                    self.revoking.append(action.run_id)
                case Audit():
                    self.audit.setdefault(action.record_id, action)
                case _:
                    pass

    def _deliver(self, session: str, send: Send) -> None:
        if session in self.holders:
            self.holders[session].on_order(send.data)

    def _save(self, kind: str, key: str) -> None:
        life = self._life

        def write() -> None:
            if self._life != life or self.control is None:
                return
            if not self.disk_up:
                self._save(kind, key)
                return
            value = self.control.saved(kind, key)
            if value is None:
                self.disk[kind].pop(key, None)
            else:
                self.disk[kind][key] = value
                for gate in self._watching() if kind == "level" else ():
                    gate.overhear(value)

        self.world.call_later(0.001 + 0.05 * self.world.random(), write)

    def _keep(self, keep: Keep) -> None:
        """Written in order, then told: as `server.control_writing.Keeper` does it."""
        life = self._life
        now = self.world.monotonic_ns() / 1e9
        self._kept_at = max(self._kept_at, now) + 0.02 * self.world.random()

        def write() -> None:
            if self._life != life or self.control is None:
                return
            if not self.disk_up:
                self._keep(keep)
                return
            value = self.control.saved(keep.kind, keep.key)
            if value is None:
                self.disk[keep.kind].pop(keep.key, None)
            else:
                self.disk[keep.kind][keep.key] = value
            for gate in self._watching() if keep.kind == "contained" else ():
                gate.shut(keep.key, value)
            self._carry_out(list(keep.after))

        self.world.call_later(self._kept_at - now, write)

    def _watching(self) -> list["Gate"]:
        """A bucket's watch loses nothing, but tells nobody who is cut off."""
        if not self.net.up:
            return []
        return [gate for name, gate in self.gates.items() if name not in self.net.cut]

    # What happens around it.

    def to_control(self, session: str, given: Input) -> None:
        self.net.carry(session, lambda: self.give(given))

    def cut(self, session: str) -> None:
        self.net.cut.add(session)

    def heal(self, session: str) -> None:
        self.net.cut.discard(session)
        if session in self.gates:
            self.gates[session].catch_up()
        if session in self.holders and not self.holders[session].dead:
            self.holders[session].register()

    def bus_down(self) -> None:
        self.net.up = False
        self.give(Hearing(False))

    def bus_up(self) -> None:
        self.net.up = True
        self.give(Hearing())
        for gate in self._watching():
            gate.catch_up()
        for holder in self.holders.values():
            holder.register()

    def ask(self, verb: str, target: str, **other: Any) -> list[CommandState]:
        """Asks without waiting: the list gets the answer when it comes."""
        answers: list[CommandState] = []
        fields = {"reason": "test", "issued_by": "ann", "wait_ms": 2000} | other
        self.give(Asking(CommandRequest(verb=verb, target=target, **fields), answers))  # type: ignore[arg-type]
        return answers

    def command(self, verb: str, target: str, **other: Any) -> CommandState:
        """Asks, and runs the world until the answer is there."""
        answers = self.ask(verb, target, **other)
        deadline = self.world.monotonic_ns() + 61 * 10**9
        while not answers and self.world.monotonic_ns() < deadline:
            assert self.world.step()
        return answers[0]

    def run_for(self, seconds: float) -> None:
        self.world.run_until(self.world.monotonic_ns() + round(seconds * 1e9))

    def state(self, command_id: str) -> CommandState:
        assert self.control is not None
        (state,) = self.control.commands(LiveQuery(ids=[command_id]))
        return state

    def live(self, run_id: str) -> LiveRun:
        assert self.control is not None
        (run,) = self.control.runs(LiveQuery(ids=[run_id]))
        return run
