"""A provider's requests and answers, read into what our events carry. Pure.

Answers come as the client's own objects or as parsed JSON; `get` reads both.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

CHARS_PER_TOKEN = 4


@dataclass
class Request:
    provider: str
    model: str
    messages: Any
    parameters: dict[str, Any]
    tools: tuple[str, ...]
    stream: bool


@dataclass
class Answer:
    """What a model answered. Token counts stay None where the provider did not say them."""

    content: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    model: str = ""
    fingerprint: str = ""
    reasoning: str = ""


class Gathering(Protocol):
    """The pieces of one streamed answer, as they come."""

    def item(self, item: Any) -> bool:
        """Takes one piece; True if it carries something the model said."""

    def answer(self) -> Answer:
        """What has come so far."""


class Endpoint(Protocol):
    """One endpoint of a provider."""

    def request(self, body: Mapping[str, Any]) -> Request: ...
    def answer(self, result: Any) -> Answer: ...
    def gathering(self) -> Gathering: ...
    def direct(self, body: dict[str, Any], directives: Sequence[str]) -> dict[str, Any]:
        """The request with the operator's directives put before the model."""


def get(value: Any, key: str, default: Any = None) -> Any:
    """A field of a JSON object or of a client's model; `default` also where it is None."""
    found = value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)
    return default if found is None else found


def parsed(arguments: Any) -> Any:
    """A tool call's arguments as a value, or as the text the model wrote if that is not JSON."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments) if arguments else {}
    except ValueError:
        return arguments


def estimated(request: Request | None, answer: Answer) -> tuple[int, int]:
    """The tokens read and written. A stream may end without saying them; then they are counted from
    the characters, since a missing count must not pass for none."""
    read, written = answer.input_tokens, answer.output_tokens
    if read is None:
        read = 0 if request is None else _tokens(_chars(request.messages))
    if written is None:
        written = _tokens(len(answer.content) + len(answer.reasoning) + _chars(answer.tool_calls))
    return read, written


def _tokens(chars: int) -> int:
    return -(-chars // CHARS_PER_TOKEN)


def _chars(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_chars(part) for part in value.values())
    if isinstance(value, list | tuple):
        return sum(_chars(part) for part in value)
    return 0
