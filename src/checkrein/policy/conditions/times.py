"""Timestamps and durations as conditions have them: whole nanoseconds, in CEL's ranges."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import total_ordering
from typing import Final

import msgspec

_SECOND = 10**9
_UNITS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6,
    "s": _SECOND, "m": 60 * _SECOND, "h": 3600 * _SECOND,
}  # fmt: skip
_DURATION = re.compile(r"([+-]?)((?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+|0)")
_PART = re.compile(r"([0-9]*)\.?([0-9]*)(ns|us|µs|μs|ms|s|m|h)")
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST_NS = -62_135_596_800 * _SECOND
_MOST_NS = 253_402_300_799 * _SECOND + _SECOND - 1
_DURATION_NS_MAX = 2**63 - 1
_CHARS_MAX = 100


@total_ordering
class Timestamp(msgspec.Struct, frozen=True):
    """A moment, `ns` since 1970 in UTC."""

    ns: int

    def __lt__(self, other: "Timestamp") -> bool:
        return self.ns < other.ns


@total_ordering
class Duration(msgspec.Struct, frozen=True):
    ns: int

    def __lt__(self, other: "Duration") -> bool:
        return self.ns < other.ns


def timestamp(ns: int) -> Timestamp:
    """Raises ValueError outside the years 1 to 9999."""
    if not _LEAST_NS <= ns <= _MOST_NS:
        raise ValueError("a timestamp outside the years 1 to 9999")
    return Timestamp(ns)


def duration(ns: int) -> Duration:
    """Raises ValueError when longer than about 292 years."""
    if not -_DURATION_NS_MAX <= ns <= _DURATION_NS_MAX:
        raise ValueError("a duration of more than 292 years")
    return Duration(ns)


def read_timestamp(text: str) -> Timestamp:
    """RFC 3339: `2026-01-31T12:00:00Z`. Raises ValueError."""
    found = _TIMESTAMP.fullmatch(text[:_CHARS_MAX])
    if not found:
        raise ValueError(f"{text[:40]!r} is no timestamp: write 2026-01-31T12:00:00Z")
    zone = "+00:00" if found[3] in "Zz" else found[3]
    since = datetime.fromisoformat(found[1].upper() + zone) - _EPOCH
    seconds = since.days * 86_400 + since.seconds
    return timestamp(seconds * _SECOND + int((found[2] or "0").ljust(9, "0")))


def read_duration(text: str) -> Duration:
    """`90s`, `1h30m`, `-1.5s`, as Go writes them. Raises ValueError."""
    found = _DURATION.fullmatch(text[:_CHARS_MAX])
    if not found or len(text) > _CHARS_MAX:
        raise ValueError(f"{text[:40]!r} is no duration: write 90s or 1h30m")
    ns = 0
    for whole, part, unit in _PART.findall(found[2]):
        size = _UNITS[unit]
        ns += int(whole or "0") * size + int(part or "0") * size // 10 ** len(part)
    return duration(-ns if found[1] == "-" else ns)


def timestamp_text(moment: Timestamp) -> str:
    seconds, ns = divmod(moment.ns, _SECOND)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    return f"{text}{_fraction(ns)}Z"


def duration_text(span: Duration) -> str:
    """In seconds: `90s`, `-1.5s`."""
    seconds, ns = divmod(abs(span.ns), _SECOND)
    return f"{'-' if span.ns < 0 else ''}{seconds}{_fraction(ns)}s"


def _fraction(ns: int) -> str:
    return f".{ns:09d}".rstrip("0") if ns else ""


def _at(moment: Timestamp) -> datetime:
    return _EPOCH + timedelta(seconds=moment.ns // _SECOND)


PARTS: Final[dict[str, Callable[[Timestamp], int]]] = {
    "getFullYear": lambda at: _at(at).year,
    "getMonth": lambda at: _at(at).month - 1,
    "getDate": lambda at: _at(at).day,
    "getDayOfMonth": lambda at: _at(at).day - 1,
    "getDayOfWeek": lambda at: (_at(at).weekday() + 1) % 7,
    "getDayOfYear": lambda at: _at(at).timetuple().tm_yday - 1,
    "getHours": lambda at: _at(at).hour,
    "getMinutes": lambda at: _at(at).minute,
    "getSeconds": lambda at: _at(at).second,
}
"""Parts of a moment in UTC. As in CEL, months, days of the month (but for `getDate`) and days of
the year count from 0, and Sunday is day 0 of the week."""
