"""`@checkrein.tool`: a function, coroutine, generator or method whose every call is recorded and
judged before it is made."""

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, TypeVar, overload

from checkrein.policy.types import ToolKind
from checkrein.sdk.calls import ToolCall
from checkrein.sdk.declared import Tool, declare

F = TypeVar("F", bound=Callable[..., Any])

_PLAIN = (str, int, float, bool, type(None))
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@overload
def tool(function: F) -> F: ...
@overload
def tool(
    *,
    kind: ToolKind | None = None,
    undo: Callable[..., Any] | None = None,
    name: str = "",
    timeout: float | None = None,
) -> Callable[[F], F]: ...
def tool(
    function: Any = None,
    *,
    kind: ToolKind | None = None,
    undo: Callable[..., Any] | None = None,
    name: str = "",
    timeout: float | None = None,
) -> Any:
    """Makes a callable a tool: with or without parentheses, above or below `staticmethod` and
    `classmethod`. Calls raise Denied when a guard refuses and Halted when the run is halted; else
    they return and raise what the function does. `self` is not among the recorded arguments.

    `kind`: read, compensable (then `undo` is its compensation) or irreversible. `timeout` in
    seconds is declared, for those who watch; the function is not interrupted by it.
    """
    if kind not in (None, "read", "compensable", "irreversible"):
        raise ValueError(f"tool kind {kind!r}: must be read, compensable or irreversible")
    if function is None:
        return lambda inner: _wrapped(inner, kind, undo, name, timeout)
    return _wrapped(function, kind, undo, name, timeout)


def _wrapped(
    function: Any, kind: ToolKind | None, undo: Any, name: str, timeout: float | None
) -> Any:
    if isinstance(function, staticmethod | classmethod):
        inner = _wrapped(function.__func__, kind, undo, name, timeout)
        return type(function)(inner)
    if not callable(function):
        raise TypeError(f"@checkrein.tool is for callables, not {type(function).__name__}")
    name = name or getattr(function, "__name__", type(function).__name__)
    declared = Tool(name, kind, undo, timeout)
    declare(declared)
    wrapper: Any = _Wrapping(function, declared).wrapper()
    wrapper.__checkrein_tool__ = declared
    return wrapper


class _Wrapping:
    """How one function is wrapped: settled once, at decoration."""

    def __init__(self, function: Any, declared: Tool) -> None:
        self.function = function
        self.declared = declared
        self.names: tuple[str, ...] = ()
        self.skip = 0
        self.defaults: dict[str, Any] = {}
        self.simple = False
        self._study()

    def _study(self) -> None:
        try:
            found = list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):  # a builtin that does not say
            return
        if found and found[0].name in ("self", "cls", "mcs") and self._in_class():
            self.skip = 1
        self.simple = all(one.kind in _NAMED for one in found)
        by_place = (_NAMED[0], inspect.Parameter.POSITIONAL_ONLY)
        self.names = tuple(one.name for one in found if one.kind in by_place)[self.skip :]
        self.defaults = {
            one.name: one.default
            for one in found
            if one.default is not one.empty and isinstance(one.default, _PLAIN)
        }

    def _in_class(self) -> bool:
        path = getattr(self.function, "__qualname__", "").split(".")
        return len(path) > 1 and path[-2] != "<locals>"

    def arguments(self, args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        """The call's arguments by name, defaults included; extra positional ones by number."""
        if self.skip:
            args = args[1:]
        found = self.defaults.copy()
        found.update(zip(self.names, args, strict=False))
        if named:
            found.update(named)
        if len(args) > len(self.names):
            for place in range(len(self.names), len(args)):
                found[f"[{place}]"] = args[place]
        return found

    def changed(
        self, call: ToolCall, args: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What to call with after a guard changed the arguments."""
        if not call.changed or not self.simple or not isinstance(call.arguments, dict):
            return args, named
        return args[: self.skip], dict(call.arguments)

    def wrapper(self) -> Any:
        function = self.function
        if inspect.isasyncgenfunction(function):
            return self._async_generator()
        if inspect.iscoroutinefunction(function):
            return self._coroutine()
        if inspect.isgeneratorfunction(function):
            return self._generator()
        return self._function()

    def _function(self) -> Any:
        function, name, kind, arguments = (
            self.function, self.declared.name, self.declared.kind, self.arguments,
        )  # fmt: skip

        begin = ToolCall._begin

        @functools.wraps(function)
        def call_tool(*args: Any, **named: Any) -> Any:
            call = begin(name, arguments(args, named), kind, (), "", "", "", True, True)
            if call.changed:
                args, named = self.changed(call, args, named)
            try:
                result = function(*args, **named)
            except BaseException as error:
                call.fail(error)
                raise
            if type(result) is types.CoroutineType:  # `isinstance` asks the result itself
                return _awaited(call, result)
            call.end(result)
            return result

        return call_tool

    def _coroutine(self) -> Any:
        function, name, kind = self.function, self.declared.name, self.declared.kind

        @functools.wraps(function)
        async def call_tool(*args: Any, **named: Any) -> Any:
            call = await ToolCall.abegin(name, self.arguments(args, named), kind=kind, own=True)
            args, named = self.changed(call, args, named)
            return await _awaited(call, function(*args, **named))

        return call_tool

    def _generator(self) -> Any:
        function, name, kind = self.function, self.declared.name, self.declared.kind

        @functools.wraps(function)
        def call_tool(*args: Any, **named: Any) -> Any:
            call = ToolCall.begin(name, self.arguments(args, named), kind=kind, own=True)
            args, named = self.changed(call, args, named)
            seen = _Seen()
            try:
                result = yield from seen.through(function(*args, **named))
            except BaseException as error:
                call.fail(error)
                raise
            call.end(seen.result(result))
            return result

        return call_tool

    def _async_generator(self) -> Any:
        function, name, kind = self.function, self.declared.name, self.declared.kind

        @functools.wraps(function)
        async def call_tool(*args: Any, **named: Any) -> Any:
            call = await ToolCall.abegin(name, self.arguments(args, named), kind=kind, own=True)
            args, named = self.changed(call, args, named)
            seen = _Seen()
            inner = function(*args, **named)
            try:
                async for item in inner:
                    seen.see(item)
                    yield item
            except BaseException as error:
                call.fail(error)
                raise
            finally:
                await inner.aclose()
            call.end(seen.result(None))

        return call_tool


async def _awaited(call: ToolCall, coroutine: Any) -> Any:
    try:
        result = await coroutine
    except BaseException as error:
        call.fail(error)
        raise
    call.end(result)
    return result


class _Seen:
    """What a generator gave, as far as a record needs it: the first items, and how many."""

    ITEMS_MAX = 100

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.count = 0

    def see(self, item: Any) -> None:
        self.count += 1
        if len(self.items) < self.ITEMS_MAX:
            self.items.append(item)

    def through(self, inner: Any) -> Any:
        """Everything the inner generator yields, with what is sent and thrown passed on to it."""
        try:
            item = next(inner)
            while True:
                self.see(item)
                try:
                    sent = yield item
                except GeneratorExit:
                    inner.close()
                    raise
                except BaseException as error:
                    item = inner.throw(error)
                else:
                    item = next(inner) if sent is None else inner.send(sent)
        except StopIteration as stop:
            return stop.value

    def result(self, returned: Any) -> Any:
        found: dict[str, Any] = {"items": self.items}
        if self.count > len(self.items):
            found["count"] = self.count
        if returned is not None:
            found["returned"] = returned
        return found
