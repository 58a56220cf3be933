"""What a scripted model is asked and what it answers, without any protocol.

A script is a pure function from a `Turn` (what the conversation holds so far) to a `Reply`. The
same conversation always gets the same reply, so a whole agent's run against it can be repeated.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

CHARS_PER_TOKEN = 4


@dataclass(frozen=True)
class Turn:
    """One request, told alike for all protocols.

    `number` counts the model's earlier answers in this conversation. `results` are the texts of the
    tool results since the last of them. `attempt` is 0, or n for its n-th retry.
    """

    number: int
    prompt: str
    system: str
    results: tuple[str, ...]
    tools: tuple[str, ...]
    model: str
    attempt: int
    input_chars: int
    digest: str
    schema: dict[str, Any] | None = None


@dataclass(frozen=True)
class Call:
    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """What the model says. Token counts left at None are counted from the characters.

    `status` other than 200 answers with that HTTP error; `breaks` ends a stream in its middle with
    an error event; `latency_s` passes before the first byte, `pace_s` between pieces of a stream.
    """

    text: str = ""
    calls: tuple[Call, ...] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    finish: str = ""
    model: str = ""
    status: int = 200
    error: str = ""
    retry_after_s: float | None = None
    breaks: bool = False
    latency_s: float | None = None
    pace_s: float = 0.0

    def tokens_in(self, turn: Turn) -> int:
        return self.input_tokens if self.input_tokens is not None else _tokens(turn.input_chars)

    def tokens_out(self) -> int:
        if self.output_tokens is not None:
            return self.output_tokens
        chars = len(self.text) + sum(len(call.tool) + len(arguments(call)) for call in self.calls)
        return _tokens(chars) + self.reasoning_tokens

    def pieces(self) -> list[str]:
        """The text as a stream sends it: word by word."""
        words = self.text.split(" ")
        return [word if i == 0 else f" {word}" for i, word in enumerate(words)] if self.text else []


Script = Callable[[Turn], Reply]


def arguments(call: Call) -> str:
    return json.dumps(call.arguments)


def call_id(turn: Turn, index: int) -> str:
    """Names a tool call: the same in a repeated run, different within a conversation."""
    return f"{turn.digest[:16]}{index:02d}"


def digest_of(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or a list of parts that may be nested."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(text for part in content if (text := text_of(part)))
    if isinstance(content, dict):
        for key in ("text", "content", "output"):
            if key in content:
                return text_of(content[key])
    return ""


def _tokens(chars: int) -> int:
    return max(1, -(-chars // CHARS_PER_TOKEN))
