"""What the pact's `redact` takes out of events, before anything is written down.

It happens in the agent's own process and thread, ahead of the recorder: neither the ring on disk,
nor the bus, nor the store ever holds what was taken out. Only what is recorded changes; the call
itself goes out as the agent made it. A redaction that fails takes the whole value out.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from checkrein.policy.types import Redaction
from checkrein.sdk import quiet

if TYPE_CHECKING:
    from checkrein.policy.redact import Names

Redact = Callable[[dict[str, Any]], dict[str, Any]]

_KEPT = frozenset({
    "kind", "status", "provider", "pact", "pact_version", "rule",
    "guard", "verdict", "advice", "approval_id", "escalation_id", "action_hash", "value_hash",
    "result_hash", "context_hash", "state_hash", "image_hash", "parent_run_id", "to_run_id",
    "framework", "agent_version", "host", "user", "decision", "level", "signal", "lost_recorder",
})  # fmt: skip
"""Names and numbers of our own: nothing that an agent's data, or a model's, can stand in."""
_IDS = frozenset({"call_id"})
"""Whoever calls may give them, so there can be a secret in one; but no row of digits in an id is a
phone number, and equal ids must stay equal."""
_names: "Names | None" = None


def use_names(names: "Names | None") -> None:
    """For this process: also takes out the names of persons that this finds."""
    global _names
    _names = names
    _redact_of.cache_clear()


_unpacked = msgspec.msgpack.Decoder()


def redact_of(kinds: Sequence[Redaction]) -> Redact | None:
    """What redacts an event's fields by a pact's `redact`; None when it has none."""
    return _redact_of(tuple(kinds)) if kinds else None


@lru_cache(maxsize=16)
def _redact_of(kinds: tuple[Redaction, ...]) -> Redact:
    from checkrein.policy.redact import compile_redaction

    redactor = compile_redaction(kinds, names=_names)
    secrets = compile_redaction([kind for kind in kinds if kind == "secrets"])

    def redact(fields: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value if name in _KEPT or value is None or isinstance(value, int | float)
            else _clean(secrets if name in _IDS else redactor, name, value)
            for name, value in fields.items()
        }  # fmt: skip

    return redact


def _clean(redactor: Any, name: str, value: Any) -> Any:
    try:
        if isinstance(value, msgspec.Raw):
            value = _unpacked.decode(value)
        # Its own name counts: a field called `password` is one, whatever stands in it.
        return redactor.plain({name: value})[name]
    except Exception as error:
        quiet.fault(f"redacting {name}", error)
        return "[redacted:failed]" if isinstance(value, str) else None
