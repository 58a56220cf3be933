"""Gateways under faults: orders and reports are lost, doubled and late; gateways and control die
and come back; parts are cut off. `run(seed)` plays one such story and checks, all the way:

    once a receipt names a fence, and the level is written down, no call of that run passes at any
    gateway that said so, nor at one that was started since;
    once an agent's containment is confirmed, none of its calls passes at any gateway that is in
    touch, until its release is asked for;

and, once the faults have stopped:

    every halt that was answered is fenced at every gateway, and nobody was taken for a forger;
    every agent is let in or shut out as the last command has it.
"""

from checkrein.bus import subjects
from checkrein.bus.messages import LiveQuery
from checkrein.control.types import Limits
from tests.control.gate_party import GateParty
from tests.control.rig import Faults, Holder, Rig

STORY_S = 40.0
CALM_S = 30.0
CALLS_S = 0.1
LIMITS = Limits(lost_after_s=5.0, silent_after_s=2.0, escalate_after_s=10.0)
AGENTS = ("a", "b")


def run(seed: int) -> None:
    """Raises AssertionError, with the seed in its words, when a promise is broken."""
    story = Story(seed)
    try:
        story.play()
    except AssertionError as error:
        raise AssertionError(f"fences, seed {seed}: {error}") from error


class Story:
    def __init__(self, seed: int) -> None:
        self.rig = Rig(seed, limits=LIMITS)
        self.chance = chance = self.rig.world.chance
        self.rig.net.faults = Faults(
            lost=chance.choice([0.0, 0.05, 0.3]), twice=chance.choice([0.0, 0.2]),
            late=chance.choice([0.0, 0.2]), late_s=chance.choice([0.5, 3.0]),
        )  # fmt: skip
        self.gates = [GateParty(self.rig, name) for name in ("one", "two")]
        self.holders = [
            Holder(self.rig, f"s{i}", kind) for i, kind in enumerate(("supervisor", "sdk"))
        ]
        self.agent_of: dict[str, str] = {}
        for number in range(6):
            run_id, agent = f"r{number}", chance.choice(AGENTS)
            self.agent_of[run_id] = agent
            chance.choice(self.holders).start(run_id, agent, task=f"{number:032x}")
        self.halts: list[str] = []
        self.fenced: dict[tuple[str, str], int] = {}
        """(gate, run) to the calls that had passed when its fence was in a receipt."""
        self.shut: dict[tuple[str, str], int] = {}
        """(gate, agent) to the starts of the gate when the agent was confirmed to be contained."""
        self.wanted: dict[str, str] = {}

    def play(self) -> None:
        self._call()
        while self.rig.world.monotonic_ns() < STORY_S * 1e9:
            self.rig.run_for(self.chance.expovariate(2.0))
            self._happen()
            self._note()
        self._calm()
        self._settled()

    def _call(self) -> None:
        """Every agent calls at every gateway, all the time, whatever its holder is told."""
        for gate in self.gates:
            for run_id, agent in self.agent_of.items():
                passed = gate.call(run_id, agent)
                if not passed:
                    continue
                since = self.fenced.get((gate.name, run_id))
                assert since is None, f"{run_id} passes {gate.name} behind its fence"
                shut = (gate.name, agent) in self.shut and not self._is_away(gate)
                assert not shut, f"{agent} passes {gate.name} though it is contained"
        self.rig.world.call_later(CALLS_S, self._call)

    def _is_away(self, gate: GateParty) -> bool:
        return gate.session in self.rig.net.cut or not self.rig.net.up

    def _happen(self) -> None:
        acts = {
            self._halt: 4, self._contain: 10, self._release: 8, self._crash_gate: 6,
            self._start_gate: 10, self._crash_control: 4, self._cut: 4, self._heal: 8,
        }  # fmt: skip
        (act,) = self.chance.choices(list(acts), list(acts.values()))
        act()

    def _halt(self) -> None:
        run_id = self.chance.choice(list(self.agent_of))
        answers = self.rig.ask("halt", f"run:{run_id}", wait_ms=1000)

        def look() -> None:
            if answers and not answers[0].error:
                self.halts.append(run_id)

        self.rig.world.call_later(1.5, look)

    def _contain(self) -> None:
        self._shut("contain", self.chance.choice(AGENTS))

    def _release(self) -> None:
        agent = self.chance.choice(AGENTS)
        for gate in self.gates:
            self.shut.pop((gate.name, agent), None)
        self._shut("release", agent)

    def _shut(self, verb: str, agent: str) -> None:
        answers = self.rig.ask(verb, f"agent:{agent}", wait_ms=0)
        if answers and not answers[0].error:
            self.wanted[agent] = verb

    def _crash_gate(self) -> None:
        gate = self.chance.choice(self.gates)
        if gate.alive:
            gate.crash()

    def _start_gate(self) -> None:
        for gate in self.gates:
            if not gate.alive:
                gate.start()
                return

    def _crash_control(self) -> None:
        if self.rig.control is None:
            self.rig.boot()
        else:
            self.rig.run_for(1.0)  # what was asked last is written down
            self.rig.crash()

    def _cut(self) -> None:
        self.rig.cut(self.chance.choice([gate.session for gate in self.gates]))

    def _heal(self) -> None:
        if self.rig.net.cut:
            self.rig.heal(self.chance.choice(sorted(self.rig.net.cut)))

    def _note(self) -> None:
        """What receipts say by now, as far as it is written down."""
        control = self.rig.control
        if control is None:
            return
        for command in control._book.commands.values():
            for line in command.lines:
                key = f"{line.session}.{line.run_id}"
                if command.verb == "halt" and line.fences and key in self.rig.disk["level"]:
                    for gate in self.gates:
                        if gate.session in line.fences:
                            self.fenced.setdefault((gate.name, line.run_id), gate.starts)
        for agent, verb in self.wanted.items():
            if verb == "contain" and self._confirmed(agent):
                for gate in self.gates:
                    if not self._is_away(gate):
                        self.shut[gate.name, agent] = gate.starts

    def _confirmed(self, agent: str) -> bool:
        assert self.rig.control is not None
        commands = self.rig.control.commands(LiveQuery(limit=100))
        last = next((c for c in commands if c.verb in ("contain", "release") and not c.error
                     and c.target == f"agent:{agent}"), None)  # fmt: skip
        if last is None or last.verb != "contain":
            return False
        return last.runs[0].outcome == "obeyed" and bool(last.runs[0].confirmed)

    def _calm(self) -> None:
        self.rig.net.faults = Faults()
        if self.rig.control is None:
            self.rig.boot()
        for session in list(self.rig.net.cut):
            self.rig.heal(session)
        for gate in self.gates:
            if not gate.alive:
                gate.start()
        self.rig.run_for(CALM_S)

    def _settled(self) -> None:
        control = self.rig.control
        assert control is not None
        assert control.forged == 0, "a gateway was taken for a forger"
        for run_id in self.halts:
            for gate in self.gates:
                passes = gate.call(run_id, self.agent_of[run_id])
                assert not passes, f"{run_id} is not fenced at {gate.name}"
        for agent, verb in self.wanted.items():
            for gate in self.gates:
                shut = subjects.token(agent) in gate.contained
                assert shut == (verb == "contain"), f"{agent} at {gate.name} after {verb}"
        for command in control._book.commands.values():
            if command.verb in ("contain", "release"):
                assert command.done, f"{command.command_id} {command.verb} is open"
