"""The tools that decorators have declared in this process."""

from collections.abc import Callable
from typing import Any

from checkrein.policy.types import ToolKind


class Tool:
    """What a decorator declared; the wrapped function carries it as `__checkrein_tool__`."""

    __slots__ = ("kind", "name", "timeout_s", "undo")

    def __init__(
        self, name: str, kind: ToolKind | None, undo: Callable[..., Any] | None,
        timeout_s: float | None,
    ) -> None:  # fmt: skip
        self.name = name
        self.kind = kind
        self.undo = undo
        self.timeout_s = timeout_s


TOOLS: dict[str, Tool] = {}
"""By name, the last one declared of each; for undoing them later."""
KINDS: dict[str, ToolKind] = {}
"""The kinds by name, for calls that come through a framework: the last one that was declared."""


def declare(tool: Tool) -> None:
    TOOLS[tool.name] = tool
    if tool.kind is not None:
        KINDS[tool.name] = tool.kind


def names() -> list[str]:
    """For `run.start`."""
    return list(TOOLS)
