"""What the pact's `redact` takes out of events, before anything is written down.

It happens in the agent's own process and thread, ahead of the recorder: neither the ring on disk,
nor the bus, nor the store ever holds what was taken out. Only what is recorded changes; the call
itself goes out as the agent made it. A redaction that fails takes the whole value out.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from checkrein.policy.types import Redaction
from checkrein.sdk import quiet

Redact = Callable[[dict[str, Any]], dict[str, Any]]

_KEPT = frozenset({
    "call_id", "tool", "kind", "status", "model", "provider", "pact", "pact_version", "rule",
    "guard", "verdict", "advice", "approval_id", "escalation_id", "action_hash", "value_hash",
    "result_hash", "context_hash", "state_hash", "image_hash", "parent_run_id", "to_run_id",
    "framework", "agent_version", "host", "user", "decision", "level", "finish_reason",
    "fingerprint", "signal", "lost_recorder", "in_flight", "tools", "task_type",
})  # fmt: skip
"""Names and numbers of our own, and of providers: nothing that an agent's data can stand in."""

_unpacked = msgspec.msgpack.Decoder()


def redact_of(kinds: Sequence[Redaction]) -> Redact | None:
    """What redacts an event's fields by a pact's `redact`; None when it has none."""
    return _redact_of(tuple(kinds)) if kinds else None


@lru_cache(maxsize=16)
def _redact_of(kinds: tuple[Redaction, ...]) -> Redact:
    from checkrein.policy.redact import compile_redaction

    redactor = compile_redaction(kinds)

    def redact(fields: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value if name in _KEPT or value is None or isinstance(value, int | float)
            else _clean(redactor, name, value)
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
