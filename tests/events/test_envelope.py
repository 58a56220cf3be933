"""Bytes of strangers are an envelope or are refused; nothing else comes of them."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from checkrein.events.envelope import CHAIN_START, Envelope, EnvelopeError, as_raw, pack, unpack

GOOD = pack(Envelope("rec", "bot", 3, 0, CHAIN_START, [1], [as_raw({"type": "x"})]))


def test_what_is_packed_is_unpacked() -> None:
    assert unpack(GOOD).seqs == [1]


@pytest.mark.parametrize("name", [b"rec", b"bot"])
def test_a_name_that_is_not_utf8_is_refused(name: bytes) -> None:
    with pytest.raises(EnvelopeError, match="utf-8"):
        unpack(GOOD.replace(name, b"\xff\xfe\xfd"))


@given(st.binary(max_size=200), st.integers(0, len(GOOD)))
@example(b"\x91" * 100_000, 0)
def test_any_other_bytes_are_refused_or_read(junk: bytes, place: int) -> None:
    for data in (junk, GOOD[:place] + junk, GOOD[:place] + junk + GOOD[place + len(junk) :]):
        try:
            read = unpack(data)
        except EnvelopeError:
            continue
        assert len(read.seqs) == len(read.events)
        assert all(isinstance(event, msgspec.Raw) for event in read.events)
