"""Quantities as people write them in a pact: `5s`, `10m`, `2h`, `60%`, `3 in 90s`."""

import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_DURATIONS = re.compile(r"\s*(?:\d+(?:\.\d+)?\s*(?:ms|s|m|h|d)\s*)+")
_WHOLE = re.compile(r"\+?\d+(?:_\d+)*")
_NUMBER = re.compile(r"\+?\d+(?:_\d+)*(?:\.\d+)?")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_COUNT_IN = re.compile(r"(\d+)\s+in\s+(\S.*)")

DURATION_S_MAX = 366 * 86400.0
COUNT_MAX = 10**12
_DIGITS_MAX = 40


class UnitError(ValueError):
    """Text that is not the quantity it should be; the message says which forms are."""


def duration_s(text: str) -> float:
    """`500ms`, `5s`, `10m`, `1h 30m`, `2d` as seconds. Raises UnitError."""
    if not _DURATIONS.fullmatch(text):
        raise UnitError(f"{text!r} is not a duration: write 500ms, 5s, 10m, 2h or 1d")
    seconds = sum(float(n) * _SECONDS[unit] for n, unit in _DURATION.findall(text))
    if not 0 < seconds <= DURATION_S_MAX:
        raise UnitError(f"{text!r} is outside what a duration may be (above zero, up to 366d)")
    return seconds


def fraction(text: str) -> float:
    """`60%` or `0.6` as 0.6. Raises UnitError unless above 0 and at most 1."""
    percent = _PERCENT.fullmatch(text)
    if percent:
        value = float(percent[1]) / 100
    elif _NUMBER.fullmatch(text):
        value = float(text)
    else:
        raise UnitError(f"{text!r} is not a share: write 60% or 0.6")
    if not 0 < value <= 1:
        raise UnitError(f"{text!r} is outside what a share may be (above 0%, up to 100%)")
    return value


def whole(text: str, least: int = 1) -> int:
    """A whole number of at least `least`. Raises UnitError."""
    if not _WHOLE.fullmatch(text):
        raise UnitError(f"{text!r} is not a whole number")
    if len(text) > _DIGITS_MAX:  # Python refuses to read thousands of digits
        raise UnitError(f"{text[:_DIGITS_MAX]!r}… is out of range: from {least} to {COUNT_MAX}")
    value = int(text)
    if not least <= value <= COUNT_MAX:
        raise UnitError(f"{text!r} is out of range: from {least} to {COUNT_MAX}")
    return value


def money(text: str) -> float:
    """US dollars, above zero. Raises UnitError."""
    if not _NUMBER.fullmatch(text):
        raise UnitError(f"{text!r} is not an amount of US dollars: write 2.00")
    value = float(text)
    if not 0 < value <= COUNT_MAX:
        raise UnitError(f"{text!r} is out of range for an amount: above 0")
    return value


def multiple(text: str) -> float:
    """`3x` or `3` as 3.0. Raises UnitError unless above 1."""
    number = text.removesuffix("x").strip()
    if not _NUMBER.fullmatch(number):
        raise UnitError(f"{text!r} is not a multiple: write 3x")
    value = float(number)
    if not 1 < value <= COUNT_MAX:
        raise UnitError(f"{text!r} is out of range for a multiple: above 1x")
    return value


def count_in(text: str) -> tuple[int, float | None]:
    """`3 in 90s` as (3, 90.0), `3` as (3, None). Raises UnitError."""
    match = _COUNT_IN.fullmatch(text)
    if match:
        return whole(match[1]), duration_s(match[2])
    return whole(text), None


def duration_text(seconds: float) -> str:
    """The shortest of these forms, for messages."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:.3g}s" if seconds < 100 else f"{seconds:.0f}s"
