"""Anthropic's messages on their way to the agent: calls taken out, text screened. Pure."""

from collections.abc import Mapping
from typing import Any

from checkrein.gateway.models.calls import (
    Item,
    Outcome,
    Proposed,
    Result,
    dicts,
    parsed,
    text_of,
)
from checkrein.gateway.models.chat import Holds
from checkrein.gateway.models.screen import Channel, Screen, screened

_PROVIDERS = ("web_search", "web_fetch", "code_execution", "tool_search", "mcp_toolset", "advisor")
_DELTAS = {"text_delta": "text"}
_AS_THEY_ARE = ("thinking_delta", "signature_delta", "input_json_delta")
"""What a model thought is signed: its provider takes it back only as it was."""


def results(body: Mapping[str, Any]) -> list[Result]:
    """What became of earlier calls, as the request tells."""
    return [
        Result(str(part.get("tool_use_id", "")), _said(part.get("content")),
               part.get("is_error") is True)
        for message in dicts(body.get("messages"))
        for part in dicts(message.get("content"))
        if part.get("type") == "tool_result"
    ]  # fmt: skip


def _said(content: Any) -> Any:
    if isinstance(content, list) and all(part.get("type") == "text" for part in dicts(content)):
        return "".join(str(part.get("text", "")) for part in dicts(content))
    return content


def provider_tools(body: Mapping[str, Any]) -> list[str]:
    """Tools that the provider runs itself."""
    found = [
        str(tool.get("name") or tool.get("type"))
        for tool in dicts(body.get("tools"))
        if str(tool.get("type") or "").startswith(_PROVIDERS)
    ]
    servers = [f"mcp:{one.get('name', '')}" for one in dicts(body.get("mcp_servers"))]
    return found + servers


def proposed(answer: Item) -> list[Proposed]:
    return [
        Proposed(str(block.get("id", "")), str(block.get("name", "")), block.get("input"), block)
        for block in dicts(answer.get("content"))
        if block.get("type") == "tool_use"
    ]


def settle(answer: Item, settled: list[tuple[Proposed, Outcome]]) -> None:
    """Changes an answer by what was decided of its calls."""
    for call, outcome in settled:
        block = call.where
        if outcome.refused:
            block.clear()
            block.update({"type": "text", "text": outcome.refused})
        else:
            block["input"] = outcome.arguments
    left = any(block.get("type") == "tool_use" for block in dicts(answer.get("content")))
    answer["stop_reason"] = _stop(answer.get("stop_reason"), left)


def _stop(reason: Any, calls_left: bool) -> Any:
    return "end_turn" if reason == "tool_use" and not calls_left else reason


def screen_whole(answer: Item, screen: Screen) -> Item:
    """All that is text in an answer."""
    if isinstance(answer.get("content"), list):
        answer["content"] = screened(answer["content"], screen)
    return answer


class Flow:
    """As `calls.Flowing`. A call is judged when its block stops."""

    def __init__(self, screen: Screen, holds: Holds | None) -> None:
        self.waiting: list[Proposed] = []
        self.ended = False
        self._screen = screen
        self._holds = holds
        self._plain = holds is None and not screen.active
        self._held: dict[int, tuple[Item, list[str]]] = {}
        self._texts: dict[int, tuple[Channel, str]] = {}
        self._passed = 0
        self._refused = 0

    def take(self, name: str, item: Item) -> list[Item]:
        kind = item.get("type")
        if kind == "message_stop":
            self.ended = True
            return [item]
        if self._plain:
            return [item]
        match kind:
            case "content_block_delta":
                return self._delta(item)
            case "content_block_start":
                return self._start(item)
            case "content_block_stop":
                return self._stop(item)
            case "message_delta":
                delta = item.get("delta")
                if isinstance(delta, dict) and self._refused:
                    delta["stop_reason"] = _stop(delta.get("stop_reason"), self._passed > 0)
            case "message_start":
                message = item.get("message")
                if isinstance(message, dict) and message.get("content"):
                    message["content"] = []  # what is said comes in blocks, which are judged
            case _:
                pass
        return [item]

    def _start(self, item: Item) -> list[Item]:
        block = item.get("content_block")
        if not isinstance(block, dict):
            return [item]
        if block.get("type") == "tool_use":
            held = self._holds is not None and self._holds(str(block.get("name", "")))
            if held or self._screen.active:
                given = block.get("input")
                self._held[item.get("index", 0)] = (item, [text_of(given)] if given else [])
                return []
            self._passed += 1
        elif self._screen.active:
            item["content_block"] = screened(block, self._screen)
        return [item]

    def _delta(self, item: Item) -> list[Item]:
        index, delta = item.get("index", 0), item.get("delta")
        if not isinstance(delta, dict):
            return [item]
        held = self._held.get(index)
        if held is not None:
            piece = delta.get("partial_json")
            if isinstance(piece, str):
                held[1].append(piece)
            return []
        if not self._screen.active:
            return [item]
        field = _DELTAS.get(str(delta.get("type")))
        if field is None:
            if delta.get("type") not in _AS_THEY_ARE:
                item["delta"] = screened(delta, self._screen)
            return [item]
        if index not in self._texts:
            self._texts[index] = (self._screen.channel(), field)
        passed = self._texts[index][0].text(str(delta.get(field) or ""))
        if not passed:
            return []
        delta[field] = passed
        return [item]

    def _stop(self, item: Item) -> list[Item]:
        index = item.get("index", 0)
        held = self._held.pop(index, None)
        if held is not None:
            block = held[0]["content_block"]
            arguments = parsed("".join(held[1]))
            where = (held[0], item)
            self.waiting.append(
                Proposed(str(block.get("id", "")), str(block.get("name", "")), arguments, where)
            )
            return []
        text = self._texts.pop(index, None)
        rest = text[0].finish() if text is not None else ""
        if text is not None and rest:
            field = text[1]
            return [_piece(index, {"type": f"{field}_delta", field: rest}), item]
        return [item]

    def settle(self, call: Proposed, outcome: Outcome) -> list[Item]:
        start, stop = call.where
        index = start.get("index", 0)
        if outcome.refused:
            self._refused += 1
            block = {"type": "text", "text": ""}
            delta = {"type": "text_delta", "text": outcome.refused}
            return [start | {"content_block": block}, _piece(index, delta), stop]
        self._passed += 1
        block = start["content_block"] | {"input": {}}
        text = text_of(outcome.arguments)
        delta = {"type": "input_json_delta", "partial_json": text}
        return [start | {"content_block": block}, _piece(index, delta), stop]

    def resume(self) -> list[Item]:
        self.waiting = []
        return []


def _piece(index: int, delta: Item) -> Item:
    return {"type": "content_block_delta", "index": index, "delta": delta}
