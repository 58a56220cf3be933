"""Commands under faults: orders, reports and beats are lost, doubled, late and out of order; parts
are cut off; control, holders and the bus die and come back. `run(seed)` plays one such story and
checks, all the way:

    a run never obeys one order twice (nor one command, should control forget that it gave it), nor
    an older state after a newer one, nor anything but another halt after a halt;
    a run whose halt is confirmed does nothing more, ever;

and, once the faults have stopped:

    every halt that was answered has halted its runs, as far as anybody is left to obey;
    every run is in the state that is wanted of it, and every command has come to its end.
"""

from checkrein.bus.messages import LiveQuery
from checkrein.bus.orders import AFTER_HALT, STATE_VERBS
from checkrein.control.types import Limits
from tests.control.rig import Faults, Holder, Rig

STORY_S = 40.0
CALM_S = 30.0
LIMITS = Limits(act_life_s=12.0, lost_after_s=5.0, silent_after_s=2.0, escalate_after_s=10.0)
VERBS = ("pause", "resume", "halt", "pause", "resume", "inject", "approve")


def run(seed: int) -> None:
    """Raises AssertionError, with the seed in its words, when a promise is broken."""
    story = Story(seed)
    try:
        story.play()
    except AssertionError as error:
        raise AssertionError(f"commands, seed {seed}: {error}") from error


