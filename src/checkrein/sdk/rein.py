"""What a run has been ordered: a pure state machine, level-triggered.

    running ──pause, escalate──▶ paused ──resume──▶ running
       └───────halt──────┴──────halt──▶ halted          (final)

Orders carry an epoch. Of `pause`, `resume` and `halt` the highest epoch wins, and a late, older one
is refused; a halt is taken even late. Of the others each is taken once. The same order again is
only acknowledged again. Beside orders, a lost connection may hold a run (the pact's
`lost_contact`); that hold is its own and goes when contact returns.
"""

from collections import OrderedDict
from typing import Any, Literal

import msgspec

State = Literal["running", "paused", "halted"]
Taken = Literal["taken", "repeated", "refused"]

STATE_VERBS = frozenset({"pause", "resume", "halt"})
DIRECTIVES_MAX = 32
"""Directives that wait for the next model call; the oldest goes when there are more."""
REMEMBERED_MAX = 128

OLD_EPOCH = "old epoch"
HALTED = "halted"


class Ordered(msgspec.Struct, frozen=True, kw_only=True):
    """One order for one run, already known to be genuine."""

    command_id: str
    verb: str
    epoch: int
    reason: str = ""
    issued_by: str = ""
    arguments: dict[str, Any] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    taken: Taken
    why: str = ""


class Rein:
    """Pure: no clock, no threads, no waiting. Whoever shares it between threads locks it."""

    def __init__(self) -> None:
        self.state: State = "running"
        self.epoch = 0
        self.order: Ordered | None = None
        """The order that made the state."""
        self.reason = ""
        self.issued_by = ""
        self.lost_contact = False
        self.new_goal = ""
        self.directives: list[str] = []
        self._heard: OrderedDict[tuple[str, int], None] = OrderedDict()

    @property
    def taut(self) -> bool:
        """True unless the run may go on freely."""
        return self.state != "running" or self.lost_contact

    def obey(self, order: Ordered, step: int) -> Answer:
        """Takes an order, repeats or refuses it. `step` is the run's current step."""
        # 1. The same order again changes nothing.
        heard = (order.command_id, order.epoch)
        if heard in self._heard:
            return Answer(taken="repeated")
        # 2. Nothing follows a halt but another halt, which finds it done.
        if self.state == "halted":
            return self._after_halt(order)
        # 3. An older state never replaces a newer one; only stopping is always right.
        if order.verb in STATE_VERBS and order.verb != "halt" and order.epoch <= self.epoch:
            return Answer(taken="refused", why=OLD_EPOCH)
        # 4. An order that expects a step fails when the run has moved past it.
        expected = order.arguments.get("expected_step")
        if type(expected) is int and step > expected:
            return Answer(
                taken="refused", why=f"meant for step {expected}, the run is at step {step} already"
            )
        # 5. What is left is taken by its verb.
        return self._take(order)

    def halt(self, reason: str, issued_by: str) -> bool:
        """Halts without an order (a rule in this process). False: it was halted already."""
        if self.state == "halted":
            return False
        self.state, self.reason, self.issued_by = "halted", reason, issued_by
        return True

    def take_directives(self) -> tuple[str, ...]:
        """What the next model call must be told; each is handed out once."""
        taken = tuple(self.directives)
        self.directives.clear()
        return taken

    def add_directive(self, text: str) -> None:
        self.directives.append(text)
        del self.directives[:-DIRECTIVES_MAX]

    def _after_halt(self, order: Ordered) -> Answer:
        if order.verb != "halt":
            return Answer(taken="refused", why=HALTED)
        self.order = order
        self._remember(order)
        return Answer(taken="repeated", why="the run was halted before")

    def _take(self, order: Ordered) -> Answer:
        match order.verb:
            case "pause" | "escalate":
                self._become("paused", order)
            case "resume":
                self._become("running", order)
                self.reason = self.issued_by = ""
            case "halt":
                self._become("halted", order)
            case "redirect":
                self.new_goal = str(order.arguments.get("goal") or order.reason)
                self.add_directive(f"Your goal is replaced. New goal: {self.new_goal}")
            case "inject":
                self.add_directive(str(order.arguments.get("text") or order.reason))
            case verb:
                return Answer(taken="refused", why=f"{verb} is not for an agent's own process")
        self._remember(order)
        return Answer(taken="taken")

    def _become(self, state: State, order: Ordered) -> None:
        self.state, self.order = state, order
        self.reason, self.issued_by = order.reason, order.issued_by
        self.epoch = max(self.epoch, order.epoch)

    def _remember(self, order: Ordered) -> None:
        self.epoch = max(self.epoch, order.epoch) if order.verb in STATE_VERBS else self.epoch
        self._heard[order.command_id, order.epoch] = None
        if len(self._heard) > REMEMBERED_MAX:
            self._heard.popitem(last=False)
