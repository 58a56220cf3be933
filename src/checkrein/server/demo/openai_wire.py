"""OpenAI's protocols: chat completions, responses and embeddings, whole and streamed.

`*_turn` reads a request, `*_body` answers it whole, `*_stream` in server-sent events. All are pure.
"""

import json
from collections.abc import Iterator
from typing import Any

from checkrein.server.demo.replies import Reply, Turn, arguments, call_id, digest_of, text_of

CREATED = 1_760_000_000
FINGERPRINT = "fp_scripted"
EMBEDDING_DIMENSIONS = 8


def chat_turn(body: dict[str, Any], attempt: int) -> Turn:
    messages = [m for m in body.get("messages", []) if isinstance(m, dict)]
    answers = [i for i, m in enumerate(messages) if m.get("role") == "assistant"]
    since = messages[answers[-1] + 1 :] if answers else messages
    asked = [m for m in messages if m.get("role") == "user"]
    return Turn(
        number=len(answers),
        prompt=text_of(asked[-1].get("content")) if asked else "",
        system=" ".join(
            text_of(m.get("content")) for m in messages if m.get("role") in ("system", "developer")
        ),
        results=tuple(text_of(m.get("content")) for m in since if m.get("role") == "tool"),
        tools=tuple(t.get("function", t).get("name", "") for t in body.get("tools") or ()),
        model=str(body.get("model", "")),
        attempt=attempt,
        input_chars=sum(len(json.dumps(m)) for m in messages),
        digest=digest_of(body),
        schema=((body.get("response_format") or {}).get("json_schema") or {}).get("schema"),
    )


def _chat_usage(turn: Turn, reply: Reply) -> dict[str, Any]:
    read, written = reply.tokens_in(turn), reply.tokens_out()
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": reply.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
    }


def _chat_calls(turn: Turn, reply: Reply) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{call_id(turn, index)}",
            "type": "function",
            "function": {"name": call.tool, "arguments": arguments(call)},
        }
        for index, call in enumerate(reply.calls)
    ]


def _chat_finish(reply: Reply) -> str:
    return reply.finish or ("tool_calls" if reply.calls else "stop")


def _chat_frame(turn: Turn, reply: Reply, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{turn.digest[:24]}",
        "object": kind,
        "created": CREATED,
        "model": reply.model or turn.model,
        "system_fingerprint": FINGERPRINT,
    }


def chat_body(turn: Turn, reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.calls:
        message["tool_calls"] = _chat_calls(turn, reply)
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": _chat_finish(reply),
    }
    frame = _chat_frame(turn, reply, "chat.completion")
    return frame | {"choices": [choice], "usage": _chat_usage(turn, reply)}


def chat_stream(turn: Turn, reply: Reply, body: dict[str, Any]) -> Iterator[bytes]:
    frame = _chat_frame(turn, reply, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return _data(
            frame
            | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}
        )

    yield chunk({"role": "assistant", "content": ""})
    for piece in reply.pieces():
        yield chunk({"content": piece})
    if reply.breaks:
        yield _data(
            {"error": {"message": reply.error or "the stream broke", "type": "server_error"}}
        )
        return
    for index, call in enumerate(_chat_calls(turn, reply)):
        text = call["function"]["arguments"]
        opening = call | {"index": index, "function": {**call["function"], "arguments": ""}}
        yield chunk({"tool_calls": [opening]})
        for part in _halves(text):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    yield chunk({}, _chat_finish(reply))
    if (body.get("stream_options") or {}).get("include_usage"):
        yield _data(frame | {"choices": [], "usage": _chat_usage(turn, reply)})
    yield b"data: [DONE]\n\n"


def responses_turn(body: dict[str, Any], attempt: int) -> Turn:
    given = body.get("input") or []
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    number, results, by_model = 0, list[str](), False
    prompt, system = "", str(body.get("instructions") or "")
    for item in items:
        role, kind = item.get("role"), item.get("type", "message")
        now_by_model = role == "assistant" or kind in ("function_call", "reasoning")
        if now_by_model and not by_model:
            number, results = number + 1, []
        by_model = now_by_model
        if kind == "function_call_output":
            results.append(text_of(item.get("output")))
        elif role == "user":
            prompt = text_of(item.get("content"))
        elif role in ("system", "developer"):
            system += text_of(item.get("content"))
    return Turn(
        number=number,
        prompt=prompt,
        system=system,
        results=tuple(results),
        tools=tuple(t.get("name", "") for t in body.get("tools") or ()),
        model=str(body.get("model", "")),
        attempt=attempt,
        input_chars=sum(len(json.dumps(item)) for item in items) + len(system),
        digest=digest_of(body),
        schema=((body.get("text") or {}).get("format") or {}).get("schema"),
    )


