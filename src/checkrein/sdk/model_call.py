"""One model call, from the request to the end of its answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from checkrein.events import types as events
from checkrein.policy import estimates
from checkrein.policy.types import Action, Verdict
from checkrein.sdk import context, quiet, values
from checkrein.sdk.allowance import Asked
from checkrein.sdk.asking import Questions, approve, drive, drive_async, escalate
from checkrein.sdk.boundary import begun, denial, enter, goes_on, said, unrecorded
from checkrein.sdk.errors import Denied
from checkrein.sdk.hold import Held
from checkrein.sdk.purse import Lacking, Paying
from checkrein.sdk.run import Run

MODEL_ADVICE_MARK = "[checkrein]"


class ModelCall:
    """A model call under way. `directives` must be put before the model, visibly marked: see
    `marked`."""

    __slots__ = (
        "_asked", "_first_token_ns", "_open", "_pending", "_run", "_started_ns", "call_id",
        "directives", "model", "provider",
    )  # fmt: skip

    def __init__(self, run: Run | None, provider: str, model: str, call_id: str) -> None:
        self._run = run
        self.provider = provider
        self.model = model
        self.call_id = call_id
        self.directives: tuple[str, ...] = ()
        self._open = False
        self._asked: Asked | None = None
        self._pending: Questions[None] | None = None
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
        call_id: str = "",
    ) -> "ModelCall":
        """`begin` for coroutines: held without blocking the loop. `call_id`: one that the call has
        already."""
        call = await begun(
            lambda call_id, paid: cls._begin(
                provider, model, messages, parameters, tools, stream, False, call_id, paid
            ),
            call_id,
        )
        await call._answered()
        return call

    async def _answered(self) -> None:
        """Waits for whom the guard would have asked, if it would. Raises Halted, Denied."""
        pending, self._pending = self._pending, None
        try:
            if pending is not None:
                await drive_async(pending)
        except Exception as error:
            if isinstance(error, Denied):
                raise
            unrecorded(error, self.call_id, self._run, self.model or "model call", self._open)
            self._run = None

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
        call_id: str = "",
        paid: Paying | None = None,
    ) -> "ModelCall":
        call = cls(None, provider, model, "")
        try:
            run = context.current()
            call.call_id = call_id or run.next_call_id()
            _, field, raw = values.packed(messages)
            call._asked = Asked(
                run.seat.pact, call.call_id, provider, model, len(raw), parameters or {}
            )
            refusal = run.allowance.model(call._asked, wait) if paid is None else paid.refusal
            enter(run, call.call_id, "model", model, wait)
            call._run = run
            pending = call._judge(run, call._asked, messages, field, raw, tools, stream, refusal)
            if wait:
                drive(pending)
            else:
                call._pending = pending
        except Exception as error:
            if isinstance(error, Denied | Held | Lacking):
                raise
            unrecorded(error, call.call_id, call._run, model or "model call", call._open)
            call._run = None
        return call

    @property
    def run(self) -> Run | None:
        """The run in whose record the call stands while it is open, else None."""
        return self._run if self._open else None

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
            usage=(_whole(input_tokens), _whole(output_tokens), _whole(cached_tokens),
                   _whole(reasoning_tokens)),
            error="",
            reasoning=reasoning,
        )  # fmt: skip

    def fail(self, error: BaseException) -> None:
        """The call failed or was cancelled. Never raises."""
        self._finish(
            content="", tool_calls=[], finish_reason="", model=self.model, fingerprint="",
            usage=(0, 0, 0, 0), error=said(error), reasoning="",
        )  # fmt: skip

    def _judge(
        self,
        run: Run,
        asked: Asked,
        messages: Any,
        field: Any,
        raw: bytes,
        tools: Sequence[str],
        stream: bool,
        refusal: Verdict | None,
    ) -> Questions[None]:
        parameters = asked.parameters
        digest = values.hash_of(raw)
        try:
            yield from run.model_step(digest, self.call_id)
            run.ear.listen(messages)
            for name in ("system", "instructions"):
                if isinstance(parameters.get(name), str):
                    run.ear.listen({"role": "system", "content": parameters[name]})
            action = Action(
                kind="model", name=self.model, call_id=self.call_id, known_tools=tuple(tools),
                provider=self.provider, input_chars=len(raw),
                tokens_max=estimates.tokens_max(parameters),
            )  # fmt: skip
            now_ns = run.world.monotonic_ns()
            verdict = run.seat.judge(action, now_ns)
            if refusal is not None and goes_on(verdict):
                run.seat.model_returned(0, 0, 0.0, now_ns, "", self.call_id)
                verdict = refusal
            if verdict.kind != "allow" or verdict.duties or verdict.beside is not None:
                yield from self._settle(run, action, verdict, asked)
        except BaseException:
            run.allowance.not_made(self.call_id)
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
        run.tally.model_began(self.model)

    def _settle(
        self, run: Run, action: Action, verdict: Verdict, asked: Asked
    ) -> Questions[None]:  # fmt: skip
        run.decided(action, verdict)
        refusal = yield from escalate(run, action, verdict)
        if refusal is None and verdict.kind == "ask":
            run.allowance.not_made(self.call_id)  # while people think, others may spend it
            refusal = yield from approve(run, action, verdict, run.seat.granted)
            paying = run.allowance.model_again(asked) if refusal is None else None
            if paying is not None:
                yield paying
                refusal = paying.refusal
                if refusal is not None:
                    run.decided(action, refusal)
                    run.seat.model_returned(0, 0, 0.0, run.world.monotonic_ns(), "", self.call_id)
        elif refusal is None and verdict.kind == "deny":
            refusal = verdict
        if refusal is not None:
            run.refused(refusal)
            raise denial(refusal, self.model or "model call")
        if verdict.kind == "steer":
            run.advise(verdict.guidance or verdict.reason)

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
            run.seat.model_returned(usage[0], usage[1], usd, now_ns, model, self.call_id)
            run.allowance.model_done(
                self.call_id, self._asked.input_chars if self._asked is not None else 0,
                usage[0], usage[1], usd, failed=bool(error), begun=self._first_token_ns > 0,
            )  # fmt: skip
            run.leave(self.call_id)
            run.tally.model_ended(usage[0], usage[1], usd, error)
        except Exception as fault:
            run.leave(self.call_id)
            quiet.fault("model call", fault)


def marked(directive: str) -> str:
    """A directive as the model is to read it: visibly from an operator, not from the user."""
    return f"{MODEL_ADVICE_MARK} A directive of the operator of this agent: {directive}"


def _whole(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0
