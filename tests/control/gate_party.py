"""A gateway in the simulated world: lets calls of runs through that others hold, until it hears
otherwise."""

from tests.control.rig import SIGNER, Rig

from checkrein.bus import subjects
from checkrein.bus.identities import Contained, GatewayRecord
from checkrein.bus.messages import Progress, SessionRecord, decode
from checkrein.bus.orders import verify
from checkrein.control.types import Reporting


class GateParty:
    """`passed`: calls that went through, by run; it outlives crashes."""

    def __init__(self, rig: Rig, name: str) -> None:
        self.rig, self.name, self.starts = rig, name, 0
        self.session = ""
        self.alive = False
        self.passed: dict[str, int] = {}
        self.start()

    def start(self) -> None:
        """Reads what stands, before anybody is let in."""
        rig = self.rig
        self.starts += 1
        self.session, self.alive = f"gate-{self.name}-{self.starts}", True
        self.halted: dict[str, str] = {}
        self.paused: dict[str, int] = {}
        self.known: set[str] = set()
        self.contained = {key: decode(v, Contained) for key, v in rig.disk["contained"].items()}
        rig.gates[self.session] = self
        rig.sessions[self.session] = SessionRecord(
            session=self.session, kind="gateway", agents=["gateway"], user="", expires_at=0
        )
        for data in list(rig.disk["level"].values()):
            self.overhear(data)
        self._say_where(self.session)

    def crash(self) -> None:
        self.alive = False
        self.rig.gates.pop(self.session, None)

    def catch_up(self) -> None:
        """What a watch tells when it begins anew after the bus was away."""
        for key in set(self.contained) - set(self.rig.disk["contained"]):
            self.shut(key, None)
        for key, value in self.rig.disk["contained"].items():
            self.shut(key, value)
        for data in list(self.rig.disk["level"].values()):
            self.overhear(data)

    def _say_where(self, session: str) -> None:
        if not self.alive or self.session != session:
            return
        if session not in self.rig.net.cut and self.rig.net.up:
            self.rig.gateways[session] = GatewayRecord(
                session=session, url=f"http://{self.name}", host="h", pid=self.starts,
                at=self.rig.world.monotonic_ns(),
            )  # fmt: skip
        self.rig.world.call_later(5.0, lambda: self._say_where(session))

    def call(self, run_id: str, agent: str) -> bool:
        """Whether a call passes."""
        if not self.alive or subjects.token(agent) in self.contained:
            return False
        if run_id in self.rig.revoking:
            return False  # its key was taken back
        self.known.add(run_id)
        if run_id in self.halted or run_id in self.paused:
            return False
        self.passed[run_id] = self.passed.get(run_id, 0) + 1
        return True

    def overhear(self, data: bytes) -> None:
        if not self.alive:
            return
        order = verify(data, SIGNER.public)
        for run in order.runs:
            match order.verb:
                case "halt":
                    self.halted.setdefault(run.run_id, order.command_id)
                    if run.run_id in self.known:
                        self.say(order.command_id, run.run_id, run.epoch, "fence")
                case "pause" if run.run_id not in self.halted:
                    self.paused[run.run_id] = run.epoch
                    if run.run_id in self.known:
                        self.say(order.command_id, run.run_id, run.epoch, "held")
                case "resume" if self.paused.get(run.run_id, 0) < run.epoch:
                    self.paused.pop(run.run_id, None)
                case "probe" if order.session == self.session and run.run_id in self.known:
                    self.say("", run.run_id, 0, "probe", "L1", order.nonce)
                case _:
                    pass

    def shut(self, key: str, value: bytes | None) -> None:
        """The bucket `contained` has changed."""
        if not self.alive:
            return
        if value is None:
            before = self.contained.pop(key, None)
            if before is not None:
                self.say(before.command_id, "", 0, "obeyed", before.agent)
            return
        record = self.contained[key] = decode(value, Contained)
        self.say(record.command_id, "", 0, "fence", f"{record.agent}: 0 calls in flight were cut")

    def say(
        self, command: str, run_id: str, epoch: int, stage: str, detail: str = "", nonce: str = "",
    ) -> None:  # fmt: skip
        said = Progress(
            command_id=command, session=self.session, run_id=run_id, epoch=epoch, stage=stage,  # type: ignore[arg-type]
            ms=2.0, at=self.rig.world.now_ns(), by="gateway", confirmed=True, detail=detail,
            nonce=nonce,
        )  # fmt: skip
        self.rig.to_control(self.session, Reporting(self.session, [said]))
