"""What conditions read of a run: whose it is, what it has spent, what is about to be called."""

from typing import Any

import msgspec

from checkrein.policy.budgets import Spent
from checkrein.policy.types import Action, Place, ToolKind


class Facts:
    """Of one run. `model`: of its last model call; `confidence`: how sure the agent says it is,
    from 0 to 1, and -1 until it says so."""

    __slots__ = ("_always", "_spent", "confidence", "model")

    def __init__(self, place: Place, spent: Spent) -> None:
        self._spent = spent
        self.confidence = -1.0
        self.model = ""
        self._always: dict[str, Any] = {
            **msgspec.structs.asdict(place), "args": {}, "tool": "", "kind": "", "step": 0,
            "spent": {}, "confidence": -1.0, "model": "",
        }  # fmt: skip

    def placed(self, place: Place) -> None:
        self._always.update(msgspec.structs.asdict(place))

    def of_tool(
        self, action: Action, args: dict[str, Any], kind: ToolKind | None, now_ns: int | None
    ) -> dict[str, Any]:
        """For a tool call. `now_ns` None: nothing reads what is spent."""
        facts = self._always.copy()
        facts["args"] = args
        facts["tool"] = action.name
        facts["kind"] = kind or ""
        facts["step"] = self._spent.steps
        facts["confidence"] = self.confidence
        facts["model"] = self.model
        if now_ns is not None:
            facts["spent"] = self._sums(now_ns)
        return facts

    def of_model(self, model: str, now_ns: int) -> dict[str, Any]:
        """For a call of this model."""
        return self._always | {
            "step": self._spent.steps, "model": model, "confidence": self.confidence,
            "spent": self._sums(now_ns),
        }  # fmt: skip

    def _sums(self, now_ns: int) -> dict[str, Any]:
        spent = self._spent
        return {
            "steps": spent.steps, "tool_calls": spent.tool_calls, "tokens": spent.tokens,
            "usd": spent.usd, "wall_s": spent.wall_s(now_ns),
        }  # fmt: skip
