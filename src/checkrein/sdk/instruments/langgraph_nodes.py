"""LangGraph's `ToolNode`: a call of a tool that does not exist never reaches a tool, so it is
judged and recorded here; the model is told as LangGraph tells it, or by the refusal."""

from typing import Any

from checkrein.sdk import quiet
from checkrein.sdk.calls import ToolCall
from checkrein.sdk.errors import Denied
from checkrein.sdk.instruments.patches import Patches


def apply(patches: Patches) -> None:
    patches.wrap("langgraph.prebuilt.tool_node", "ToolNode._validate_tool_call", _validate)


def _validate(original: Any) -> Any:
    def validate(self: Any, call: Any) -> Any:
        message = original(self, call)
        if message is None:
            return None
        known = tuple(self.tools_by_name)
        try:
            begun = ToolCall.begin(
                call["name"], call.get("args"), known_tools=known, call_id=call.get("id") or ""
            )
        except Denied as denied:
            with quiet.quiet("instruments: telling of a refusal"):
                message.content = str(denied)
        else:
            begun.fail(LookupError(str(message.content)))
        return message

    return validate
