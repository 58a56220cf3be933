"""One execution of an agent towards one goal, as the agent's own process holds it."""

import asyncio
import contextlib
import dataclasses
import threading
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

from checkrein.events import types as events
from checkrein.policy import types as policy
from checkrein.policy.types import Action, Pact, Verdict
from checkrein.sdk import quiet, values
from checkrein.sdk.allowance import Allowance
from checkrein.sdk.asking import Questions, escalation_of
from checkrein.sdk.errors import Halted
from checkrein.sdk.guard import Seat
from checkrein.sdk.hearing import Ear
from checkrein.sdk.hold import Held, Hold
from checkrein.sdk.host import Host
from checkrein.sdk.place import Place
from checkrein.sdk.redacting import redact_of
from checkrein.sdk.rein import Answer, Ordered
from checkrein.sdk.reporting import decision_of, iteration_of, pact_news_of
from checkrein.sdk.runaway import Runaway
from checkrein.sdk.standing import status_of
from checkrein.sdk.step import Step, Steps, Tally
from checkrein.sdk.step_verdict import settle_step
from checkrein.sdk.types import RunInfo

RUN: ContextVar["Run | None"] = ContextVar("checkrein_run", default=None)
"""The innermost run around this code."""


_RAISED_MAX = 1_000


class Run:
    """A live run. Methods that record never raise; `steps` raises Halted and Denied.

    Use it as a context manager, sync or async. Leaving it records `run.end`: `completed`, `halted`
    when it was halted, `failed` with the reason when an exception passes through.
    """

    def __init__(self, client: Host, info: RunInfo, seat: Seat) -> None:
        self.client = client
        self.world = client.world
        self.info = info
        self.run_id = info.run_id
        self.task_id = info.task_id
        self.goal = values.clean_text(info.goal)
        self.seat = seat
        self.ear = Ear(seat)
        self.hold = Hold(info.run_id, client.world, seat.paused)
        self.place = client.place(info)
        self.redact()
        self._tell_place()
        self.step = 0
        self.ended = False
        self.ended_status = ""
        self.ended_reason = ""
        self.escalated = False
        self.tally = Tally(self.goal)
        self.allowance = Allowance(
            client.purses,
            self._stands(),
            lambda provider, model, inputs, outputs: client.price(
                provider, model, (inputs, outputs, 0, 0)
            ),
            client.world,
        )
        self.in_flight: dict[str, tuple[str, str, int]] = {}
        self.started_at = client.world.now_ns()
        self.started_ns = self.last_ns = client.world.monotonic_ns()
        self.inherited = False
        """True in a forked child: the run is the parent process's, which ends and reports it."""
        self._explicit = False
        self._begun = False
        self._raised: set[tuple[str, str, str]] = set()
        self._runaway = Runaway(client.world)
        self._lock = threading.Lock()
        self._token: Token[Run | None] | None = None
        self._before: Run | None = None

    # -- what the agent's author uses ---------------------------------------------------------

    def steps(self) -> Steps:
        """The run's steps, each a boundary: held while paused, Halted when halted, Denied when a
        budget is spent. `for` and `async for`. The author ends it with `break` or `return`."""
        self._explicit = True
        return Steps(self)

    def escalate_to_human(self, why: str, to: str = "") -> None:
        """Records that the agent asks for a human; the run's outcome becomes `escalated`."""
        self.escalated = True
        question = escalation_of(self, values.clean_text(why), to)
        self.record(events.EscalationRaised, escalation_id=question.claim, why=question.why, to=to)
        self.client.ask(question)

    def name(self, goal: str) -> None:
        """Gives a run that has no goal one: whoever began it did not know it."""
        self.goal = values.clean_text(goal, 4_000)
        self._tell_place()
        self.record(events.Status, status="running", reason="named", goal=self.goal)

    def forked(self) -> None:
        """In a forked child: no lock may be one that another thread of the parent held."""
        self.inherited = True
        self._lock = threading.Lock()
        self.hold.forked()
        self.seat.forked()
        self.tally.forked()
        self.in_flight = {}

    def __enter__(self) -> "Run":
        if not self._begun:
            self._begun = True
            self.client.run_began(self)
        self._before = RUN.get()
        self._token = RUN.set(self)
        with contextlib.suppress(RuntimeError):  # no loop in this thread: nothing to cancel
            loop = asyncio.get_running_loop()
            task = asyncio.current_task()
            if task is not None:
                self.hold.bind(loop, task)
        if self.hold.halted:
            self._leave_context()
            self.hold.check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave_context()
        cancelled = self.hold.unbind()
        if self.hold.halted:
            self.end("halted", self.hold.rein.reason)
            if cancelled and isinstance(error, asyncio.CancelledError):
                task = asyncio.current_task()
                if task is not None:
                    task.uncancel()
                raise Halted(
                    self.hold.rein.reason, self.run_id, self.hold.rein.issued_by
                ) from error
            if error is None or not isinstance(error, Halted):
                self.hold.check()
            return
        if error is None or isinstance(error, GeneratorExit):
            self.end("escalated" if self.escalated else "completed")
        else:
            self.end("failed", f"{type(error).__name__}: {values.clean_text(error, 2_000)}")

    async def __aenter__(self) -> "Run":
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    # -- the boundary -------------------------------------------------------------------------

    def enter(self, call_id: str, kind: str, name: str, wait: bool = True) -> None:
        """Puts a call among those in flight, once the run may go on. Raises Halted; Held instead of
        waiting when `wait` is False."""
        hold = self.hold
        while True:
            if hold.taut:
                if not wait:
                    hold.check()
                    raise Held
                hold.wait()
            now_ns = self.world.monotonic_ns()
            self.in_flight[call_id] = (kind, name, now_ns)
            if not hold.taut:
                self.last_ns = now_ns
                break
            self.leave(call_id)
        if self._runaway.told:
            self._backstop(call_id)

    def leave(self, call_id: str) -> None:
        self.in_flight.pop(call_id, None)
        if self.hold.taut and not self.in_flight:
            self.client.settled(self)

    def next_call_id(self) -> str:
        return self.client.next_call_id()

    def begin_step(self, call_id: str = "") -> Questions[Step]:
        """Ends the open step and begins the next, in the model call `call_id` if it has none of its
        own. Raises Denied when a budget refuses it, and nobody who is asked raises it."""
        self.end_step()
        verdict = self.seat.step(self.world.monotonic_ns())
        if verdict.kind not in ("allow", "modify"):
            yield from settle_step(self, verdict, call_id)
        self._redirect()
        self.step += 1
        step = Step(self.step, self.world.monotonic_ns())
        self.tally.open(step)
        self.record(
            events.StepStart, context_hash=self.tally.context_hash,
            input_tokens=self.tally.input_tokens_last,
        )  # fmt: skip
        return step

    def end_step(self) -> None:
        """Ends the open step, if there is one, with its iteration record."""
        step = self.tally.close()
        if step is None:
            return
        duration_ns = self.world.monotonic_ns() - step.started_ns
        self.record(
            events.StepEnd, context_hash=self.tally.context_hash,
            input_tokens=step.input_tokens, output_tokens=step.output_tokens,
            duration_ns=duration_ns,
        )  # fmt: skip
        self.record(events.Iteration, **iteration_of(step, self.goal, duration_ns))

    def model_step(self, context_hash: str, call_id: str) -> Questions[None]:
        """A model call is about to be made: a step of its own, unless the author counts steps."""
        self.tally.saw(context_hash)
        if not self._explicit:
            yield from self.begin_step(call_id)

    # -- what calls tell ----------------------------------------------------------------------

    def record(self, kind: type[events.Base], /, **fields: Any) -> None:
        """Appends an event of this run. Never raises an Exception."""
        try:
            self.client.recorder.record(kind, self.place, self.step, **fields)
        except Exception as error:
            quiet.fault("recording", error)

    def decided(self, action: Action, verdict: Verdict) -> None:
        """Records a verdict other than allow; an allowed call is its `tool.invoked`. What a pact
        that is only watched says beside it is recorded as its own."""
        if verdict.beside is not None:
            self.decided(action, verdict.beside)
            if verdict.kind == "allow":
                return
        self.record(events.ScopeDecision, **decision_of(action, verdict, self.seat.pact))

    def adopt(self, pact: Pact, shadow: Pact | None, revision: int) -> bool:
        """Other pacts, from the next decision on; False, and the old ones stay, when that fails."""
        adopted = self.seat.adopt(pact, shadow, revision)
        if adopted:
            self.redact()
            self._tell_place()
        return adopted

    def say_pact(self, rule: str, why: str, pact: Pact) -> None:
        """Records what became of a pact that was put in force while this run goes on."""
        self.record(events.ScopeDecision, **pact_news_of(rule, why, pact))

    def raises(self, duty: tuple[str, str, str]) -> bool:
        """True once for each duty and action: it is raised once, however often it is tried."""
        with self._lock:
            if duty in self._raised or len(self._raised) >= _RAISED_MAX:
                return False
            self._raised.add(duty)
            return True

    def refused(self, verdict: Verdict) -> None:
        """After a refusal. A runaway one halts the run: by the server's rule, which sees the
        recorded decision, or by this process when there is no server to do it."""
        if not verdict.runaway or self.hold.halted:
            return
        if self.client.connected:
            self._runaway.tell(verdict.reason)
        else:
            self.halt(f"runaway: {verdict.reason}", f"rule:{verdict.guard or 'guard'}")

    def _backstop(self, call_id: str) -> None:
        if self._runaway.overdue:
            self.leave(call_id)
            self.halt(f"runaway: {self._runaway.reason}", "rule:guard")
            self.hold.check()

    def advise(self, text: str) -> None:
        """A directive for the next model call."""
        self.hold.rein.add_directive(values.clean_text(text, 4_000))

    def take_directives(self) -> tuple[str, ...]:
        rein = self.hold.rein
        return rein.take_directives() if rein.directives else ()

    def price(self, provider: str, model: str, usage: tuple[int, int, int, int]) -> float | None:
        return self.client.price(provider, model, usage)

    # -- orders -------------------------------------------------------------------------------

    def obey(self, order: Ordered) -> Answer:
        """Takes an order that is known to be genuine, at once and from any thread."""
        before = self.hold.rein.state
        answer = self.hold.obey(order, self.step)
        if answer.taken == "taken":
            self._changed(before, order.reason, order.verb)
        return answer

    def contact(self, *, lost: bool) -> None:
        """Holds the run while contact is lost; returns at once."""
        if self.hold.rein.lost_contact != lost:
            reason = "contact is lost" if lost else "contact is back"
            self.hold.contact(lost)
            if self.hold.rein.state == "running":
                self.record(events.Status, status="paused" if lost else "running", reason=reason)

    def halt(self, reason: str, issued_by: str) -> None:
        """Halts by a rule of this process."""
        before = self.hold.rein.state
        if self.hold.halt(reason, issued_by):
            self._changed(before, reason, "halt")

    def _changed(self, before: str, reason: str, verb: str) -> None:
        state = self.hold.rein.state
        if state != before:
            status = "escalated" if verb == "escalate" else state
            self.record(events.Status, status=status, reason=values.clean_text(reason, 2_000))
            by = self.hold.rein.issued_by or "an order"
            quiet.LOG.warning("checkrein: run %s is %s by %s: %s", self.run_id, status, by, reason)
        if state == "halted":
            self.client.halt_children(self, reason)
        self.client.changed(self)

    def _redirect(self) -> None:
        rein = self.hold.rein
        if rein.new_goal:
            self.goal, rein.new_goal = values.clean_text(rein.new_goal, 4_000), ""
            self._tell_place()
            self.record(events.Status, status="running", reason="redirected", goal=self.goal)

    def redact(self) -> None:
        """Records from now on what the pact's `redact` leaves; told again when the pact changes."""
        if not isinstance(self.place, Place):
            return
        redact = redact_of(self.seat.pact.redact)
        if redact is not self.place.redact:
            self.place = dataclasses.replace(self.place, redact=redact)

    def _tell_place(self) -> None:
        self.seat.placed(self._stands())

    def _stands(self) -> policy.Place:
        info = self.info
        environment = str(getattr(self.place, "environment", ""))
        return policy.Place(
            agent=info.agent, room=info.room, environment=environment, run_id=self.run_id,
            task_id=self.task_id, task_type=info.task_type, goal=self.goal,
        )  # fmt: skip

    @property
    def status(self) -> str:
        """As `ps` shows it."""
        return self.ended_status if self.ended else status_of(self.hold, self.in_flight)

    def calls_in_flight(self) -> list[dict[str, Any]]:
        return [
            {"call_id": call_id, "kind": kind, "name": name, "since_ns": since_ns}
            for call_id, (kind, name, since_ns) in list(self.in_flight.items())[:100]
        ]

    # -- the end ------------------------------------------------------------------------------

    def end(self, status: str, reason: str = "") -> None:
        """Ends the run once; later calls change nothing."""
        with self._lock:
            if self.ended:
                return
            self.ended, self.ended_status, self.ended_reason = True, status, reason
        if not self.inherited:
            self.end_step()
            self.record(
                events.RunEnd, status=status, reason=values.clean_text(reason, 4_000),
                steps=self.step, tokens=self.tally.tokens, usd=self.tally.usd or 0.0,
                duration_ns=self.world.monotonic_ns() - self.started_ns,
            )  # fmt: skip
        self.client.run_ended(self)

    def _leave_context(self) -> None:
        if self._token is None:
            return
        try:
            RUN.reset(self._token)
        except ValueError:  # left in another context than it was entered in
            RUN.set(self._before)
        self._token = None
