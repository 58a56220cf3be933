"""LangChain's tools, which LangGraph's agents call: judged before `run` and `arun` do anything.

Wrapping these two costs less than a callback handler (which a sync one pays in an async graph), and
can refuse. A refusal goes back as the tool's error message when the model asked for the call; it is
raised as `Denied` when the program itself called the tool.
"""

from typing import Any

from checkrein.sdk import quiet
from checkrein.sdk.calls import ToolCall
from checkrein.sdk.errors import Denied
from checkrein.sdk.instruments.patches import Patches

_BASE = "langchain_core.tools.base"


def apply(patches: Patches) -> None:
    patches.wrap(_BASE, "BaseTool.run", _run)
    patches.wrap(_BASE, "BaseTool.arun", _arun)


def _run(original: Any) -> Any:
    def run(self: Any, tool_input: Any, *given: Any, **more: Any) -> Any:
        model_id = more.get("tool_call_id") or ""
        call = None
        try:
            call = ToolCall.begin(self.name, _plain(self, tool_input), call_id=model_id)
            result = original(self, _changed(call, tool_input), *given, **more)
        except BaseException as error:
            return _failed(call, error, self.name, model_id)
        _returned(call, result)
        return result

    return run


def _arun(original: Any) -> Any:
    async def arun(self: Any, tool_input: Any, *given: Any, **more: Any) -> Any:
        model_id = more.get("tool_call_id") or ""
        call = None
        try:
            call = await ToolCall.abegin(self.name, _plain(self, tool_input), call_id=model_id)
            result = await original(self, _changed(call, tool_input), *given, **more)
        except BaseException as error:
            return _failed(call, error, self.name, model_id)
        _returned(call, result)
        return result

    return arun


def _plain(tool: Any, tool_input: Any) -> Any:
    """The arguments that the model chose, without what the graph injects (such as its state)."""
    if isinstance(tool_input, dict):
        with quiet.quiet("instruments: arguments of a LangChain tool"):
            injected: frozenset[str] = getattr(tool, "_injected_args_keys", frozenset())
            return {k: v for k, v in tool_input.items() if k not in injected}
    return tool_input


def _changed(call: ToolCall, tool_input: Any) -> Any:
    """What to call with: a guard may have changed the arguments."""
    if not call.changed:
        return tool_input
    if isinstance(tool_input, dict) and isinstance(call.arguments, dict):
        return tool_input | call.arguments
    return call.arguments


def _failed(call: ToolCall | None, error: BaseException, name: str, model_id: str) -> Any:
    """Records how it ended, then answers the model or raises."""
    if call is not None:
        call.fail(error)
    if isinstance(error, Denied) and model_id:
        from langchain_core.messages import ToolMessage

        return ToolMessage(content=str(error), name=name, tool_call_id=model_id, status="error")
    raise error


def _returned(call: ToolCall, result: Any) -> None:
    """A tool may turn its own error into a message for the model: still an error of the tool."""
    content = getattr(result, "content", result)
    if getattr(result, "status", "") == "error":
        call.fail(RuntimeError(str(content)))
    else:
        call.end(content)
