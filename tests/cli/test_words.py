"""Numbers and names as people read them."""

import pytest

from checkrein.cli import words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.0341, "34 ms"), (0.9996, "1.0 s"), (59.96, "1 m 00 s"), (3599.6, "1 h 00 m"),
     (125, "2 m 05 s"), (7800, "2 h 10 m"), (400_000, "4 d")],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_counts_money_sizes() -> None:
    assert [words.count(n) for n in (950, 12_345, 4_500_000)] == ["950", "12.3k", "4.5M"]
    assert [words.money(m) for m in (None, 0.0, 0.0123, 2.5)] == ["?", "0", "0.0123", "2.50"]
    assert [words.size(s) for s in (10, 2048, 3 * 1024**3)] == ["10 B", "2.0 KiB", "3.0 GiB"]


def test_short_ids_name_each_run_alone() -> None:
    ids = [
        "0198a000-0000-7000-8000-000000000001", "0198a000-0000-7000-8000-0000000000a2",
        "0198a000-0001-7000-8000-000000000003",
    ]  # fmt: skip
    short = words.short_ids(ids)
    assert short[ids[2]] == "0198a000-0001"
    for ident in ids:
        assert [other for other in ids if other.startswith(short[ident])] == [ident]
