"""The `anthropic` package: messages, beta or not, and the tools that its tool runner calls."""

from collections.abc import Mapping
from typing import Any, Final

from checkrein.sdk.calls import ToolCall
from checkrein.sdk.errors import Denied
from checkrein.sdk.instruments import stainless
from checkrein.sdk.instruments.anthropic_exchange import Messages
from checkrein.sdk.instruments.exchange import Endpoint
from checkrein.sdk.instruments.patches import Patches

MESSAGES: Final[Endpoint] = Messages()


def find(method: str, url: str) -> Endpoint | None:
    path = url.partition("?")[0].rstrip("/")
    return MESSAGES if method == "post" and path.endswith("/messages") else None


def apply(patches: Patches) -> None:
    stainless.apply(patches, "anthropic", find)
    tools = "anthropic.lib.tools._beta_functions"
    patches.wrap(tools, "BetaFunctionTool.call", _call)
    patches.wrap(tools, "BetaAsyncFunctionTool.call", _acall)


def _call(original: Any) -> Any:
    def call(self: Any, given: Any) -> Any:
        try:
            begun = ToolCall.begin(self.name, given)
            try:
                result = original(self, _changed(begun, given))
            except BaseException as error:
                begun.fail(error)
                raise
        except Denied as denied:
            raise _told(denied) from denied
        begun.end(result)
        return result

    return call


def _acall(original: Any) -> Any:
    async def call(self: Any, given: Any) -> Any:
        try:
            begun = await ToolCall.abegin(self.name, given)
            try:
                result = await original(self, _changed(begun, given))
            except BaseException as error:
                begun.fail(error)
                raise
        except Denied as denied:
            raise _told(denied) from denied
        begun.end(result)
        return result

    return call


def _changed(begun: ToolCall, given: Any) -> Any:
    return dict(begun.arguments) if begun.changed and isinstance(given, Mapping) else given


def _told(denied: Denied) -> Exception:
    """The error that the runner hands to the model in these very words."""
    from anthropic.lib.tools import ToolError

    return ToolError(str(denied))
