"""Values from an agent's code as plain bounded data, their hash, and what an event carries."""

import hashlib
from typing import Any, NamedTuple

import msgspec

from checkrein.events import limits
from checkrein.events.plain import plain as any_plain

_pack = msgspec.msgpack.Encoder().encode
_RAW_BYTES_MAX = 48 * 1024
"""Up to here a value goes into an event as it was encoded for its hash; larger ones go as data,
which the recorder can still cut."""


_FLAT_ITEMS_MAX = 64
_FLAT_CHARS_MAX = 16 * 1024
_INT_MAX = 2**63


class Packed(NamedTuple):
    """`plain` for guards, `field` for an event, `raw` for its hash: msgpack of the plain value."""

    plain: Any
    field: Any
    raw: bytes


def plain(value: Any) -> Any:
    """The value as bounded JSON-like data (`events.plain`), the ordinary case first: a small flat
    map comes back itself. Never raises an Exception."""
    if type(value) is dict and len(value) <= _FLAT_ITEMS_MAX and _is_flat(value):
        return value
    return any_plain(value)


def packed(value: Any) -> Packed:
    """Never raises an Exception, whatever the value is."""
    data = plain(value)
    raw = _pack(data)
    return Packed(data, msgspec.Raw(raw) if len(raw) <= _RAW_BYTES_MAX else data, raw)


def _is_flat(value: dict[Any, Any]) -> bool:
    chars_left = _FLAT_CHARS_MAX
    for key, item in value.items():
        kind = type(item)
        if kind is str:
            chars_left -= len(item)
            if not item.isascii() or chars_left < 0:
                return False
        elif kind is int:
            if not -_INT_MAX < item < _INT_MAX:
                return False
        elif kind is not bool and item is not None:
            return False
        if type(key) is not str or not key.isascii() or len(key) > 200:
            return False
    return True


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