class Story:
    def __init__(self, seed: int) -> None:
        self.rig = Rig(seed, limits=LIMITS)
        self.chance = self.rig.world.chance
        chance = self.chance
        self.faults = Faults(
            lost=chance.choice([0.0, 0.05, 0.3]), twice=chance.choice([0.0, 0.2]),
            late=chance.choice([0.0, 0.1, 0.3]), late_s=chance.choice([0.5, 3.0, 15.0]),
            travel_s=chance.choice([0.001, 0.05]),
        )  # fmt: skip
        self.rig.net.faults = self.faults
        self.count = 0
        self.asked: dict[str, tuple[str, str]] = {}
        self.answered: dict[str, list[str]] = {}
        """Halts that were answered: which runs they named."""
        self.confirmed: dict[str, int] = {}
        """Runs whose halt was confirmed, and what they had done by then."""

    def play(self) -> None:
        for _ in range(self.chance.randint(1, 3)):
            self._new_holder()
        while self.rig.world.monotonic_ns() < STORY_S * 1e9:
            self.rig.run_for(self.chance.expovariate(2.0))
            self._happen()
            self.check()
        self.rig.net.faults = Faults()
        self.rig.disk_up = True
        if self.rig.control is None:
            self.rig.boot()
        if not self.rig.net.up:
            self.rig.bus_up()
        for session in list(self.rig.net.cut):
            self.rig.heal(session)
        self.rig.run_for(CALM_S)
        self.check()
        self.converged()

    def _happen(self) -> None:
        acts = {
            self._ask: 50, self._ask_again: 6, self._new_run: 8, self._end_run: 3,
            self._ask_and_crash: 3, self._cut: 6, self._heal: 8, self._bus: 3,
            self._crash_control: 5, self._crash_holder: 1, self._new_holder: 1,
            self._step_clock: 2,
        }  # fmt: skip
        (act,) = self.chance.choices(list(acts), list(acts.values()))
        act()

    def _ask(self, verb: str = "", target: str = "", command_id: str = "") -> None:
        verb = verb or self.chance.choice(VERBS)
        target = target or self._target()
        self.count += 1
        command_id = command_id or f"c{self.count}"
        self.asked[command_id] = (verb, target)
        answers = self.rig.ask(verb, target, command_id=command_id, wait_ms=1000)

        def look() -> None:
            if answers and verb == "halt" and not answers[0].error:
                runs = [line.run_id for line in answers[0].runs]
                self.answered.setdefault(command_id, runs)

        self.rig.world.call_later(1.5, look)

    def _ask_again(self) -> None:
        """Somebody who got no answer asks again, under the same id."""
        if self.asked:
            command_id = self.chance.choice(list(self.asked))
            self._ask(*self.asked[command_id], command_id)

    def _ask_and_crash(self) -> None:
        """Control dies between sending an order and writing it down, and is asked again."""
        command_id, verb = f"d{self.count}", self.chance.choice(VERBS)
        target = self._target()
        self._ask(verb, target, command_id)
        self.rig.run_for(0.005)
        if self.rig.control is not None:
            self.rig.crash()
        self.rig.boot()
        self._ask(verb, target, command_id)

    def _target(self) -> str:
        runs = [run for holder in self.rig.holders.values() for run in holder.runs]
        return self.chance.choice(
            ["all", "agent:a", "agent:b", "room:x", *(f"run:{run}" for run in runs[-6:])]
        )

    def _holder(self) -> Holder | None:
        alive = [holder for holder in self.rig.holders.values() if not holder.dead]
        return self.chance.choice(alive) if alive else None

    def _new_holder(self) -> None:
        kind = self.chance.choice(["supervisor", "supervisor", "sdk"])
        Holder(self.rig, f"s{len(self.rig.holders)}", kind)
        self._new_run()

    def _new_run(self) -> None:
        holder = self._holder()
        if holder is not None:
            self.count += 1
            agent, room = self.chance.choice("ab"), self.chance.choice(["x", "y"])
            task = f"{self.count:032x}"
            holder.start(f"r{self.count}", agent, room, task)

    def _end_run(self) -> None:
        holder = self._holder()
        if holder is not None:
            acting = [run for run, acting in holder.runs.items() if acting.state == "running"]
            if acting:
                holder.end(self.chance.choice(acting), "completed")

    def _cut(self) -> None:
        holder = self._holder()
        if holder is not None:
            self.rig.cut(holder.session)

    def _heal(self) -> None:
        if self.rig.net.cut:
            self.rig.heal(self.chance.choice(sorted(self.rig.net.cut)))

    def _bus(self) -> None:
        if self.rig.net.up:
            self.rig.bus_down()
        else:
            self.rig.bus_up()

    def _crash_control(self) -> None:
        if self.rig.control is None:
            self.rig.boot()
        else:
            self.rig.crash()

    def _crash_holder(self) -> None:
        """With a supervisor its whole tree dies."""
        holder = self._holder()
        if holder is not None:
            holder.dead = True

    def _step_clock(self) -> None:
        self.rig.world.step_wall_clock(self.chance.choice([-3600, -5, 5, 3600]))

    def check(self) -> None:
        for holder in self.rig.holders.values():
            for run_id, acting in holder.runs.items():
                assert len(set(acting.did)) == len(acting.did), f"{run_id} twice: {acting.did}"
                acts = acting.acts
                assert len(set(acts)) == len(acts), f"{run_id} obeyed twice: {acts}"
                states = [epoch for verb, epoch in acting.did if verb in ("pause", "resume")]
                assert states == sorted(states), f"{run_id}: older after newer: {acting.did}"
                verbs = [verb for verb, _ in acting.did]
                if "halt" in verbs:
                    rest = set(verbs[verbs.index("halt") + 1 :])
                    assert rest <= AFTER_HALT, f"{run_id} acts halted: {acting.did}"
                    assert acting.state != "running", f"{run_id} is halted and acting"
                if run_id in self.confirmed:
                    done = acting.effects - self.confirmed[run_id]
                    assert done == 0, f"{run_id} did {done} things after a confirmed halt"
        self._note_confirmed()

    def _note_confirmed(self) -> None:
        if self.rig.control is None:
            return
        for state in self.rig.control.commands(LiveQuery(limit=100)):
            for line in state.runs:
                if state.verb == "halt" and line.confirmed:
                    acting = self._acting(line.run_id)
                    if acting is not None:
                        self.confirmed.setdefault(line.run_id, acting.effects)

    def _acting(self, run_id: str) -> object:
        for holder in self.rig.holders.values():
            if run_id in holder.runs:
                return holder.runs[run_id]
        return None

    def converged(self) -> None:
        assert self.rig.control is not None
        alive = {
            run_id: acting
            for holder in self.rig.holders.values() if not holder.dead
            for run_id, acting in holder.runs.items()
        }  # fmt: skip
        for command_id, runs in self.answered.items():
            for run_id in runs:
                if run_id in alive:
                    state = alive[run_id].state
                    assert state in ("halted", "completed"), f"{command_id}: {run_id} is {state}"
        book = self.rig.control._book
        for run_id, acting in alive.items():
            if acting.ended:
                assert run_id not in book.registry.runs, f"{run_id} has ended unheard"
                continue
            known = book.registry.runs.get(run_id)
            assert known is not None, f"{run_id} is not registered"
            assert acting.state == known.wanted, f"{run_id} {acting.state}, not {known.wanted}"
        for command in book.commands.values():
            for line in command.lines:
                ends = not line.open or line.run_id not in alive
                assert ends, f"{command.command_id} {command.verb} of {line.run_id} is open"
                if command.verb not in STATE_VERBS:
                    assert not line.open, f"{command.command_id} {command.verb} is open"
