"""The limits of what can be stored, and what to say of an event that is over one."""

from typing import Any

import msgspec

from checkrein.events.limits import DEPTH_MAX
from checkrein.store import texts
from checkrein.store.types import RowRefused

BODY_BYTES_MAX = 256 * 1024
"""An event's limit after its long texts were taken out."""
NEST_MAX = DEPTH_MAX + 8
"""The deepest payload, with what is around it in its event and what says that it was cut."""
NAME_CHARS_MAX = 256

NOT_JSON = (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError, OverflowError)
"""What encoding raises for values that JSON cannot say."""

_JSON = msgspec.json.Encoder()


def objection(fields: dict[str, Any]) -> str:
    """Why this event cannot be stored ("": it can): one of the stated limits, with its place.
    Expects the common fields with their types."""
    for name in ("recorder", "environment", "room", "agent", "run_id", "task_id", "type"):
        if len(fields[name]) > NAME_CHARS_MAX:
            return f"field `{name}` has {len(fields[name])} characters, {NAME_CHARS_MAX} at most"
    if not 1 <= fields["seq"] < 2**62:
        return f"field `seq` is {fields['seq']}, not from 1 to 2**62 - 1"
    if not 0 <= fields["ts"] < 2**63:
        return f"field `ts` is {fields['ts']}, not from 0 to 2**63 - 1"
    if not 0 <= fields["step"] < 2**31:
        return f"field `step` is {fields['step']}, not from 0 to 2**31 - 1"
    return ""


def objection_to_body(fields: dict[str, Any], raw_bytes: int) -> str:
    """The same for size and depth. Quick for what cannot be over: a short or flat event."""
    if raw_bytes <= NEST_MAX:
        return ""
    depth = texts.depth_of(fields, NEST_MAX)
    if depth > NEST_MAX:
        return f"maps and lists nested deeper than {NEST_MAX}"
    if raw_bytes > BODY_BYTES_MAX:
        left = len(_JSON.encode(texts.lift(fields, lambda key, text: None)))
        if left > BODY_BYTES_MAX:
            return f"{left} bytes after taking out long texts, {BODY_BYTES_MAX} at most"
    return ""


def refusal(fields: dict[str, Any], why: str) -> RowRefused:
    return RowRefused(fields["agent"], fields["recorder"], fields["seq"], why)
