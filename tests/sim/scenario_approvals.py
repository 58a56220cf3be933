"""Approvals under faults: questions, answers and words on them are lost, doubled, late and out of
order; control and its disk fail and come back, agents die and come back with the same task.
`run(seed)` plays one such story and checks, all the way and at the end:

    no approval is used by two calls, and none by a call of another action, agent or task;
    who acts has it on record: control knows the approval as used, by this very call, within its
    life, after somebody approved it;
    what a person was told is denied is never used from then on; what was halted neither;

and, once the faults have stopped:

    everybody who waits is answered, and people are asked about what is open, once each.
"""

from dataclasses import dataclass, field

from checkrein.bus.approvals import Approval, Ask, Asked, Decide, Decided, GateQuery, checked
from checkrein.bus.messages import decode
from checkrein.bus.orders import OrderRefused
from checkrein.control.types import Deciding, Limits, Seeking
from checkrein.policy.digest import digest_of
from tests.control.rig import SIGNER, Answers, Faults, Holder, Rig

STORY_S = 60.0
CALM_S = 40.0
LIFE_S = 45.0
LIMITS = Limits(
    lost_after_s=5.0, silent_after_s=2.0, approval_use_s=20.0, approvals_kept_max=10_000
)
AGAIN_S = 2.0


def run(seed: int) -> None:
    """Raises AssertionError, with the seed in its words, when a promise is broken."""
    story = Story(seed)
    try:
        story.play()
    except AssertionError as error:
        raise AssertionError(f"approvals, seed {seed}: {error}") from error


@dataclass
class Caller:
    """One call that waits: what the SDK's side of a question does."""

    holder: Holder
    run_id: str
    task: str
    claim: str
    number: int
    """Which action of its agent it wants to make."""
    answer: Asked | None = None
    dead: bool = False
    acted_at: int = 0


@dataclass
class Told:
    """What a person was told of one approval: when denied, by control's clock."""

    denied_at: dict[str, int] = field(default_factory=dict)
    approved: set[str] = field(default_factory=set)


