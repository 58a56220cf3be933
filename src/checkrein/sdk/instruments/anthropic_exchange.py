"""What Anthropic's messages say. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from checkrein.sdk.instruments.exchange import Answer, Gathering, Request, get, parsed

PROVIDER = "anthropic"
_DROPPED = frozenset({"messages", "system", "model", "tools", "stream"})


class Messages:
    """`/v1/messages`, beta or not. Tokens read from the cache count as read, as elsewhere."""

    def request(self, body: Mapping[str, Any]) -> Request:
        messages = body.get("messages")
        if system := body.get("system"):
            messages = [{"role": "system", "content": system}, *(messages or ())]
        return Request(
            provider=PROVIDER,
            model=str(body.get("model", "")),
            messages=messages,
            parameters={k: v for k, v in body.items() if k not in _DROPPED},
            tools=tuple(str(get(tool, "name", "")) for tool in body.get("tools") or ()),
            stream=bool(body.get("stream")),
        )

    def answer(self, result: Any) -> Answer:
        answer = Answer(
            model=get(result, "model", ""), finish_reason=get(result, "stop_reason", "")
        )
        _usage(answer, get(result, "usage"))
        for block in get(result, "content", ()):
            _block(answer, block)
        return answer

    def gathering(self) -> Gathering:
        return _Gathering()

    def direct(self, body: dict[str, Any], directives: Sequence[str]) -> dict[str, Any]:
        system = body.get("system") or ()
        blocks = [{"type": "text", "text": system}] if isinstance(system, str) else list(system)
        return body | {"system": [*blocks, *({"type": "text", "text": t} for t in directives)]}


class _Gathering:
    def __init__(self) -> None:
        self._answer = Answer()
        self._blocks: dict[int, dict[str, Any]] = {}

    def item(self, item: Any) -> bool:
        match get(item, "type", ""):
            case "message_start":
                message = get(item, "message")
                self._answer.model = get(message, "model", "")
                _usage(self._answer, get(message, "usage"))
            case "content_block_start":
                block = get(item, "content_block")
                self._blocks[get(item, "index", 0)] = {
                    "type": get(block, "type", ""),
                    "id": get(block, "id", ""),
                    "name": get(block, "name", ""),
                    "text": get(block, "text", ""),
                    "thinking": get(block, "thinking", ""),
                    "input": "",
                }
                return bool(get(block, "type", "") == "tool_use")
            case "content_block_delta":
                return self._delta(get(item, "index", 0), get(item, "delta"))
            case "message_delta":
                self._answer.finish_reason = get(get(item, "delta"), "stop_reason", "")
                _usage(self._answer, get(item, "usage"))
            case _:
                pass
        return False

    def _delta(self, index: int, delta: Any) -> bool:
        block = self._blocks.setdefault(index, {"type": "text", "text": ""})
        for key, into in (("text", "text"), ("thinking", "thinking"), ("partial_json", "input")):
            if piece := get(delta, key, ""):
                block[into] = block.get(into, "") + piece
        return True

    def answer(self) -> Answer:
        answer = self._answer
        answer.content, answer.reasoning, answer.tool_calls = "", "", []
        for block in self._blocks.values():
            _block(answer, block)
        return answer


def _block(answer: Answer, block: Any) -> None:
    kind = get(block, "type", "")
    if kind == "text":
        answer.content += get(block, "text", "")
    elif kind == "thinking":
        answer.reasoning += get(block, "thinking", "")
    elif kind.endswith("tool_use"):
        arguments = parsed(get(block, "input"))
        answer.tool_calls.append(
            {"id": get(block, "id", ""), "name": get(block, "name", ""), "arguments": arguments}
        )


def _usage(answer: Answer, usage: Any) -> None:
    """A stream's last usage repeats the written tokens and may leave out the read ones."""
    if usage is None:
        return
    cached = get(usage, "cache_read_input_tokens")
    plain = get(usage, "input_tokens")
    if plain is not None:
        written_to_cache = get(usage, "cache_creation_input_tokens", 0)
        answer.cached_tokens = cached or 0
        answer.input_tokens = plain + (cached or 0) + written_to_cache
    answer.output_tokens = get(usage, "output_tokens", answer.output_tokens)
