"""Values from an agent's code as plain bounded data, their hash, and what an event carries."""

import hashlib
from typing import Any, NamedTuple

import msgspec

from checkrein.events import limits
from checkrein.events.plain import plain

_pack = msgspec.msgpack.Encoder().encode
_RAW_BYTES_MAX = 48 * 1024
"""Up to here a value goes into an event as it was encoded for its hash; larger ones go as data,
which the recorder can still cut."""


class Packed(NamedTuple):
    """`plain` for guards, `field` for an event, `raw` for its hash: msgpack of the plain value."""

    plain: Any
    field: Any
    raw: bytes


def packed(value: Any) -> Packed:
    """Never raises an Exception, whatever the value is."""
    data = plain(value)
    raw = _pack(data)
    return Packed(data, msgspec.Raw(raw) if len(raw) <= _RAW_BYTES_MAX else data, raw)


def hash_of(raw: bytes) -> str:
    """Lower-case hex SHA-256."""
    return hashlib.sha256(raw).hexdigest()


def clean_text(value: Any, chars_max: int = limits.TEXT_BYTES_MAX) -> str:
    """A text that UTF-8 can carry, cut at `chars_max` bytes with a note of what is missing; what is
    no text is described. Never raises an Exception."""
    if type(value) is not str:
        try:
            value = str(value)
        except Exception as error:
            return f"[unreadable {type(value).__name__}: {type(error).__name__}]"
    return limits.cut_string(value, chars_max)


__all__ = ["Packed", "clean_text", "hash_of", "packed", "plain"]
