"""One tool call, from the choice to its result's return into the agent's context."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Literal, NoReturn

from msgspec.structs import replace

from checkrein.events.types import (
    ToolArguments,
    ToolInvoked,
    ToolParsed,
    ToolReentered,
    ToolReturned,
    ToolSelected,
)
from checkrein.policy.types import Action, ToolKind, Verdict
from checkrein.sdk import context, quiet, values
from checkrein.sdk.asking import (
    Asking,
    Questions,
    ask,
    drive,
    drive_async,
    escalate,
    raise_budgets,
)
from checkrein.sdk.boundary import begun, denial, enter, goes_on, said, unrecorded
from checkrein.sdk.declared import KINDS
from checkrein.sdk.errors import Denied, Halted
from checkrein.sdk.hold import Held
from checkrein.sdk.purse import Lacking, Paying
from checkrein.sdk.run import Run

Status = Literal["ok", "error", "denied", "cancelled"]

ESCALATIONS = "escalate["
"""How the rules begin that ask for no approval, but for somebody to take note."""
CHANGED = Verdict(
    kind="deny", guard="approvals", rule="approvals.digest", advice="ESCALATE",
    reason="the arguments were changed after they were shown for approval",
)  # fmt: skip

_OPEN: ContextVar["ToolCall | None"] = ContextVar("checkrein_open_tool", default=None)


def open_tool() -> "ToolCall | None":
    """The tool call that this code runs inside of, as far as the context tells."""
    return _OPEN.get()


class ToolCall:
    """A tool call under way. `arguments` are the ones to call with: a guard may have changed them
    (`changed` is then True). `guidance` is text of a guard for the agent, to go with the result."""

    __slots__ = (
        "_action", "_joined", "_open", "_outer", "_pending", "_run", "_started_ns", "_words",
        "arguments", "call_id", "changed", "guidance", "name",
    )  # fmt: skip

    def __init__(self, run: Run | None, name: str, arguments: Any, call_id: str) -> None:
        self._run = run
        self.name = name
        self.arguments = arguments
        self.call_id = call_id
        self.changed = False
        self.guidance = ""
        self._open = False
        self._joined = False
        self._outer: ToolCall | None = None
        self._action: Action | None = None
        self._pending: Questions[None] | None = None
        self._words = ""
        self._started_ns = 0

    @classmethod
    def begin(
        cls,
        name: str,
        arguments: Any,
        *,
        kind: ToolKind | None = None,
        known_tools: Sequence[str] = (),
        call_id: str = "",
        why: str = "",
        parse_error: str = "",
        own: bool = False,
    ) -> "ToolCall":
        """Records the choice and the arguments, asks the guard, and lets the call begin.

        `call_id` is the model's own id for the call, if it has one. `own` is for decorators: a
        framework's call of the same name that is already open is this very call, and is not
        recorded twice. Raises Halted, Denied.
        """
        return cls._begin(name, arguments, kind, known_tools, call_id, why, parse_error, own, True)

    @classmethod
    async def abegin(
        cls,
        name: str,
        arguments: Any,
        *,
        kind: ToolKind | None = None,
        known_tools: Sequence[str] = (),
        call_id: str = "",
        why: str = "",
        parse_error: str = "",
        own: bool = False,
    ) -> "ToolCall":
        """`begin` for coroutines: held without blocking the loop."""
        call = await begun(
            lambda call_id, paid: cls._begin(
                name, arguments, kind, known_tools, call_id, why, parse_error, own, False, paid
            ),
            call_id,
        )
        if call._pending is not None:
            await call._answered()
        return call

    async def _answered(self) -> None:
        """Waits for whom the guard would have asked. Raises Halted, Denied."""
        pending, self._pending = self._pending, None
        try:
            if pending is not None:
                await drive_async(pending)
        except Exception as error:
            if isinstance(error, Denied):
                raise
            unrecorded(error, self.call_id, self._run, self.name, self._open)
            self._run = None

    @classmethod
    def _begin(
        cls,
        name: str,
        arguments: Any,
        kind: ToolKind | None,
        known_tools: Sequence[str],
        call_id: str,
        why: str,
        parse_error: str,
        own: bool,
        wait: bool,
        paid: Paying | None = None,
    ) -> "ToolCall":
        call = cls(None, name, arguments, call_id)
        try:
            run = context.current()
            outer = _OPEN.get()
            while outer is not None and not outer._open:
                outer = outer._outer
            if own and outer is not None and outer._takes_over(name):
                return call
            call._outer = outer
            call._joined = own
            call.call_id = call_id or run.next_call_id()
            refusal = (
                run.allowance.tool(run.seat.pact, call.call_id, wait)
                if paid is None else paid.refusal
            )  # fmt: skip
            enter(run, call.call_id, "tool", name, wait)
            call._run = run
            call._judge(run, kind, known_tools, why, parse_error, wait, refusal)
        except Exception as error:
            if isinstance(error, Denied | Held | Lacking):
                raise
            unrecorded(error, call.call_id, call._run, name, call._open)
            call._run = None
        return call

    def end(self, result: Any = None) -> None:
        """The tool returned. Never raises."""
        self._finish("ok", result, "")

    def fail(self, error: BaseException) -> None:
        """The tool raised, was cancelled, or its result was not waited for. Never raises."""
        cancelled = isinstance(error, asyncio.CancelledError | GeneratorExit | Halted)
        self._finish("cancelled" if cancelled else "error", None, said(error))

    def _takes_over(self, name: str) -> bool:
        if self._joined or not self._open or self.name != name:
            return False
        self._joined = True
        return True

    def _judge(
        self,
        run: Run,
        kind: ToolKind | None,
        known_tools: Sequence[str],
        why: str,
        parse_error: str,
        wait: bool,
        refusal: Verdict | None,
    ) -> None:
        # The way of every call: fields that are empty are not given, and no layer stands between
        # this and the recorder, which never raises.
        call_id, name, place, step = self.call_id, self.name, run.place, run.step
        record = run.client.recorder.record
        plain = values.plain(self.arguments)
        if why:
            record(ToolSelected, place, step, call_id=call_id, tool=name, why=why)
        else:
            record(ToolSelected, place, step, call_id=call_id, tool=name)
        if parse_error:
            record(
                ToolArguments, place, step, call_id=call_id, tool=name, arguments=plain,
                parse_error=parse_error,
            )  # fmt: skip
        else:
            record(ToolArguments, place, step, call_id=call_id, tool=name, arguments=plain)
        if kind is None:
            kind = KINDS.get(name)
        self._action = action = Action(
            kind="tool", name=name, arguments=plain, call_id=call_id, declared_kind=kind,
            known_tools=tuple(known_tools) if known_tools else (),
        )  # fmt: skip
        self._started_ns = now_ns = run.world.monotonic_ns()
        if refusal is None:
            verdict = run.seat.judge(action, now_ns)
        elif goes_on(verdict := run.seat.would(action, now_ns)):
            verdict = refusal  # what is forbidden is refused as such
        if verdict.kind != "allow" or verdict.duties or verdict.beside is not None:
            self._words = why
            pending = self._settle(run, action, verdict)
            if wait:
                drive(pending)
            else:
                self._pending = pending
            return
        record(ToolInvoked, place, step, call_id=call_id, tool=name, kind=kind or "")
        self._open = True
        _OPEN.set(self)
        run.tally.acted(name)

    def _settle(self, run: Run, action: Action, verdict: Verdict) -> Questions[None]:
        """A verdict other than a plain allow: recorded, then carried out; what must be waited for
        is given out. Then the call begins. Raises Denied."""
        try:
            yield from self._heed(run, action, verdict)
        except Denied:
            raise
        except BaseException as error:  # halted or cancelled while it waited
            run.record(
                ToolReturned, call_id=self.call_id, tool=self.name, status="cancelled",
                error=said(error),
            )  # fmt: skip
            run.allowance.not_made(self.call_id)
            run.leave(self.call_id)
            raise
        run.record(
            ToolInvoked, call_id=self.call_id, tool=self.name, kind=action.declared_kind or ""
        )
        self._started_ns = run.world.monotonic_ns()
        self._open = True
        _OPEN.set(self)
        run.tally.acted(self.name)

    def _heed(self, run: Run, action: Action, verdict: Verdict) -> Questions[None]:
        run.decided(action, verdict)
        refusal = yield from escalate(run, action, verdict)
        if refusal is not None:
            self._refuse(run, action, refusal)
        if verdict.kind == "deny":
            self._refuse(run, None, verdict)
        elif verdict.kind != "ask":
            self._take(run, verdict)
        elif verdict.rule.startswith(ESCALATIONS):  # somebody has taken note by now
            self._go_on(run, action, self.arguments)
        else:
            run.allowance.not_made(self.call_id)  # while people think, others may spend it
            answer = yield from ask(run, action, verdict, self._words)
            if isinstance(answer, Verdict):
                self._refuse(run, action, answer)
            paying = run.allowance.tool_again(run.seat.pact, self.call_id)
            if paying is not None:
                yield paying
                if paying.refusal is not None:
                    self._refuse(run, action, paying.refusal)
            self._approved(run, action, answer, verdict.rule)

    def _approved(self, run: Run, action: Action, question: Asking, rule: str) -> None:
        """Goes on with exactly what was approved. Raises Denied."""
        answer = question.answer
        if answer is None:
            raise ValueError("an approval without an answer")
        if question.digest_with(self.arguments) != question.digest:
            self._refuse(run, action, CHANGED)
        raise_budgets(run, answer.raised, rule)
        if answer.edited:
            self.arguments, self.changed = answer.arguments, True
            run.decided(action, _edited(answer.arguments, answer.by, question))
        self._go_on(run, action, self.arguments)

    def _go_on(self, run: Run, action: Action, arguments: Any) -> None:
        """Somebody has said yes to these arguments: what is forbidden stays forbidden."""
        self._action = action = replace(action, arguments=values.plain(arguments))
        verdict = run.seat.granted(action, run.world.monotonic_ns())
        if verdict.kind == "deny":
            self._refuse(run, action, verdict)
        if verdict.kind != "allow":
            run.decided(action, verdict)
        self._take(run, verdict)

    def _take(self, run: Run, verdict: Verdict) -> None:
        if verdict.kind == "modify":
            self.arguments = verdict.arguments
            self.changed = True
        guidance = verdict.guidance
        if verdict.kind == "steer":
            guidance = guidance or verdict.reason
        if guidance and verdict.kind in ("steer", "modify"):
            self.guidance = guidance
            run.advise(guidance)

    def _refuse(self, run: Run, undecided: Action | None, verdict: Verdict) -> NoReturn:
        """Tells of the refusal, and records it as the decision on an action that has none yet."""
        if undecided is not None:
            run.decided(undecided, verdict)
        error = denial(verdict, self.name)
        run.record(
            ToolReturned, call_id=self.call_id, tool=self.name, status="denied", error=str(error)
        )
        run.allowance.not_made(self.call_id)
        run.leave(self.call_id)
        run.refused(verdict)
        raise error

    def _finish(self, status: Status, result: Any, error: str) -> None:
        run = self._run
        if run is None or not self._open or self._action is None:
            return
        self._open = False
        try:
            now_ns = run.world.monotonic_ns()
            call_id, name, place, step = self.call_id, self.name, run.place, run.step
            record = run.client.recorder.record
            plain, field, raw = values.packed(result)
            duration_ns = now_ns - self._started_ns
            if status == "ok":
                digest = values.hash_of(raw)
                record(
                    ToolReturned, place, step, call_id=call_id, tool=name, result=field,
                    duration_ns=duration_ns,
                )  # fmt: skip
                run.seat.returned(self._action, plain, "", now_ns)
                run.tally.saw(digest)
                record(ToolParsed, place, step, call_id=call_id, tool=name, result_hash=digest)
            else:
                record(
                    ToolReturned, place, step, call_id=call_id, tool=name, status=status,
                    error=error, duration_ns=duration_ns,
                )  # fmt: skip
                run.seat.returned(self._action, plain, error, now_ns)
                record(ToolParsed, place, step, call_id=call_id, tool=name, error=error)
            run.allowance.tool_done(call_id)
            run.leave(call_id)
            run.tally.tool_ended(status, error)
            chars = len(result) if type(result) is str else len(raw)
            record(ToolReentered, place, step, call_id=call_id, tool=name, chars=chars)
            if _OPEN.get() is self:
                _OPEN.set(self._outer)
            self._outer = None
        except Exception as fault:
            run.leave(self.call_id)
            quiet.fault("tool call", fault)


def _edited(arguments: Any, by: str, question: Asking) -> Verdict:
    """What is recorded of arguments that whoever approved has changed."""
    pact, version = question.pact
    return Verdict(
        kind="modify", guard="approvals", rule=question.rule, arguments=arguments,
        reason=f"approved with other arguments by {by or 'somebody'}", pact=pact,
        pact_version=version,
    )  # fmt: skip
