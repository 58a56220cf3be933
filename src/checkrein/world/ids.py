"""Forms of ids: making them from time and chance, and recognising them."""

import re

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_TRACE = re.compile(r"(?!0{32})[0-9a-f]{32}")


def uuid7_from(time_ms: int, chance: bytes) -> str:
    """UUIDv7 of RFC 9562 section 5.7: 48 bits of milliseconds, then 74 of the `chance` bytes."""
    high = (time_ms & 0xFFFF_FFFF_FFFF).to_bytes(6, "big")
    body = bytearray(high + chance[:10])
    body[6] = (body[6] & 0x0F) | 0x70
    body[8] = (body[8] & 0x3F) | 0x80
    text = body.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def uuid7_time_ms(value: str) -> int:
    """The milliseconds since 1970 that a UUIDv7 carries."""
    return int(value[:8] + value[9:13], 16)


def is_uuid7(value: str) -> bool:
    return _UUID7.fullmatch(value) is not None


def is_trace_id(value: str) -> bool:
    return _TRACE.fullmatch(value) is not None
