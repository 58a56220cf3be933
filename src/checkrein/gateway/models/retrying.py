"""When an upstream is asked again, and how long is waited before. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

WAIT_S_MAX = 20.0
"""Whoever wants to wait longer is told what the provider said."""
_FIRST_S, _MOST_S = 0.5, 8.0


def is_worth_it(status: int, headers: Mapping[str, str]) -> bool:
    """Whether the same request may be answered when it is sent again: by the provider's own word,
    else by the status."""
    said = headers.get("x-should-retry", "").lower()
    if said in ("true", "false"):
        return said == "true"
    return status in (408, 409, 429) or status >= 500


def wait_s(attempt: int, headers: Mapping[str, str], now_ns: int, chance: float) -> float:
    """Before attempt 1, 2, …: as long as the provider says, else 0.5 s, 1 s, … up to 8 s, less up
    to a quarter by chance (0 to 1)."""
    said = _said_s(headers, now_ns)
    if said is not None:
        return said
    return float(min(_FIRST_S * 2 ** (attempt - 1), _MOST_S) * (1 - chance / 4))


def _said_s(headers: Mapping[str, str], now_ns: int) -> float | None:
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            found = float(headers[name]) * unit_s
        except (KeyError, ValueError):
            continue
        if found >= 0:
            return found
    try:
        at = parsedate_to_datetime(headers["retry-after"])
        now = datetime.fromtimestamp(now_ns / 1e9, UTC)
        return max(0.0, (at - now).total_seconds())
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
