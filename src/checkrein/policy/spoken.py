"""What the user and the system say to a model, out of the messages of a model call.

Messages come as providers' APIs have them: maps with `role` and `content`, the content a text or a
list of parts. Only texts of the system, the developer and the user are taken; what stands in a
user's message as a tool's result is the tool's, and already known.
"""

from collections.abc import Iterator, Mapping
from typing import Any

ROLES = frozenset({"system", "developer", "user"})
_TEXT_PARTS = frozenset({"text", "input_text"})
MESSAGES_MAX = 2000


def spoken(messages: Any) -> Iterator[tuple[str, str]]:
    """(role, text) of what the system, the developer and the user said."""
    if isinstance(messages, str):
        yield "user", messages
        return
    if isinstance(messages, Mapping):
        if "messages" in messages:
            yield from spoken(messages["messages"])
            if isinstance(messages.get("system"), str):
                yield "system", messages["system"]
            return
        messages = [messages]
    if not isinstance(messages, list | tuple):
        return
    for message in messages[-MESSAGES_MAX:]:
        role = _field(message, "role")
        if role not in ROLES:
            continue
        content = _field(message, "content")
        if isinstance(content, str):
            yield role, content
        elif isinstance(content, list | tuple):
            for part in content:
                text = _field(part, "text")
                if _field(part, "type") in _TEXT_PARTS and isinstance(text, str):
                    yield role, text


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
