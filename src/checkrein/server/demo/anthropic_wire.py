"""Anthropic's protocol: messages, whole and streamed. Pure, as `openai_wire`."""

import json
from collections.abc import Iterator
from typing import Any

from checkrein.server.demo.replies import Reply, Turn, arguments, call_id, digest_of, text_of

_ERRORS = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error",
           529: "overloaded_error"}  # fmt: skip


def messages_turn(body: dict[str, Any], attempt: int) -> Turn:
    messages = [m for m in body.get("messages", []) if isinstance(m, dict)]
    answers = [i for i, m in enumerate(messages) if m.get("role") == "assistant"]
    since = messages[answers[-1] + 1 :] if answers else messages
    results: list[str] = []
    for message in since:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if part.get("type") == "tool_result":
                results.append(text_of(part.get("content")))
    asked = [text for m in messages if m.get("role") == "user" and (text := _said(m))]
    return Turn(
        number=len(answers),
        prompt=asked[-1] if asked else "",
        system=text_of(body.get("system") or ""),
        results=tuple(results),
        tools=tuple(t.get("name", "") for t in body.get("tools") or ()),
        model=str(body.get("model", "")),
        attempt=attempt,
        input_chars=sum(len(json.dumps(m)) for m in messages),
        digest=digest_of(body),
    )


def _said(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        content = [part for part in content if part.get("type") == "text"]
    return text_of(content)


def _usage(turn: Turn, reply: Reply) -> dict[str, Any]:
    return {
        "input_tokens": reply.tokens_in(turn) - reply.cached_tokens,
        "cache_read_input_tokens": reply.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": reply.tokens_out(),
    }


def _blocks(turn: Turn, reply: Reply) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if reply.text:
        blocks.append({"type": "text", "text": reply.text, "citations": None})
    for index, call in enumerate(reply.calls):
        name = f"toolu_{call_id(turn, index)}"
        blocks.append({"type": "tool_use", "id": name, "name": call.tool, "input": call.arguments})
    return blocks


def messages_body(turn: Turn, reply: Reply) -> dict[str, Any]:
    return {
        "id": f"msg_{turn.digest[:24]}",
        "type": "message",
        "role": "assistant",
        "model": reply.model or turn.model,
        "content": _blocks(turn, reply),
        "stop_reason": reply.finish or ("tool_use" if reply.calls else "end_turn"),
        "stop_sequence": None,
        "usage": _usage(turn, reply),
    }


def messages_stream(turn: Turn, reply: Reply, body: dict[str, Any]) -> Iterator[bytes]:
    del body  # nothing in the request changes how it is streamed
    whole = messages_body(turn, reply)
    opening = whole | {"content": [], "stop_reason": None}
    opening["usage"] = _usage(turn, reply) | {"output_tokens": 1}
    yield _event("message_start", message=opening)
    yield _event("ping")
    for index, block in enumerate(whole["content"]):
        text = block["type"] == "text"
        blank: dict[str, Any] = {"text": ""} if text else {"input": {}}
        emptied = block | blank
        yield _event("content_block_start", index=index, content_block=emptied)
        if text:
            deltas = [{"type": "text_delta", "text": piece} for piece in reply.pieces()]
        else:
            call = reply.calls[index - (1 if reply.text else 0)]
            deltas = [{"type": "input_json_delta", "partial_json": arguments(call)}]
        for delta in deltas:
            yield _event("content_block_delta", index=index, delta=delta)
        if reply.breaks:
            yield _event("error", error={"type": "overloaded_error", "message": reply.error or ""})
            return
        yield _event("content_block_stop", index=index)
    ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield _event("message_delta", delta=ending, usage=_usage(turn, reply))
    yield _event("message_stop")


def error_body(reply: Reply) -> dict[str, Any]:
    kind = _ERRORS.get(reply.status, "api_error")
    message = reply.error or f"the script answers {reply.status}"
    return {"type": "error", "error": {"type": kind, "message": message}}


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | fields)}\n\n".encode()
