"""Pydantic AI's tools of every toolset: judged before they are executed. A refusal goes back to the
model as a denied call, which costs none of the tool's retries."""

from typing import Any

from checkrein.sdk.calls import ToolCall
from checkrein.sdk.errors import Denied
from checkrein.sdk.instruments.exchange import parsed
from checkrein.sdk.instruments.patches import Patches

_DEFERRED = frozenset({"CallDeferred", "ApprovalRequired"})


def apply(patches: Patches) -> None:
    patches.wrap("pydantic_ai.tool_manager", "ToolManager.execute_tool_call", _execute)


def _execute(original: Any) -> Any:
    async def execute(self: Any, validated: Any, **more: Any) -> Any:
        if getattr(validated, "deferral", None) is not None:
            return await original(self, validated, **more)
        chosen = validated.validated_args
        raw = parsed(validated.call.args) if chosen is None else chosen
        try:
            call = await ToolCall.abegin(
                validated.call.tool_name,
                raw,
                known_tools=tuple(self.tools or ()),
                call_id=validated.call.tool_call_id or "",
                parse_error=_unfit(validated),
            )
            if call.changed and isinstance(chosen, dict):
                chosen.clear()
                chosen.update(call.arguments)
            try:
                result = await original(self, validated, **more)
            except Exception as error:
                if type(error).__name__ in _DEFERRED:
                    call.end({"deferred": type(error).__name__})
                else:
                    call.fail(error)
                raise
            except BaseException as error:
                call.fail(error)
                raise
        except Denied as denied:
            from pydantic_ai.tools import ToolDenied

            return ToolDenied(str(denied))
        call.end(getattr(result, "return_value", result))
        return result

    return execute


def _unfit(validated: Any) -> str:
    error = getattr(validated, "validation_error", None)
    return "" if error is None else f"{type(error).__name__}: the arguments do not fit the tool"
