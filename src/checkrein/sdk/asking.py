"""Waiting for a person: a call that must be approved, or a duty that somebody must take note of.

The call stands at the boundary, begun nowhere: it is not in flight, the run shows `waiting_human`,
its wall-clock budget stands still, a halt gets through at once and a pause holds it afterwards.
Nobody polls: the link tells the answer. No answer in time is a no, whoever is away.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from checkrein.events import types as events
from checkrein.policy.accounts import is_shared
from checkrein.policy.digest import digest_of, is_whole
from checkrein.policy.types import Action, Duty, Verdict
from checkrein.sdk import values
from checkrein.sdk.guard import Seat
from checkrein.sdk.hold import Held, Hold
from checkrein.sdk.types import RunInfo
from checkrein.world import World

if TYPE_CHECKING:
    from checkrein.bus.approvals import Ask, Asked, Raise

GRACE_S = 10.0
"""So long after its end a question is still waited for, in case the answer is on its way."""
ARGUMENT_BYTES_MAX = 200 * 1024
NOBODY = "nobody can be asked: there is no server"

_GUARDS_NAMES = {"wall": "wall_s"}
_DECISIONS = {"approved": "approved", "denied": "denied", "expired": "expired",
              "withdrawn": "withdrawn"}  # fmt: skip


T = TypeVar("T")


class Run(Protocol):
    """The run that waits, as its questions see it: `checkrein.sdk.run.Run`."""

    client: Any
    world: World
    info: RunInfo
    run_id: str
    task_id: str
    step: int
    hold: Hold
    seat: Seat

    def enter(self, call_id: str, kind: str, name: str, wait: bool = True) -> None: ...
    def leave(self, call_id: str) -> None: ...
    def record(self, kind: type[events.Base], /, **fields: Any) -> None: ...
    def decided(self, action: Action, verdict: Verdict) -> None: ...
    def raises(self, duty: tuple[str, str, str]) -> bool: ...


class Question(ABC):
    """What a link asks until it is answered. Told from the link's thread; waited for in the call's.
    `claim` names this one waiting call and is known to nobody else."""

    def __init__(self, run: Run, life_s: float, call_id: str, kind: str, name: str) -> None:
        self.run = run
        self.claim = f"{run.world.nonce()}{run.world.nonce()}"
        self.digest = ""
        self.approval_id = ""
        self.why = name
        self.waits = True
        """Whether a call waits for the answer."""
        self.answer: Asked | None = None
        self.began_ns = run.world.monotonic_ns()
        self._call = (call_id, kind, name)
        self._ends_ns = self.began_ns + round((life_s + GRACE_S) * 1e9)

    @property
    def done(self) -> bool:
        """Whether there is an answer, or there will be none any more."""
        return self.answer is not None or self.run.world.monotonic_ns() >= self._ends_ns

    @abstractmethod
    def message(self, left: bool = False) -> "Ask | Raise":
        """What control is asked. `left`: the call waits no more."""

    def told(self, answer: "Asked") -> None:
        """The link has heard something. Safe from any thread."""
        self.approval_id = answer.approval_id or self.approval_id
        if self.settles(answer.status):
            self.answer = answer
            self.run.hold.nudge()
        elif answer.status == "open" and answer.left_s:
            ends = self.run.world.monotonic_ns() + round((answer.left_s + GRACE_S) * 1e9)
            self._ends_ns = max(ends, self._ends_ns) if self._ends_ns < ends else ends

    def settles(self, status: str) -> bool:
        return status not in ("open", "unknown")

    def wait(self) -> None:
        """Returns when the run may go on and there is an answer, or none in time (`answer` None).
        Raises Halted."""
        with self:
            self.run.hold.wait_until(self._over, self._ends_s)
        self._go_on(wait=True)

    async def wait_async(self) -> None:
        """As `wait`, and the loop goes on meanwhile."""
        with self:
            await self.run.hold.wait_until_async(self._over, self._ends_s)
        while True:
            if self.run.hold.taut:
                await self.run.hold.wait_async()
            try:
                self._go_on(wait=False)
                return
            except Held:
                continue

    def _go_on(self, wait: bool) -> None:
        """The call is on its way again; what is no call only waits while the run is held."""
        call_id, kind, name = self._call
        if call_id:
            self.run.enter(call_id, kind, name, wait)
        elif self.run.hold.taut and wait:
            self.run.hold.wait()
        elif self.run.hold.taut:
            raise Held

    def _over(self) -> bool:
        return self.done

    def _ends_s(self) -> float:
        return max(0.0, (self._ends_ns - self.run.world.monotonic_ns()) / 1e9)

    def __enter__(self) -> "Question":
        run = self.run
        if self._call[0]:
            run.leave(self._call[0])
        run.hold.asking(1)
        run.record(events.Status, status="waiting_human", reason=self.why)
        run.client.changed(run)
        run.client.ask(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.run.client.unask(self)
        self.run.hold.asking(-1)
        if not self.run.hold.waits_for_human and not self.run.hold.taut:
            self.run.record(events.Status, status="running", reason="answered")
        self.run.client.changed(self.run)


class Asking(Question):
    """May this action be made? Records what was asked and what was answered."""

    def __init__(self, run: Run, action: Action, verdict: Verdict, words: str = "") -> None:
        pact = run.seat.pact
        super().__init__(run, pact.approval_s, action.call_id, action.kind, action.name)
        self._action, self._verdict, self._words = action, verdict, words
        self._recorded = False
        self.rule = verdict.rule or verdict.guard
        self.pact = (verdict.pact or pact.pact, verdict.pact_version or pact.version)
        self.digest = self.digest_with(action.arguments)

    def digest_with(self, arguments: Any) -> str:
        """Of the action, had it these arguments."""
        action = self._action
        return digest_of(
            self.run.info.agent, action.kind, action.name, values.plain(arguments), *self.pact
        )

    def objection(self) -> str:
        """Why nobody can be asked this, "" when somebody can."""
        if not is_whole(values.plain(self._action.arguments)):
            return "its arguments are too large to be shown to anybody"
        return ""

    def message(self, left: bool = False) -> "Ask":
        from checkrein.bus.approvals import Ask

        action, verdict, run = self._action, self._verdict, self.run
        rule = (run.seat.pact.tools or {}).get(action.name)
        kind = action.declared_kind or (rule.kind if rule is not None else None)
        return Ask(
            claim=self.claim, run_id=run.run_id, task_id=run.task_id, agent=run.info.agent,
            kind=action.kind, tool=action.name, digest=self.digest,
            arguments=None if left else values.plain(action.arguments), call_id=action.call_id,
            step=run.step, rule=self.rule, reason=verdict.reason,
            words=self._words, inputs={} if left else values.plain(verdict.inputs),
            pact=self.pact[0], pact_version=self.pact[1],
            undo={"kind": kind or "", "undo": rule.undo if rule is not None else ""},
            life_s=run.seat.pact.approval_s, left=left,
        )  # fmt: skip

    def told(self, answer: "Asked") -> None:
        if answer.approval_id and not self._recorded:
            self._recorded = True
            action, verdict = self._action, self._verdict
            self.run.record(
                events.ApprovalRequested, approval_id=answer.approval_id, call_id=action.call_id,
                tool=action.name, arguments=values.plain(action.arguments),
                action_hash=self.digest, rule=self.rule,
                reason=values.clean_text(verdict.reason, 4_000),
                expires_at=self.run.world.now_ns() + round(answer.left_s * 1e9),
            )  # fmt: skip
        super().told(answer)

    def record(self) -> None:
        """The call has heard what was decided."""
        answer = self.answer
        if not self.approval_id:
            return
        status = "expired" if answer is None else _DECISIONS.get(answer.status, "denied")
        self.run.record(
            events.ApprovalDecided, approval_id=self.approval_id, decision=status,
            decided_by="" if answer is None else answer.by,
            reason=values.clean_text("" if answer is None else answer.reason, 4_000),
        )  # fmt: skip

    def refusal(self) -> Verdict | None:
        """The verdict when it is not a yes."""
        answer = self.answer
        if answer is not None and answer.status == "approved":
            return None
        if answer is None:
            why = "nobody answered in time, and no answer is a no"
        else:
            by = f" by {answer.by}" if answer.by else ""
            why = f"{answer.status}{by}: {answer.reason}"
            if answer.status == "nobody":
                why = answer.reason or NOBODY
        verdict = self._verdict
        return _replaced(verdict, f"a human must approve this first: {verdict.reason}; {why}")


class Escalating(Question):
    """Somebody must take note of this action. `hold`: the call waits for it."""

    def __init__(self, run: Run, action: Action, duty: Duty) -> None:
        super().__init__(run, duty.within_s, action.call_id, action.kind, action.name)
        self._action, self._duty = action, duty
        self.claim = run.world.uuid7()
        self.waits = duty.hold
        self.why = f"{action.name}: {duty.when}" if duty.when else action.name

    def message(self, left: bool = False) -> "Raise":
        from checkrein.bus.approvals import Raise

        action, duty, run = self._action, self._duty, self.run
        arguments = values.plain(action.arguments)
        return Raise(
            escalation_id=self.claim, run_id=run.run_id, task_id=run.task_id,
            agent=run.info.agent, to=duty.to, why=self.why, rule=duty.when, tool=action.name,
            arguments=arguments if is_whole(arguments) else None, call_id=action.call_id,
            step=run.step, within_s=duty.within_s, hold=duty.hold,
            waited_s=(run.world.monotonic_ns() - self.began_ns) / 1e9,
        )  # fmt: skip

    def settles(self, status: str) -> bool:
        """Without `hold` it is enough that the clock is known to run."""
        return status != "unknown" and not (status == "open" and self._duty.hold)

    @property
    def done(self) -> bool:
        """One that nobody waits for is told until it is heard, however long that takes."""
        return self.answer is not None or (self._duty.hold and super().done)

    def refusal(self) -> Verdict | None:
        """The verdict when nobody took note in time."""
        answer = self.answer
        if answer is not None and answer.status == "acknowledged":
            return None
        why = "nobody acknowledged it in time"
        if answer is not None and answer.status in ("nobody", "denied"):
            why = answer.reason or NOBODY
        return Verdict(
            kind="deny", guard="escalate", rule="escalate", advice="ESCALATE",
            reason=f"this waits until {self._duty.to or 'somebody'} has taken note; {why}",
        )  # fmt: skip


def escalation_of(run: Run, why: str, to: str) -> Escalating:
    """The agent itself asks for somebody: no clock runs."""
    action = Action(kind="tool", name="")
    question = Escalating(run, action, Duty(when="", to=to, within_s=0.0))
    question.why = why
    return question


class Awaited(Protocol):
    """What a call may have to wait for on its way."""

    def wait(self) -> None: ...
    async def wait_async(self) -> None: ...


Questions = Generator[Awaited, None, T]
"""What must be waited for, one after the other, on the way of a call; and what came of it."""


def drive(questions: Questions[T]) -> T:
    """Waits for each in turn; what waiting raises is thrown in, for the call to clean up."""
    try:
        question = next(questions)
        while True:
            try:
                question.wait()
            except BaseException as error:
                question = questions.throw(error)
            else:
                question = next(questions)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return] # what the generator returns


async def drive_async(questions: Questions[T]) -> T:
    """As `drive`, and the loop goes on meanwhile."""
    try:
        question = next(questions)
        while True:
            try:
                await question.wait_async()
            except BaseException as error:
                question = questions.throw(error)
            else:
                question = next(questions)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return] # as above


def escalate(run: Run, action: Action, verdict: Verdict) -> Questions[Verdict | None]:
    """Raises the duties that an action brings about, each once for an action in a run. Returns the
    refusal of one that had to be waited for."""
    for duty in verdict.duties:
        key = (duty.when, duty.to, digest_of("", action.kind, action.name,
                                              values.plain(action.arguments)))  # fmt: skip
        if not run.raises(key):
            continue
        question = Escalating(run, action, duty)
        run.record(
            events.EscalationRaised, escalation_id=question.claim, to=duty.to,
            why=values.clean_text(question.why, 4_000),
            due_at=run.world.now_ns() + round(duty.within_s * 1e9),
        )  # fmt: skip
        if not duty.hold:
            run.client.ask(question)
            continue
        yield question
        refusal = question.refusal()
        if refusal is not None:
            return refusal
    return None


def ask(
    run: Run, action: Action, verdict: Verdict, words: str = ""
) -> Questions["Asking | Verdict"]:
    """Asks somebody whether this action may be made: the answered question, or the refusal."""
    question = Asking(run, action, verdict, words)
    objection = question.objection()
    if objection:
        return _replaced(verdict, f"a human must approve this first, but {objection}")
    yield question
    question.record()
    refusal = question.refusal()
    return question if refusal is None else refusal


def approve(
    run: Run, action: Action, verdict: Verdict, again: Callable[[Action, int], Verdict]
) -> Questions[Verdict | None]:
    """`ask` for what has no arguments that could be changed: a model call, a step. Judges it once
    more (`again`) when it is a yes; returns the refusal, if it is one."""
    answer = yield from ask(run, action, verdict)
    if isinstance(answer, Verdict):
        run.decided(action, answer)
        return answer
    if answer.answer is not None:
        raise_budgets(run, answer.answer.raised, verdict.rule)
    granted = again(action, run.world.monotonic_ns())
    if granted.kind == "deny":
        run.decided(action, granted)
        return granted
    return None


def raise_budgets(run: Run, raised: dict[str, float], rule: str) -> None:
    """Somebody has raised budgets: it is recorded. Of the run's own ones its guard counts by it;
    what several runs share stands in the ledger, where control has raised it."""
    if not raised:
        return
    for name, amount in raised.items():
        if not is_shared(rule):
            run.seat.raised(_GUARDS_NAMES.get(name, name), amount)
    run.record(
        events.Status, status="running", reason="a budget was raised", detail={"raised": raised}
    )


def _replaced(verdict: Verdict, reason: str) -> Verdict:
    return Verdict(
        kind="deny", guard=verdict.guard or "approvals", rule=verdict.rule, reason=reason,
        advice="ESCALATE", pact=verdict.pact, pact_version=verdict.pact_version,
        runaway=verdict.runaway,
    )  # fmt: skip
