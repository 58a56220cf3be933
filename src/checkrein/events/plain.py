"""Any Python value as JSON-able data: what an agent passed to a tool, say.

`plain` never raises an Exception and ends for every value: cyclic, endless in depth, huge, not
finite, not UTF-8. It calls `model_dump` and `__repr__` of values it does not know; these are the
agent's own code and take the time they take.
"""

import base64
import dataclasses
import datetime
import decimal
import enum
import hashlib
import math
import os
import uuid
from collections import deque
from itertools import islice
from typing import Any

import msgspec

from checkrein.events.limits import (
    DEPTH_MAX,
    HASH_CHARS_MAX,
    ITEMS_MAX,
    KEY_CHARS_MAX,
    PAYLOAD_CHARS_MAX,
    TEXT_BYTES_MAX,
    clean_text,
    cut_text,
)

_READY_ITEMS_MAX = 2_000
_READY_CHARS_MAX = 16 * 1024
_REPR_CHARS_MAX = 2_000
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_AS_TEXT = (
    datetime.date, datetime.time, datetime.timedelta, uuid.UUID, decimal.Decimal, os.PathLike,
    complex, range,
)  # fmt: skip
_LISTS = (list, tuple, set, frozenset, deque)


def plain(
    value: Any,
    *,
    text_bytes_max: int = TEXT_BYTES_MAX,
    items_max: int = ITEMS_MAX,
    chars_max: int = PAYLOAD_CHARS_MAX,
) -> Any:
    """The value as None, bool, int (64 bits), finite float, str, list and dict with str keys.

    A value that is so already, and small, comes back itself and is not copied. Otherwise: tuples
    and sets become lists; dataclasses, msgspec structs and pydantic models maps; bytes
    `{"base64", "original_length"}`; NaN and infinities, dates, UUIDs, decimals, paths and larger
    integers text; what else there is `{"object": its type, "repr": its repr}`. A text over
    `text_bytes_max`, whatever is deeper than 32 levels, and what exceeds the items or characters
    of a payload is cut to `{"cut": …}` with its original length; a cycle is `{"cycle": type}`.
    """
    try:
        if _ready(value, 1, [_READY_ITEMS_MAX, min(_READY_CHARS_MAX, text_bytes_max)]):
            return value
    except Exception:  # noqa: S110 # changed by another thread while we looked: copy it instead
        pass
    try:
        return _Copy(text_bytes_max, items_max, chars_max).of(value, 0)
    except Exception as error:
        return {"object": _type_name(value), "unreadable": _type_name(error)}


def _ready(value: Any, depth: int, left: list[int]) -> bool:
    """Whether a value is plain as it stands, within the items and characters that are `left`."""
    kind = type(value)
    if kind is dict:
        items = value.values()
        for key in value:
            if type(key) is not str or not key.isascii() or len(key) > KEY_CHARS_MAX:
                return False
    elif kind is list:
        items = value
    else:
        items = (value,)
    left[0] -= len(items)
    if left[0] < 0 or depth > DEPTH_MAX:
        return False
    for item in items:
        kind = type(item)
        if kind is str:
            left[1] -= len(item)
            if left[1] < 0:
                return False
            if not item.isascii():
                item.encode()
        elif kind is int:
            if not _INT_MIN <= item <= _INT_MAX:
                return False
        elif kind is float:
            if item - item != 0.0:
                return False
        elif kind is dict or kind is list:
            if not _ready(item, depth + 1, left):
                return False
        elif kind is not bool and item is not None:
            return False
    return True


def _type_name(value: Any) -> str:
    kind = type(value)
    try:
        return clean_text(f"{kind.__module__}.{kind.__qualname__}")[:KEY_CHARS_MAX]
    except Exception:
        return "unknown"