class Story:
    def __init__(self, seed: int) -> None:
        self.rig = Rig(seed, limits=LIMITS)
        chance = self.chance = self.rig.world.chance
        self.rig.net.faults = Faults(
            lost=chance.choice([0.0, 0.1, 0.3]), twice=chance.choice([0.0, 0.3]),
            late=chance.choice([0.0, 0.1, 0.3]), late_s=chance.choice([0.5, 3.0, 10.0]),
            travel_s=chance.choice([0.001, 0.05]),
        )  # fmt: skip
        self.callers: list[Caller] = []
        self.told = Told()
        self.tried: set[str] = set()
        """Approvals that somebody tried to approve, whether or not an answer came."""
        self.count = 0

    def play(self) -> None:
        for _ in range(self.chance.randint(1, 3)):
            self._new_run()
        while self.rig.world.monotonic_ns() < STORY_S * 1e9:
            self.rig.run_for(self.chance.expovariate(1.5))
            self._happen()
            self.check()
        self._calm()
        self.check()
        for caller in self.callers:
            assert self._gone(caller) or caller.answer is not None, (
                f"{caller.claim} was never answered"
            )

    def _calm(self) -> None:
        """The faults stop; people answer everything that is open, again and again."""
        self.rig.net.faults = Faults()
        self.rig.disk_up = True
        if self.rig.control is None:
            self.rig.boot()
        if not self.rig.net.up:
            self.rig.bus_up()
        for session in list(self.rig.net.cut):
            self.rig.heal(session)
        for _ in range(int(CALM_S / 2)):
            self.rig.run_for(2.0)
            for approval in self._open():
                self._decide(approval.approval_id)
        asked = [(one.agent, one.digest, one.task_id) for one in self._open()]
        assert len(asked) == len(set(asked)), "somebody is asked the same thing twice"

    def _happen(self) -> None:
        acts = {
            self._call: 25, self._decide: 20, self._new_run: 3, self._die: 6, self._come_back: 8,
            self._crash: 5, self._disk: 3, self._cut: 3, self._heal: 6, self._bus: 2,
            self._halt: 2, self._step_clock: 2,
        }  # fmt: skip
        (act,) = self.chance.choices(list(acts), list(acts.values()))
        act()

    # -- agents --------------------------------------------------------------------------------

    def _new_run(self, task: str = "") -> Holder:
        self.count += 1
        holder = Holder(self.rig, f"s{self.count}", self.chance.choice(["sdk", "supervisor"]))
        holder.start(f"r{self.count}", "bot", "", task or f"{self.count:032x}")
        return holder

    def _call(self) -> None:
        alive = [holder for holder in self.rig.holders.values() if not holder.dead]
        if alive:
            holder = self.chance.choice(alive)
            run_id = next(iter(holder.runs))
            self._wait(holder, run_id, self.chance.randint(1, 3))

    def _wait(self, holder: Holder, run_id: str, number: int) -> None:
        self.count += 1
        task = holder.runs[run_id].record.task_id
        caller = Caller(holder, run_id, task, f"claim-{self.count}", number)
        self.callers.append(caller)
        self._ask(caller)

    def _ask(self, caller: Caller) -> None:
        if self._gone(caller) or caller.answer is not None:
            return
        session, ask = caller.holder.session, self._message(caller)

        def told(data: bytes) -> None:
            self._hear(caller, decode(data, Asked), ask.digest)

        self.rig.to_control(session, Seeking(session, ask, told))
        again = AGAIN_S * (0.8 + 0.4 * self.rig.world.random())
        self.rig.world.call_later(again, lambda: self._ask(caller))

    def _gone(self, caller: Caller) -> bool:
        """Dead, or halted: then it waits for nothing more."""
        halted = caller.holder.runs[caller.run_id].state == "halted"
        return caller.dead or caller.holder.dead or halted

    def _message(self, caller: Caller) -> Ask:
        arguments = {"n": caller.number}
        return Ask(
            claim=caller.claim, run_id=caller.run_id, task_id=caller.task, agent="bot",
            kind="tool", tool="act", arguments=arguments, rule="tools.act.ask", pact="p",
            pact_version="1", life_s=LIFE_S,
            digest=digest_of("bot", "tool", "act", arguments, "p", "1"),
        )  # fmt: skip

    def _hear(self, caller: Caller, answer: Asked, digest: str) -> None:
        if self._gone(caller) or caller.answer is not None:
            return
        assert answer.claim == caller.claim
        if answer.status in ("open", "unknown"):
            return
        try:
            answer = checked(answer, SIGNER.public, caller.holder.session, digest)
        except OrderRefused as error:
            raise AssertionError(f"{caller.claim} got a word that is not good: {error}") from error
        caller.answer = answer
        if answer.status == "approved":
            caller.acted_at = self.rig.world.monotonic_ns()

    def _die(self) -> None:
        waiting = [one for one in self.callers if not one.dead and one.answer is None]
        if waiting:
            caller = self.chance.choice(waiting)
            caller.dead = True
            if self.chance.random() < 0.5:
                caller.holder.dead = True

    def _come_back(self) -> None:
        """The same task goes on elsewhere, and wants the same."""
        gone = [one for one in self.callers if one.dead and one.answer is None]
        if gone:
            caller = gone[self.chance.randrange(len(gone))]
            holder = self._new_run(caller.task) if caller.holder.dead else caller.holder
            self._wait(holder, next(iter(holder.runs)), caller.number)

    # -- people --------------------------------------------------------------------------------

    def _open(self) -> list[Approval]:
        control = self.rig.control
        return [] if control is None else control.approvals(GateQuery())

    def _decide(self, approval_id: str = "") -> None:
        known = self.rig.control.approvals(GateQuery(all=True)) if self.rig.control else []
        if not known:
            return
        ident = approval_id or self.chance.choice(known).approval_id
        decision = "approve" if self.chance.random() < 0.6 else "deny"
        answers = Answers(Decided)
        if decision == "approve":
            self.tried.add(ident)
        request = Decide(decision=decision, by="ann", reason="so", ids=[ident])  # type: ignore[arg-type]
        self.rig.give(Deciding(request, answers))

        def look() -> None:
            if answers and answers[0].done[0].ok and decision == "deny":
                self.told.denied_at.setdefault(ident, self.rig.world.monotonic_ns())

        self.rig.world.call_later(0.3, look)

    # -- what goes wrong -----------------------------------------------------------------------

    def _crash(self) -> None:
        if self.rig.control is None:
            self.rig.boot()
        else:
            self.rig.crash()

    def _disk(self) -> None:
        self.rig.disk_up = not self.rig.disk_up

    def _cut(self) -> None:
        self.rig.cut(self.chance.choice(sorted(self.rig.holders)))

    def _heal(self) -> None:
        if self.rig.net.cut:
            self.rig.heal(self.chance.choice(sorted(self.rig.net.cut)))

    def _bus(self) -> None:
        if self.rig.net.up:
            self.rig.bus_down()
        else:
            self.rig.bus_up()

    def _halt(self) -> None:
        holder = self.chance.choice(list(self.rig.holders.values()))
        self.rig.ask("halt", f"run:{next(iter(holder.runs))}", wait_ms=0)

    def _step_clock(self) -> None:
        self.rig.world.step_wall_clock(self.chance.choice([-3600, -5, 5, 3600]))

    # -- what must hold ------------------------------------------------------------------------

    def check(self) -> None:
        acted: dict[str, Caller] = {}
        disk = {
            key: decode(data, Approval) for key, data in list(self.rig.disk["approval"].items())
        }
        for caller in self.callers:
            answer = caller.answer
            if answer is None or answer.status != "approved":
                continue
            ident = answer.approval_id
            before = acted.setdefault(ident, caller)
            assert before is caller, f"{ident} used by {before.claim} and {caller.claim}"
            record = disk.get(ident)
            assert record is not None, f"{ident} was used, and is not on record"
            assert record.status == "used", f"{ident} was used, and is {record.status}"
            assert record.claim == caller.claim, f"{ident} was used by {record.claim}"
            assert record.arguments == {"n": caller.number}, f"{ident} is for another action"
            assert record.task_id == caller.task, f"{ident} is of another task"
            assert record.used_at < record.expires_at, f"{ident} was used after its end"
            assert ident in self.tried, f"{ident} was used, and approved by nobody"
            denied = self.told.denied_at.get(ident)
            assert denied is None, f"{ident} was used although somebody was told of its denial"
