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

from checkrein.sdk.model_call import MODEL_ADVICE_MARK, ModelCall, marked
from checkrein.sdk.tool_call import ToolCall, open_tool

__all__ = ["MODEL_ADVICE_MARK", "ModelCall", "ToolCall", "marked", "open_tool"]