def _output_items(turn: Turn, reply: Reply) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if reply.text:
        part = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
        items.append(
            {
                "id": f"msg_{turn.digest[:24]}",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [part],
            }
        )
    for index, call in enumerate(reply.calls):
        items.append(
            {
                "id": f"fc_{call_id(turn, index)}",
                "type": "function_call",
                "call_id": f"call_{call_id(turn, index)}",
                "name": call.tool,
                "arguments": arguments(call),
                "status": "completed",
            }
        )
    return items


def responses_body(turn: Turn, reply: Reply, status: str = "completed") -> dict[str, Any]:
    done = status == "completed"
    read, written = reply.tokens_in(turn), reply.tokens_out()
    usage = {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": reply.cached_tokens},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
        "total_tokens": read + written,
    }
    return {
        "id": f"resp_{turn.digest[:24]}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": turn.system or None,
        "metadata": {},
        "model": reply.model or turn.model,
        "output": _output_items(turn, reply) if done else [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage if done else None,
    }


def responses_stream(turn: Turn, reply: Reply, body: dict[str, Any]) -> Iterator[bytes]:
    del body  # nothing in the request changes how it is streamed
    number = -1

    def event(kind: str, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        return _event(kind, {"type": kind, "sequence_number": number} | fields)

    yield event("response.created", response=responses_body(turn, reply, "in_progress"))
    yield event("response.in_progress", response=responses_body(turn, reply, "in_progress"))
    for index, item in enumerate(_output_items(turn, reply)):
        at = {"output_index": index, "item_id": item["id"]}
        emptied: dict[str, Any] = (
            {"content": []} if item["type"] == "message" else {"arguments": ""}
        )
        opened = item | emptied | {"status": "in_progress"}
        yield event("response.output_item.added", output_index=index, item=opened)
        if item["type"] == "message":
            part = item["content"][0]
            where = at | {"content_index": 0}
            yield event("response.content_part.added", **where, part=part | {"text": ""})
            for piece in reply.pieces():
                yield event("response.output_text.delta", **where, delta=piece, logprobs=[])
            if reply.breaks:
                failed = responses_body(turn, reply, "failed")
                failed["error"] = {"code": "server_error", "message": reply.error or "it broke"}
                yield event("response.failed", response=failed)
                return
            yield event("response.output_text.done", **where, text=part["text"], logprobs=[])
            yield event("response.content_part.done", **where, part=part)
        else:
            for part in _halves(item["arguments"]):
                yield event("response.function_call_arguments.delta", **at, delta=part)
            yield event(
                "response.function_call_arguments.done",
                **at,
                name=item["name"],
                arguments=item["arguments"],
            )
        yield event("response.output_item.done", output_index=index, item=item)
    yield event("response.completed", response=responses_body(turn, reply))


def embeddings_body(body: dict[str, Any]) -> dict[str, Any]:
    """Vectors made from the text's hash: the same text, the same vector."""
    given = body.get("input") or []
    texts = [given] if isinstance(given, str) else given
    data = []
    for index, text in enumerate(texts):
        digest = bytes.fromhex(digest_of({"text": text}))[:EMBEDDING_DIMENSIONS]
        vector = [(byte - 127.5) / 127.5 for byte in digest]
        data.append({"object": "embedding", "index": index, "embedding": vector})
    read = max(1, sum(len(str(text)) for text in texts) // 4)
    usage = {"prompt_tokens": read, "total_tokens": read}
    return {"object": "list", "model": body.get("model", ""), "data": data, "usage": usage}


def error_body(reply: Reply) -> dict[str, Any]:
    kind = "rate_limit_exceeded" if reply.status == 429 else "server_error"
    message = reply.error or f"the script answers {reply.status}"
    return {"error": {"message": message, "type": kind, "param": None, "code": kind}}


def _halves(text: str) -> list[str]:
    middle = len(text) // 2
    return [part for part in (text[:middle], text[middle:]) if part]


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _event(kind: str, value: dict[str, Any]) -> bytes:
    return f"event: {kind}\n".encode() + _data(value)
