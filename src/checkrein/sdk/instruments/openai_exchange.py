"""What OpenAI's chat completions, responses and embeddings say. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from checkrein.sdk.instruments.exchange import Answer, Gathering, Request, get, parsed

PROVIDER = "openai"


def _request(body: Mapping[str, Any], messages: Any, dropped: frozenset[str]) -> Request:
    tools = tuple(
        str(get(get(tool, "function", tool), "name") or get(tool, "type", ""))
        for tool in body.get("tools") or ()
    )
    return Request(
        provider=PROVIDER,
        model=str(body.get("model", "")),
        messages=messages,
        parameters={k: v for k, v in body.items() if k not in dropped},
        tools=tools,
        stream=bool(body.get("stream")),
    )


class Chat:
    """`/chat/completions`."""

    _dropped = frozenset({"messages", "model", "tools", "stream"})

    def request(self, body: Mapping[str, Any]) -> Request:
        return _request(body, body.get("messages"), self._dropped)

    def answer(self, result: Any) -> Answer:
        answer = Answer(
            model=get(result, "model", ""), fingerprint=get(result, "system_fingerprint", "")
        )
        _chat_usage(answer, get(result, "usage"))
        texts = []
        for choice in get(result, "choices", ()):
            message = get(choice, "message")
            texts.append(get(message, "content") or get(message, "refusal", ""))
            answer.finish_reason = answer.finish_reason or get(choice, "finish_reason", "")
            answer.reasoning += get(message, "reasoning_content", "")
            for call in get(message, "tool_calls", ()):
                function = get(call, "function", get(call, "custom"))
                arguments = get(function, "arguments", get(function, "input"))
                answer.tool_calls.append(
                    _call(get(call, "id", ""), get(function, "name", ""), arguments)
                )
        answer.content = "\n".join(text for text in texts if text)
        return answer

    def gathering(self) -> Gathering:
        return _ChatGathering()

    def direct(self, body: dict[str, Any], directives: Sequence[str]) -> dict[str, Any]:
        said = [{"role": "system", "content": text} for text in directives]
        return body | {"messages": [*(body.get("messages") or ()), *said]}


class _ChatGathering:
    def __init__(self) -> None:
        self._answer = Answer()
        self._texts: list[str] = []
        self._calls: dict[tuple[int, int], dict[str, str]] = {}

    def item(self, item: Any) -> bool:
        said = False
        answer = self._answer
        answer.model = get(item, "model", "") or answer.model
        answer.fingerprint = get(item, "system_fingerprint", "") or answer.fingerprint
        if (usage := get(item, "usage")) is not None:
            _chat_usage(answer, usage)
        for choice in get(item, "choices", ()):
            delta = get(choice, "delta")
            answer.finish_reason = get(choice, "finish_reason", "") or answer.finish_reason
            if text := get(delta, "content") or get(delta, "refusal", ""):
                self._texts.append(text)
                said = True
            answer.reasoning += get(delta, "reasoning_content", "")
            for call in get(delta, "tool_calls", ()):
                said = True
                key = (get(choice, "index", 0), get(call, "index", 0))
                kept = self._calls.setdefault(key, {"id": "", "name": "", "arguments": ""})
                kept["id"] = get(call, "id", "") or kept["id"]
                kept["name"] += get(get(call, "function"), "name", "")
                kept["arguments"] += get(get(call, "function"), "arguments", "")
        return said

    def answer(self) -> Answer:
        self._answer.content = "".join(self._texts)
        self._answer.tool_calls = [
            _call(c["id"], c["name"], c["arguments"]) for c in self._calls.values()
        ]
        return self._answer


class Responses:
    """`/responses`."""

    _dropped = frozenset({"input", "instructions", "model", "tools", "stream"})

    def request(self, body: Mapping[str, Any]) -> Request:
        messages = body.get("input")
        if instructions := body.get("instructions"):
            items = [messages] if isinstance(messages, str | Mapping) else list(messages or ())
            messages = [{"role": "system", "content": instructions}, *items]
        return _request(body, messages, self._dropped)

    def answer(self, result: Any) -> Answer:
        answer = Answer(model=get(result, "model", ""), finish_reason=get(result, "status", ""))
        usage = get(result, "usage")
        if usage is not None:
            answer.input_tokens = get(usage, "input_tokens")
            answer.output_tokens = get(usage, "output_tokens")
            answer.cached_tokens = get(get(usage, "input_tokens_details"), "cached_tokens", 0)
            answer.reasoning_tokens = get(
                get(usage, "output_tokens_details"), "reasoning_tokens", 0
            )
        texts = []
        for item in get(result, "output", ()):
            kind = get(item, "type", "")
            if kind == "message":
                texts += [
                    get(part, "text") or get(part, "refusal", "")
                    for part in get(item, "content", ())
                ]
            elif kind == "reasoning":
                answer.reasoning += "".join(get(p, "text", "") for p in get(item, "summary", ()))
            elif kind.endswith("_call"):
                arguments = get(item, "arguments", get(item, "input"))
                name = get(item, "name", kind.removesuffix("_call"))
                answer.tool_calls.append(_call(get(item, "call_id", ""), name, arguments))
        answer.content = "\n".join(text for text in texts if text)
        return answer

    def gathering(self) -> Gathering:
        return _ResponsesGathering(self)

    def direct(self, body: dict[str, Any], directives: Sequence[str]) -> dict[str, Any]:
        given = body.get("input") or ()
        items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
        said = [{"role": "developer", "content": text} for text in directives]
        return body | {"input": [*items, *said]}


class _ResponsesGathering:
    """The last event of a stream carries the whole answer; until it comes, the text so far."""

    def __init__(self, endpoint: Responses) -> None:
        self._endpoint = endpoint
        self._texts: list[str] = []
        self._model = ""
        self._whole: Any = None

    def item(self, item: Any) -> bool:
        kind = get(item, "type", "")
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            self._whole = get(item, "response")
        elif kind == "response.created":
            self._model = get(get(item, "response"), "model", "")
        elif kind == "response.output_text.delta":
            self._texts.append(get(item, "delta", ""))
        return str(kind).endswith(".delta")

    def answer(self) -> Answer:
        if self._whole is not None:
            return self._endpoint.answer(self._whole)
        return Answer(model=self._model, content="".join(self._texts))


class Embeddings:
    """`/embeddings`."""

    _dropped = frozenset({"input", "model"})

    def request(self, body: Mapping[str, Any]) -> Request:
        return _request(body, body.get("input"), self._dropped)

    def answer(self, result: Any) -> Answer:
        answer = Answer(model=get(result, "model", ""), output_tokens=0)
        answer.input_tokens = get(get(result, "usage"), "prompt_tokens")
        return answer

    def gathering(self) -> Gathering:
        return _ChatGathering()

    def direct(self, body: dict[str, Any], directives: Sequence[str]) -> dict[str, Any]:
        """Nobody reads a directive here."""
        del directives
        return body


def _chat_usage(answer: Answer, usage: Any) -> None:
    if usage is None:
        return
    answer.input_tokens = get(usage, "prompt_tokens")
    answer.output_tokens = get(usage, "completion_tokens")
    answer.cached_tokens = get(get(usage, "prompt_tokens_details"), "cached_tokens", 0)
    answer.reasoning_tokens = get(get(usage, "completion_tokens_details"), "reasoning_tokens", 0)


def _call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    return {"id": call_id, "name": name, "arguments": parsed(arguments)}
