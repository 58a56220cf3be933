import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkrein.events.strict import NotStrict, read, read_with_care

NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=30,
)


@given(VALUES, st.booleans(), st.booleans())
def test_what_is_strict_comes_back_and_is_encoded_as_itself(
    value: Any, spaced: bool, ascii_only: bool
) -> None:
    separators = (", ", ": ") if spaced else (",", ":")
    body = json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode()
    found = read(body)
    assert found.value == value
    assert json.loads(found.encoded) == value
    assert read_with_care(body) == value


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"a":1,"a":2}', "'a' stands twice"),
        (b'{"x":{"\\u0061":1,"a":2}}', "'a' stands twice"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"a":-Infinity}', "-Infinity is not JSON"),
        (b'{"a":1e999}', "beyond what a number can be"),
        (b'{"a":18446744073709551616}', "does not fit into 64 bits"),
        (b'{"a":-9223372036854775809}', "does not fit into 64 bits"),
        (b'{"a":' + b"9" * 5000 + b"}", "does not fit into 64 bits"),
        (b'{"m":[{"t":"\\ud800"}]}', "the body.m[0].t is half of a character"),
        (b'{"\\udc00":1}', "half of a character"),
        (b'{"a":"\xff"}', "not UTF-8 at byte 6"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        (b'\xef\xbb\xbf{"a":1}', "not JSON"),
        (b'{"a":1}x', "line 1, column 8"),
        (b'{"a":1', "line 1, column 7"),
        (b"", "line 1, column 1"),
        (b'{"a":"\x00"}', "control character"),
        (b"[" * 65 + b"]" * 65, "deeper than 64"),
        (b"[" * 100_000, "deeper than 64"),
        (b'{"a":' * 64 + b"[]" + b"}" * 64, "deeper than 64"),
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_refused_with_its_place(body: bytes, said: str) -> None:
    with pytest.raises(NotStrict) as refused:
        read(body)
    assert said in str(refused.value)


def test_as_deep_as_allowed_and_long_numbers_in_texts_are_read() -> None:
    deep = b"[" * 64 + b"]" * 64
    assert read(deep).encoded == deep
    assert read(b'{"a":"12345678901234567890123"}').value == {"a": "12345678901234567890123"}
    assert read(b'{"a":18446744073709551615}').value == {"a": 2**64 - 1}


@given(st.binary(max_size=60))
def test_anything_is_read_or_refused(body: bytes) -> None:
    try:
        found = read(body)
    except NotStrict:
        return
    assert read(found.encoded).value == found.value
