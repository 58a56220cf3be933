"""Numbers and names as people read them."""

from collections.abc import Iterable

RUN_CHARS = 13
"""The first part of a UUIDv7 that tells runs apart which did not begin in the same millisecond."""


def duration(seconds: float) -> str:
    """`340 ms`, `1.2 s`, `3 m 05 s`, `2 h 10 m`, `4 d`."""
    if seconds < 0.0005:
        return "0 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 2 * 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d"


def count(value: int) -> str:
    """`950`, `12.3k`, `4.5M`."""
    if value < 10_000:
        return str(value)
    if value < 1_000_000:
        return f"{value / 1000:.1f}k"
    return f"{value / 1_000_000:.1f}M"


def money(usd: float | None) -> str:
    """`?` when no price is known; never less than it was."""
    if usd is None:
        return "?"
    if usd == 0:
        return "0"
    return f"{usd:.4f}" if usd < 0.1 else f"{usd:.2f}"


def size(count_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count_bytes < 1024 or unit == "GiB":
            return f"{count_bytes:.0f} {unit}" if unit == "B" else f"{count_bytes:.1f} {unit}"
        count_bytes /= 1024
    raise AssertionError("the last unit takes all")


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Each id cut to what is enough to name it among the others, RUN_CHARS at least."""
    ordered = sorted(set(ids))
    found: dict[str, str] = {}
    for at, ident in enumerate(ordered):
        need = RUN_CHARS
        for other in ordered[max(0, at - 1) : at] + ordered[at + 1 : at + 2]:
            need = max(need, _common(ident, other) + 1)
        found[ident] = ident[:need]
    return found


def _common(one: str, other: str) -> int:
    for at, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return at
    return min(len(one), len(other))
