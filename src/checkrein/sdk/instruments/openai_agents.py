"""The OpenAI Agents SDK's function tools: judged before they are invoked, in whichever way they
were made. A refusal is the tool's output, as its own errors are."""

import contextvars
from typing import Any

from checkrein.sdk.calls import ToolCall
from checkrein.sdk.errors import Denied
from checkrein.sdk.instruments.exchange import parsed
from checkrein.sdk.instruments.patches import Patches

_errors: contextvars.ContextVar[list[BaseException] | None] = contextvars.ContextVar(
    "checkrein_openai_agents_errors", default=None
)
"""The errors that the call under way turned into text for the model."""


def apply(patches: Patches) -> None:
    # The module that imports the function by name comes first: it must not wrap a wrapper.
    for module in ("agents.run_internal.tool_execution", "agents.tool"):
        patches.wrap(module, "_invoke_function_tool_with_metadata", _invoke)
    patches.wrap("agents.tool", "maybe_invoke_function_tool_failure_error_function", _told)


def _invoke(original: Any) -> Any:
    async def invoke(*, function_tool: Any, context: Any, arguments: str, **more: Any) -> Any:
        chosen = parsed(arguments)
        broken = chosen if isinstance(chosen, str) else ""
        errors: list[BaseException] = []
        before = _errors.set(errors)
        try:
            call = await ToolCall.abegin(
                function_tool.name,
                chosen,
                call_id=getattr(context, "tool_call_id", "") or "",
                parse_error="not JSON" if broken else "",
            )
            try:
                if call.changed:
                    arguments = _text(call.arguments)
                result = await original(
                    function_tool=function_tool, context=context, arguments=arguments, **more
                )
            except BaseException as error:
                call.fail(error)
                raise
        except Denied as denied:
            return _answer(str(denied))
        finally:
            _errors.reset(before)
        if errors:
            call.fail(errors[-1])
        else:
            call.end(getattr(result, "output", result))
        return result

    return invoke


def _told(original: Any) -> Any:
    async def told(*given: Any, **more: Any) -> Any:
        text = await original(*given, **more)
        errors, error = _errors.get(), more.get("error")
        if text is not None and errors is not None and isinstance(error, BaseException):
            errors.append(error)
        return text

    return told


def _text(arguments: Any) -> str:
    import json

    return json.dumps(arguments)


def _answer(text: str) -> Any:
    """What an invocation returns; marked as an error text, which no output schema need fit."""
    from agents import tool as library

    return library._FunctionToolInvocationResult(text, is_sdk_generated_error=True)
