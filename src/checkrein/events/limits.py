"""Bounds of an event, and how a text over its bound is cut: at its head, and saying so.

A cut text stands as a map `{"cut": head, "original_length": characters, "sha256": of the whole}`
inside payloads, and as a text ending in a line that says the same where a field must be text.
"""

import hashlib
from typing import Any

EVENT_BYTES_MAX = 256 * 1024
TEXT_BYTES_MAX = 64 * 1024
KEY_CHARS_MAX = 1024
DEPTH_MAX = 32
ITEMS_MAX = 20_000
"""Values in one payload, over all its levels."""
PAYLOAD_CHARS_MAX = 1024 * 1024
"""Characters in one payload, over all its texts."""
HASH_CHARS_MAX = 16 * 1024 * 1024
"""Characters hashed in one payload; what is beyond is cut without its hash, which would hold the
agent up for too long."""


def clean_text(text: str) -> str:
    """The text as it can be written in UTF-8: a lone surrogate becomes its escape, `\\udc80`."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def fits(text: str, bytes_max: int) -> bool:
    """Whether a text takes at most `bytes_max` bytes of UTF-8. It must be clean."""
    length = len(text)
    if length * 4 <= bytes_max or (length <= bytes_max and text.isascii()):
        return True
    return length <= bytes_max and len(text.encode()) <= bytes_max


def head(text: str, bytes_max: int) -> str:
    """The longest beginning of a text within `bytes_max` bytes of UTF-8."""
    return text[:bytes_max].encode("utf-8", "replace")[:bytes_max].decode("utf-8", "ignore")


def cut_text(
    text: str, bytes_max: int = TEXT_BYTES_MAX, *, hash_chars_max: int = HASH_CHARS_MAX
) -> str | dict[str, Any]:
    """The clean text, or its cut form when it takes more than `bytes_max` bytes; without its hash
    when it is longer than `hash_chars_max`."""
    looked_at = len(text) <= max(bytes_max, hash_chars_max)
    if looked_at:
        text = clean_text(text)
        if fits(text, bytes_max):
            return text
    cut: dict[str, Any] = {
        "cut": clean_text(head(text, bytes_max)),
        "original_length": len(text),
    }
    if looked_at:
        cut["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return cut


def cut_string(text: str, bytes_max: int = TEXT_BYTES_MAX) -> str:
    """As `cut_text`, for a field that must stay text."""
    cut = cut_text(text, bytes_max)
    if isinstance(cut, str):
        return cut
    return f"{cut['cut']}\n[cut: {cut['original_length']} characters, sha256 {cut.get('sha256')}]"
