"""An event's fields brought within the bounds of an event, or down to its facts.

Payloads are what may be large: texts and values that came from the agent, a tool or a model. Facts
are the rest: names, numbers, hashes, verdicts. Facts are never given up before payloads.
"""

import functools
import hashlib
import typing
from typing import Any

import msgspec

from checkrein.events.limits import EVENT_BYTES_MAX, TEXT_BYTES_MAX, cut_string
from checkrein.events.plain import plain
from checkrein.events.types import Base

PAYLOADS = frozenset({
    "action", "arguments", "content", "detail", "messages", "parameters", "payload", "result",
    "state", "text", "tool_calls", "value",
})  # fmt: skip
_FACT_ITEMS_MAX = 256
_FACT_BYTES_MAX = 1024
_LADDER = (TEXT_BYTES_MAX, 16_384, 4_096, 1_024, 256, 0)
_COMMON_BYTES_MAX = 8 * 1024

_encode = msgspec.msgpack.Encoder().encode


@functools.cache
def _form(kind: type[Base], name: str) -> str:
    """What a field must stay: `any`, `text`, `map`, `maps`, `list`, `texts`, `number`."""
    annotation = typing.get_type_hints(kind).get(name, Any)
    origin = typing.get_origin(annotation)
    if annotation is Any:
        return "any"
    if annotation is str:
        return "text"
    if origin is dict:
        return "texts" if typing.get_args(annotation)[1] is str else "map"
    if origin is list:
        item = typing.get_args(annotation)[0]
        return "list" if item is str else "maps" if typing.get_origin(item) is dict else "pairs"
    return "number"


def fitted(kind: type[Base], fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as plain data of the types that the event's fields have, texts cut to 64 KiB, the
    whole within 256 KiB: while it is larger, its largest field is cut further and says so.

    A number that is none is left out, so that the event's default stands for it.
    """
    result: dict[str, Any] = {}
    for name, value in fields.items():
        fit = _fit(_form(kind, name), value, 0)
        if fit is not None or value is None:
            result[name] = fit
    sizes = {name: len(_encode(value)) for name, value in result.items()}
    rungs = dict.fromkeys(result, 0)
    while sum(sizes.values()) > EVENT_BYTES_MAX - _COMMON_BYTES_MAX:
        name = max(sizes, key=lambda name: sizes[name] if rungs[name] < len(_LADDER) - 1 else -1)
        if rungs[name] >= len(_LADDER) - 1:
            break
        rungs[name] += 1
        result[name] = _fit(_form(kind, name), fields[name], rungs[name])
        sizes[name] = len(_encode(result[name]))
    return result


def facts(kind: type[Base], fields: dict[str, Any], why: str) -> dict[str, Any]:
    """The fields with every payload left out; what stood there is `{"cut": "", "why": why}`."""
    result: dict[str, Any] = {}
    for name, value in fields.items():
        form = _form(kind, name)
        if name not in PAYLOADS or not value:
            fit = _fit(form, value, 3)
            if fit is not None or value is None:
                result[name] = fit
        elif form in ("any", "map"):
            kept = _action(value) if name == "action" and isinstance(value, dict) else {}
            result[name] = kept | {"cut": "", "why": why}
        elif form == "text":
            result[name] = f"[left out: {why}]"
        elif form == "maps":
            result[name] = [{"cut": "", "why": why}]
    return result


def _action(action: dict[str, Any]) -> dict[str, Any]:
    """What an action was, without what it was given."""
    return {
        name: cut_string(str(action[name]), _FACT_BYTES_MAX)
        for name in ("kind", "name")
        if name in action
    }


def _fit(form: str, value: Any, rung: int) -> Any:
    """A value in its field's form, cut as that rung of the ladder says. None: it has no such form.

    On the last rung nothing is left but its length and hash."""
    text_bytes_max = _LADDER[rung]
    if isinstance(value, msgspec.Raw):  # encoded already, for its hash
        value = msgspec.msgpack.decode(value)
    if form == "number":
        value = plain(value)
        return value if isinstance(value, bool | int | float | str) or value is None else None
    if form == "text":
        return cut_string(value if isinstance(value, str) else str(plain(value)), text_bytes_max)
    items_max = (20_000, 20_000, 5_000, 1_000, 100, 0)[rung]
    copy = plain(
        value,
        text_bytes_max=text_bytes_max,
        items_max=items_max,
        chars_max=min(1024 * 1024, text_bytes_max * 16),
    )
    if form == "any":
        return copy if rung < len(_LADDER) - 1 else _gone(value)
    if form in ("map", "texts"):
        copy = copy if isinstance(copy, dict) else {"value": copy}
        copy = copy if rung < len(_LADDER) - 1 else _gone(value)
        if form == "map":
            return copy
        return {
            name: item if isinstance(item, str) else cut_string(str(item), _FACT_BYTES_MAX)
            for name, item in copy.items()
        }
    items = copy if isinstance(copy, list) else [copy]
    if form == "maps":
        items = [item if isinstance(item, dict) else {"value": item} for item in items]
        return items if rung < len(_LADDER) - 1 else [_gone(value)]
    if form == "list":
        return [cut_string(str(item), _FACT_BYTES_MAX) for item in items[: _FACT_ITEMS_MAX >> rung]]
    return items[: _FACT_ITEMS_MAX >> rung]


def _gone(value: Any) -> dict[str, Any]:
    """All that is said of a value for which there is no room at all."""
    whole = _encode(plain(value))
    return {
        "cut": "",
        "original_length": len(whole),
        "sha256": hashlib.sha256(whole).hexdigest(),
    }