class _Copy:
    """One copying walk, with what is left of its bounds."""

    def __init__(self, text_bytes_max: int, items_max: int, chars_max: int) -> None:
        self.text_bytes_max = text_bytes_max
        self.items = items_max
        self.chars = chars_max
        self.hash_chars = HASH_CHARS_MAX
        self.above: set[int] = set()

    def of(self, value: Any, depth: int) -> Any:
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, enum.Enum):
            return self.of(value.value, depth + 1) if depth < DEPTH_MAX else _cut(value)
        if isinstance(value, int):
            return self.integer(value)
        if isinstance(value, float):
            return _float(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return self.octets(value)
        if isinstance(value, type):
            return self.text(_type_name_of_class(value))
        return self.deeper(value, depth)

    def deeper(self, value: Any, depth: int) -> Any:
        """What has something inside, or is unknown."""
        if depth >= DEPTH_MAX or self.items <= 0:
            return _cut(value)
        if id(value) in self.above:
            return {"cycle": _type_name(value)}
        self.above.add(id(value))
        try:
            if isinstance(value, dict):
                return self.mapping(value, depth)
            if isinstance(value, _LISTS):
                return self.sequence(value, depth)
            fields = _fields_of(value)
            if fields is not None:
                return self.mapping(fields, depth)
            if isinstance(value, _AS_TEXT):
                return self.text(str(value))
            return self.unknown(value)
        except Exception as error:
            return {"object": _type_name(value), "unreadable": _type_name(error)}
        finally:
            self.above.discard(id(value))

    def text(self, value: str) -> Any:
        value = str.__str__(value)
        room = max(0, min(self.text_bytes_max, self.chars))
        result = cut_text(value, room, hash_chars_max=self.hash_chars)
        if len(value) > room:
            self.hash_chars = max(0, self.hash_chars - len(value))
        self.chars -= len(result if isinstance(result, str) else result["cut"])
        return result

    def integer(self, value: int) -> Any:
        if _INT_MIN <= value <= _INT_MAX:
            return int.__int__(value)
        # Decimal digits take quadratic time, hexadecimal ones do not.
        return self.text(int.__repr__(value) if value.bit_length() <= 4096 else hex(value))

    def octets(self, value: bytes | bytearray | memoryview) -> Any:
        view = memoryview(value)
        count = view.nbytes
        room = max(0, min(self.text_bytes_max, self.chars)) * 3 // 4
        if count <= room:
            text = base64.b64encode(view).decode()
            self.chars -= len(text)
            return {"base64": text, "original_length": count}
        whole = view.cast("B") if view.contiguous else memoryview(view.tobytes())
        text = base64.b64encode(whole[:room]).decode()
        self.chars -= len(text)
        result = {"cut": text, "encoding": "base64", "original_length": count}
        if count <= self.hash_chars:
            self.hash_chars -= count
            result["sha256"] = hashlib.sha256(whole).hexdigest()
        return result

    def mapping(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        # One step in C, so that another thread cannot change the map halfway.
        pairs = list(islice(dict.items(value), max(0, self.items) + 1))
        result: dict[str, Any] = {}
        for key, item in pairs:
            if self.items <= 0:
                result["…"] = {"cut": "", "original_length": len(value)}
                break
            self.items -= 1
            name = self.key(key)
            while name in result:
                name += "~"
            result[name] = self.of(item, depth + 1)
        return result

    def key(self, key: Any) -> str:
        if isinstance(key, str):
            name = str.__str__(key)
        elif key is None or key is True or key is False:
            name = {None: "null", True: "true", False: "false"}[key]
        elif isinstance(key, int | float):
            name = str(self.integer(key) if isinstance(key, int) else _float(key))
        else:
            name = _repr(key)
        name = clean_text(name[:KEY_CHARS_MAX])
        self.chars -= len(name)
        return name

    def sequence(self, value: Any, depth: int) -> list[Any]:
        result: list[Any] = []
        for item in list(islice(_items_of(value), max(0, self.items) + 1)):
            if self.items <= 0:
                result.append({"cut": "", "original_length": len(value)})
                break
            self.items -= 1
            result.append(self.of(item, depth + 1))
        return result

    def unknown(self, value: Any) -> dict[str, Any]:
        return {"object": _type_name(value), "repr": self.text(_repr(value))}


def _cut(value: Any) -> dict[str, Any]:
    return {"cut": "", "object": _type_name(value)}


def _float(value: float) -> float | str:
    value = float.__float__(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _repr(value: Any) -> str:
    """Its repr, cut; of an exception `Type: message`; the bare type when the repr itself fails."""
    try:
        text = repr(value)
    except Exception as error:
        return f"<{_type_name(value)} whose repr raises {_type_name(error)}>"
    if len(text) > _REPR_CHARS_MAX:
        return f"{text[:_REPR_CHARS_MAX]}… [{len(text)} characters]"
    return text


def _type_name_of_class(value: type) -> str:
    return (
        f"{type.__getattribute__(value, '__module__')}.{type.__getattribute__(value, '__name__')}"
    )


def _items_of(value: Any) -> Any:
    """The items of a list type by that type's own iteration, whatever a subclass made of it."""
    kind: Any = next(kind for kind in _LISTS if isinstance(value, kind))
    return kind.__iter__(value)


def _fields_of(value: Any) -> dict[str, Any] | None:
    """The fields of a dataclass, msgspec struct or pydantic model."""
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        return {f.name: getattr(value, f.name, None) for f in dataclasses.fields(kind)}
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name, None) for name in kind.__struct_fields__}
    dump = getattr(kind, "model_dump", None)
    if callable(dump):
        try:
            fields = dump(value, warnings=False)
        except TypeError:
            fields = dump(value)
        return fields if isinstance(fields, dict) else {"model": fields}
    return None
