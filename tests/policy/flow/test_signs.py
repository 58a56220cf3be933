"""A glance at a text may say "look closely" for nothing, never "nothing there" for something."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from checkrein.policy.flow import identifiers, normal, signs
from checkrein.policy.flow.sent import Sent

PIECES = (
    "the parcel", "ORD-17", "bob@evil.example", "https://x.example/a", "www.evil", "a\\b", "/etc/x",
    "DE89 3704 0044 0532 0130 00", "+43 660 1234567", "evil.example", "%65vil", "&amp;", "\\u0065",
    "Ym9iQGV2aWwuZXhhbXBsZQ==", "65 76 69 6c 2e 63", "6576696c2e636f6d", "é", "\u0435vil", "1",
    "end.", "...", "(x)", "'", "\n", "\t", "12.5", "a.b", "²", "\u2028", "a\\nb", "\\tz",
)  # fmt: skip
TEXTS = some.lists(some.one_of(some.sampled_from(PIECES), some.text(max_size=20)), max_size=30).map(
    " ".join
)


@given(text=TEXTS)
def test_what_is_passed_over_at_a_glance_has_nothing_in_it(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("may_name", "may_be_spaced"):
            patch.setattr(identifiers, name, lambda text: True)
        patch.setattr(normal, "may_hide", lambda text: True)
        named, hidden = list(identifiers.strong(text)), normal.decoded(text)
    assert list(identifiers.strong(text)) == named
    assert normal.decoded(text) == hidden
    assert not (signs.is_plain(text) and (named or hidden))


def test_prose_is_plain_and_what_names_or_hides_is_not() -> None:
    prose = "The customer says that the parcel came late and that the box was open. " * 5
    assert signs.is_plain(prose)
    for piece in ("ORD-17", "bob@evil.example", "Ym9iQGV2aWwuZXhhbXBsZQ==", "%65vil", "\u0435"):
        assert not signs.is_plain(f"{prose} {piece}")


KEYS = some.lists(
    some.sampled_from(
        (" bob evil ", "bobevil", " ab ", "ab", " x ", "xy", " bob ", "bob", " evil bob ")
    ),
    max_size=9,
)


@given(
    keys=KEYS,
    words=some.lists(
        some.sampled_from(("bob", "evil", "ab", "xbobevily", "x", "y", "cabd")), max_size=12
    ),
    many=some.booleans(),
)
def test_what_was_passed_on_is_taken_out_as_by_looking_for_each(
    keys: list[str], words: list[str], many: Any
) -> None:
    sent = Sent()
    if many:
        sent.add(*(f" none{number} " for number in range(100)))
    sent.add(*keys)
    text = f" {' '.join(words)} "
    expected = text
    for key in dict.fromkeys(keys):
        if key in expected:
            expected = expected.replace(key, " ")
    assert sent.taken_out(text) == expected
