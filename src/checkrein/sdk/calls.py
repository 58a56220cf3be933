"""One tool call, one model call: what the decorators and the frameworks' instruments are built of.

A call that is begun is ended exactly once, by `end` or `fail`; a second end is passed over.

    call = ToolCall.begin("refund", {"order": "A1"}, known_tools=("refund", "search"))
    try:
        result = refund(**call.arguments)
    except BaseException as error:
        call.fail(error)
        raise
    call.end(result)

`begin` holds while the run is paused, raises Halted when it is halted, and Denied when a guard
refuses; `abegin` is the same for coroutines and does not block their loop. Nothing else is raised:
a fault of ours is logged once and the call goes on unrecorded.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Literal

from checkrein.events import types as events
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
from checkrein.sdk.errors import Denied, Halted
from checkrein.sdk.hold import Hold
from checkrein.sdk.run import Held, Run

Status = Literal["ok", "error", "denied", "cancelled"]

_OPEN: ContextVar["ToolCall | None"] = ContextVar("checkrein_open_tool", default=None)
_KINDS: dict[str, ToolKind] = {}
MODEL_ADVICE_MARK = "[checkrein]"


def declare(name: str, kind: ToolKind | None) -> None:
    """What a decorator declared of a tool, for calls of it that come through a framework."""
    if kind is not None:
        _KINDS[name] = kind


def open_tool() -> "ToolCall | None":
    """The tool call that this code runs inside of, as far as the context tells."""
    return _OPEN.get()


class ToolCall:
    """A tool call under way. `arguments` are the ones to call with: a guard may have changed them
    (`changed` is then True). `guidance` is text of a guard for the agent, to go with the result."""

    __slots__ = (
        "_action", "_joined", "_open", "_outer", "_run", "_started_ns",
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
        while True:
            hold = _hold()
            if hold is not None and hold.taut:
                await hold.wait_async()
            with contextlib.suppress(Held):  # paused in between: wait again
                return cls._begin(
                    name, arguments, kind, known_tools, call_id, why, parse_error, own, False
                )

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
            run.enter(call.call_id, "tool", name, wait)
            call._run = run
            call._judge(run, kind, known_tools, why, parse_error)
        except Exception as error:
            if isinstance(error, Denied | Held):
                raise
            _unrecorded(error, call.call_id, call._run, name, call._open)
            call._run = None
        return call

    def end(self, result: Any = None) -> None:
        """The tool returned. Never raises."""
        self._finish("ok", result, "")

    def fail(self, error: BaseException) -> None:
        """The tool raised, was cancelled, or its result was not waited for. Never raises."""
        cancelled = isinstance(error, asyncio.CancelledError | GeneratorExit | Halted)
        self._finish("cancelled" if cancelled else "error", None, _said(error))

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
            kind = _KINDS.get(name)
        self._action = action = Action(
            kind="tool", name=name, arguments=plain, call_id=call_id, declared_kind=kind,
            known_tools=tuple(known_tools) if known_tools else (),
        )  # fmt: skip
        self._started_ns = now_ns = run.world.monotonic_ns()
        verdict = run.seat.judge(action, now_ns)
        if verdict.kind != "allow":
            self._settle(run, action, verdict)
        record(ToolInvoked, place, step, call_id=call_id, tool=name, kind=kind or "")
        self._open = True
        _OPEN.set(self)
        run.acted(name)

    def _settle(self, run: Run, action: Action, verdict: Verdict) -> None:
        """A verdict other than allow: recorded, then carried out. Raises Denied."""
        run.decided(action, verdict)
        match verdict.kind:
            case "steer":
                self.guidance = verdict.guidance or verdict.reason
                run.advise(self.guidance)
            case "modify":
                self.arguments = verdict.arguments
                self.changed = True
            case _:
                error = denial(verdict, self.name)
                run.record(
                    ToolReturned, call_id=self.call_id, tool=self.name, status="denied",
                    error=str(error),
                )  # fmt: skip
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
                run.saw(digest)
                record(ToolParsed, place, step, call_id=call_id, tool=name, result_hash=digest)
            else:
                record(
                    ToolReturned, place, step, call_id=call_id, tool=name, status=status,
                    error=error, duration_ns=duration_ns,
                )  # fmt: skip
                run.seat.returned(self._action, plain, error, now_ns)
                record(ToolParsed, place, step, call_id=call_id, tool=name, error=error)
            run.leave(call_id)
            run.tool_ended(status, error)
            chars = len(result) if type(result) is str else len(raw)
            record(ToolReentered, place, step, call_id=call_id, tool=name, chars=chars)
            if _OPEN.get() is self:
                _OPEN.set(self._outer)
            self._outer = None
        except Exception as fault:
            run.leave(self.call_id)
            quiet.fault("tool call", fault)


class ModelCall:
    """A model call under way. `directives` must be put before the model, visibly marked: see
    `marked`."""

    __slots__ = (
        "_first_token_ns", "_open", "_run", "_started_ns", "call_id", "directives", "model",
        "provider",
    )  # fmt: skip

    def __init__(self, run: Run | None, provider: str, model: str, call_id: str) -> None:
        self._run = run
        self.provider = provider
        self.model = model
        self.call_id = call_id
        self.directives: tuple[str, ...] = ()
        self._open = False
        self._started_ns = 0
        self._first_token_ns = 0

    @classmethod
    def begin(
        cls,
        provider: str,
        model: str,
        messages: Any = None,
        parameters: Mapping[str, Any] | None = None,
        tools: Sequence[str] = (),
        stream: bool = False,
    ) -> "ModelCall":
        """Asks the guard, then records the request. Where the code does not go through
        `run.steps()`, a model call begins a new step. Raises Halted, Denied."""
        return cls._begin(provider, model, messages, parameters, tools, stream, True)

    @classmethod
    async def abegin(
        cls,
        provider: str,
        model: str,
        messages: Any = None,
        parameters: Mapping[str, Any] | None = None,
        tools: Sequence[str] = (),
        stream: bool = False,
    ) -> "ModelCall":
        """`begin` for coroutines: held without blocking the loop."""
        while True:
            hold = _hold()
            if hold is not None and hold.taut:
                await hold.wait_async()
            with contextlib.suppress(Held):  # paused in between: wait again
                return cls._begin(provider, model, messages, parameters, tools, stream, False)

    @classmethod
    def _begin(
        cls,
        provider: str,
        model: str,
        messages: Any,
        parameters: Mapping[str, Any] | None,
        tools: Sequence[str],
        stream: bool,
        wait: bool,
    ) -> "ModelCall":
        call = cls(None, provider, model, "")
        try:
            run = context.current()
            call.call_id = run.next_call_id()
            run.enter(call.call_id, "model", model, wait)
            call._run = run
            call._judge(run, messages, parameters or {}, tools, stream)
        except Exception as error:
            if isinstance(error, Denied | Held):
                raise
            _unrecorded(error, call.call_id, call._run, model or "model call", call._open)
            call._run = None
        return call

    def first_token(self) -> None:
        """The first token of a stream came; later calls change nothing."""
        if self._run is not None and not self._first_token_ns:
            self._first_token_ns = self._run.world.monotonic_ns() - self._started_ns

    def end(
        self,
        content: str = "",
        tool_calls: Sequence[Mapping[str, Any]] = (),
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_tokens: int = 0,
        reasoning_tokens: int = 0,
        finish_reason: str = "",
        model: str = "",
        fingerprint: str = "",
        reasoning: str = "",
    ) -> None:
        """The answer is whole. `model` is the one that answered, if it says so. Never raises."""
        self._finish(
            content=values.clean_text(content),
            tool_calls=values.plain(list(tool_calls)),
            finish_reason=values.clean_text(finish_reason, 200),
            model=values.clean_text(model, 200) or self.model,
            fingerprint=values.clean_text(fingerprint, 200),
            usage=(_count(input_tokens), _count(output_tokens), _count(cached_tokens),
                   _count(reasoning_tokens)),
            error="",
            reasoning=reasoning,
        )  # fmt: skip

    def fail(self, error: BaseException) -> None:
        """The call failed or was cancelled. Never raises."""
        self._finish(
            content="", tool_calls=[], finish_reason="", model=self.model, fingerprint="",
            usage=(0, 0, 0, 0), error=_said(error), reasoning="",
        )  # fmt: skip

    def _judge(
        self,
        run: Run,
        messages: Any,
        parameters: Mapping[str, Any],
        tools: Sequence[str],
        stream: bool,
    ) -> None:
        _, field, raw = values.packed(messages)
        digest = values.hash_of(raw)
        try:
            run.model_step(digest)
            action = Action(
                kind="model", name=self.model, call_id=self.call_id, known_tools=tuple(tools)
            )
            verdict = run.seat.judge(action, run.world.monotonic_ns())
            if verdict.kind != "allow":
                self._settle(run, action, verdict)
        except Denied:
            run.leave(self.call_id)
            raise
        self.directives = run.take_directives()
        self._started_ns = run.world.monotonic_ns()
        run.record(
            events.ModelRequest, call_id=self.call_id, provider=self.provider, model=self.model,
            messages=field, parameters=values.plain(dict(parameters)),
            tools=[str(tool) for tool in tools], input_chars=len(raw), stream=stream,
        )  # fmt: skip
        self._open = True
        run.model_began(self.model)

    def _settle(self, run: Run, action: Action, verdict: Verdict) -> None:
        run.decided(action, verdict)
        if verdict.kind == "steer":
            run.advise(verdict.guidance or verdict.reason)
        elif verdict.kind != "modify":
            run.refused(verdict)
            raise denial(verdict, self.model or "model call")

    def _finish(
        self,
        *,
        content: str,
        tool_calls: Any,
        finish_reason: str,
        model: str,
        fingerprint: str,
        usage: tuple[int, int, int, int],
        error: str,
        reasoning: str,
    ) -> None:
        run = self._run
        if run is None or not self._open:
            return
        self._open = False
        try:
            now_ns = run.world.monotonic_ns()
            usd = run.price(self.provider, model, usage) if not error else None
            run.record(
                events.ModelResponse, call_id=self.call_id, provider=self.provider, model=model,
                content=content, tool_calls=tool_calls, finish_reason=finish_reason,
                input_tokens=usage[0], output_tokens=usage[1], cached_tokens=usage[2],
                reasoning_tokens=usage[3], usd=usd, fingerprint=fingerprint, error=error,
                duration_ns=now_ns - self._started_ns, first_token_ns=self._first_token_ns,
            )  # fmt: skip
            if reasoning:
                run.record(events.Reasoning, text=values.clean_text(reasoning), role="model")
            run.seat.model_returned(usage[0], usage[1], usd, now_ns, model)
            run.leave(self.call_id)
            run.model_ended(usage[0], usage[1], usd, error)
        except Exception as fault:
            run.leave(self.call_id)
            quiet.fault("model call", fault)


def marked(directive: str) -> str:
    """A directive as the model is to read it: visibly from an operator, not from the user."""
    return f"{MODEL_ADVICE_MARK} A directive of the operator of this agent: {directive}"


def denial(verdict: Verdict, name: str) -> Denied:
    reason = verdict.reason or f"refused by {verdict.guard or 'a guard'}"
    advice = verdict.advice
    if verdict.kind == "ask":
        reason, advice = f"a human must approve this first: {reason}", advice or "ESCALATE"
    return Denied(reason, action=name, rule=verdict.rule or verdict.guard, advice=advice)


def _hold() -> Hold | None:
    try:
        return context.current().hold
    except Exception as error:
        quiet.fault("finding the run", error)
        return None


def _unrecorded(error: Exception, call_id: str, run: Run | None, name: str, judged: bool) -> None:
    """Beginning a call failed, and the fault is ours. A call that no guard could judge is denied:
    else whoever makes the guard fail would be rid of it. Raises Denied."""
    quiet.fault("beginning a call", error)
    if run is None:
        return
    run.leave(call_id)
    if not judged:
        reason = f"the guard could not be asked: {type(error).__name__}"
        raise Denied(reason, action=name, rule="guard-error", advice="ESCALATE") from error


def _said(error: BaseException) -> str:
    return values.clean_text(f"{type(error).__name__}: {values.clean_text(error, 4_000)}", 4_200)


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0
