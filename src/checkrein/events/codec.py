"""Events to bytes and back: msgpack inside, JSON at the edge, canonical bytes for hashing.

Reading never loses anything: `fields_of` gives every field of an event as a plain map, known or
not, and `decode` gives the typed event, or `Unknown` for a type this version does not know.
"""

from typing import Any

import msgspec

from checkrein.events.types import COMMON, TYPES, Base, Event

_PACK = msgspec.msgpack.Encoder()
_PACK_SORTED = msgspec.msgpack.Encoder(order="deterministic")
_JSON = msgspec.json.Encoder()
_TYPED = msgspec.msgpack.Decoder(Event)
_PLAIN = msgspec.msgpack.Decoder(dict[str, Any])

_COMMON_TYPES: dict[str, type] = {
    "recorder": str, "seq": int, "ts": int, "environment": str, "room": str, "agent": str,
    "run_id": str, "task_id": str, "step": int, "type": str,
}  # fmt: skip


class EventError(ValueError):
    """Bytes or a map that are not an event. The message names the field and what is wrong."""


class Unknown(msgspec.Struct, frozen=True):
    """An event of a type that this version does not know: kept whole, shown as it is."""

    type: str
    fields: dict[str, Any]


def encode(event: Base) -> bytes:
    """msgpack, fields in the order of the type."""
    return _PACK.encode(event)


def canonical(event: Base | dict[str, Any]) -> bytes:
    """The one form of an event for hashing: msgpack with sorted keys, defaults left out."""
    fields = event if isinstance(event, dict) else fields_of(_PACK.encode(event))
    return _PACK_SORTED.encode(fields)


def to_json(event: Base | Unknown | dict[str, Any]) -> bytes:
    return _JSON.encode(event.fields if isinstance(event, Unknown) else event)


def fields_of(raw: bytes | msgspec.Raw) -> dict[str, Any]:
    """Every field of an event, unknown ones included. Raises EventError unless the common fields
    are there with their types."""
    try:
        fields = _PLAIN.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(f"not a msgpack map: {error}") from error
    check_common(fields)
    return fields


def check_common(fields: dict[str, Any]) -> None:
    """Raises EventError naming the first common field that is missing or of a wrong type."""
    for name, kind in _COMMON_TYPES.items():
        value = fields.get(name)
        if type(value) is not kind:
            got = "missing" if value is None else f"{type(value).__name__}, not {kind.__name__}"
            raise EventError(f"field `{name}` is {got}")


def decode(raw: bytes | msgspec.Raw) -> Event | Unknown:
    """The typed event, or Unknown for a type of another version. Raises EventError.

    A known type with a field of a wrong type is an error; unknown fields of a known type are passed
    over here (use `fields_of` where they matter).
    """
    try:
        event: Event = _TYPED.decode(raw)
        return event
    except msgspec.ValidationError as error:
        fields = fields_of(raw)
        if fields["type"] in TYPES:
            raise EventError(f"{fields['type']}: {error}") from error
        return Unknown(fields["type"], fields)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(f"not an event: {error}") from error


def from_fields(fields: dict[str, Any]) -> Event | Unknown:
    """A plain map (from JSON, say) as an event. Raises EventError."""
    return decode(_PACK.encode(fields))


def own_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """What is left of an event without the common fields."""
    return {name: value for name, value in fields.items() if name not in COMMON}
