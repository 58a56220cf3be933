"""What an approval is bound to: one exact action of one agent under one version of its pact."""

import hashlib
from typing import Any

import msgspec

_DOMAIN = b"checkrein-action-v1\0"
_pack = msgspec.msgpack.Encoder(order="deterministic").encode


def digest_of(
    agent: str, kind: str, name: str, arguments: Any, pact: str = "", pact_version: str = ""
) -> str:
    """Lower-case hex SHA-256. `arguments` is plain data (`events.plain`); the order of keys does
    not count, everything else does: 1 is not 1.0, and "1" is neither. Raises TypeError when the
    arguments are not plain."""
    packed = _pack([agent, kind, name, pact, pact_version, arguments])
    return hashlib.sha256(_DOMAIN + packed).hexdigest()


def is_whole(value: Any) -> bool:
    """Whether plain data is all there: nothing in it was cut (`events.limits`)."""
    if type(value) is dict:
        if "cut" in value and ("original_length" in value or "object" in value):
            return False
        return all(is_whole(item) for item in value.values())
    if type(value) is list:
        return all(is_whole(item) for item in value)
    return True
