"""`checkrein.model`: a model call written by hand, as a decorator or as a context manager.

    with checkrein.model("openai", "gpt-5-mini", messages) as call:
        answer = ...
        call.end(answer.text, input_tokens=answer.usage.input, output_tokens=answer.usage.output)

    @checkrein.model(provider="openai", model="gpt-5-mini")
    def ask(messages): ...

The decorated callable may return text, or a mapping with any of `content`, `tool_calls`,
`input_tokens`, `output_tokens`, `cached_tokens`, `reasoning_tokens`, `finish_reason`, `model`.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from checkrein.sdk.calls import ModelCall

F = TypeVar("F", bound=Callable[..., Any])
_RESULT = (
    "content", "tool_calls", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens",
    "finish_reason", "model", "fingerprint", "reasoning",
)  # fmt: skip


class Model:
    """What `checkrein.model(...)` returns: a context manager that is also a decorator."""

    def __init__(
        self, provider: str, model: str, messages: Any, parameters: Mapping[str, Any] | None,
        tools: Sequence[str],
    ) -> None:  # fmt: skip
        self._given = (provider, model)
        self._messages = messages
        self._parameters = parameters
        self._tools = tools
        self._call: ModelCall | None = None

    def __enter__(self) -> ModelCall:
        self._call = ModelCall.begin(
            *self._given, self._messages, self._parameters, tools=self._tools
        )
        return self._call

    async def __aenter__(self) -> ModelCall:
        self._call = await ModelCall.abegin(
            *self._given, self._messages, self._parameters, tools=self._tools
        )
        return self._call

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        if error is not None:
            call.fail(error)
        else:
            call.end()  # passed over when the block has ended it

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        if inspect.iscoroutinefunction(function):
            wrapped = _coroutine(function, self._given, self._tools)
        else:
            wrapped = _function(function, self._given, self._tools)
        return wrapped  # type: ignore[no-any-return] # the same callable, by functools.wraps


def model(
    provider: str = "",
    model: str = "",
    messages: Any = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    tools: Sequence[str] = (),
) -> Model:
    """A hand-written model call. Entering raises Halted, Denied; leaving ends the call, as failed
    when an exception passes through."""
    return Model(provider, model, messages, parameters, tools)


def _function(function: Any, given: tuple[str, str], tools: Sequence[str]) -> Any:
    @functools.wraps(function)
    def call_model(*args: Any, **named: Any) -> Any:
        call = ModelCall.begin(*given, _asked(args, named), tools=tools)
        try:
            result = function(*args, **named)
        except BaseException as error:
            call.fail(error)
            raise
        call.end(**_answer(result))
        return result

    return call_model


def _coroutine(function: Any, given: tuple[str, str], tools: Sequence[str]) -> Any:
    @functools.wraps(function)
    async def call_model(*args: Any, **named: Any) -> Any:
        call = await ModelCall.abegin(*given, _asked(args, named), tools=tools)
        try:
            result = await function(*args, **named)
        except BaseException as error:
            call.fail(error)
            raise
        call.end(**_answer(result))
        return result

    return call_model


def _asked(args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    if "messages" in named:
        return named["messages"]
    return args[0] if len(args) == 1 and not named else {"args": list(args), **named}


def _answer(result: Any) -> dict[str, Any]:
    if isinstance(result, Mapping):
        return {name: result[name] for name in _RESULT if name in result}
    return {"content": result if isinstance(result, str) else repr(result)[:4_000]}
