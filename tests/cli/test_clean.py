"""What an agent may not do to an operator's terminal."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkrein.cli.clean import clean

ATTACKS = {
    "clear screen": ("\x1b[2J\x1b[Hall is well", "all is well"),
    "colour": ("\x1b[31mred\x1b[0m", "red"),
    "window title": ("a\x1b]0;owned\x07b", "ab"),
    "title ended by ST": ("a\x1b]2;owned\x1b\\b", "ab"),
    "hyperlink": ("\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\", "click"),
    "unfinished OSC": ("a\x1b]52;c;b3duZWQ=", "a"),
    "clipboard": ("\x1b]52;c;b3duZWQ=\x07x", "x"),
    "device control": ("\x1bPq#0;2;0;0;0\x1b\\x", "x"),
    "answer back": ("\x1b[6n\x1b[c\x05x", "x"),
    "8-bit CSI": ("\x9b31mred", "red"),
    "8-bit OSC": ("\x9d0;owned\x07x", "x"),
    "cursor up over a verdict": ("ok\x1b[1A\x1b[2Kdeny", "okdeny"),
    "carriage return": ("deny\rallow", "deny allow"),
    "backspace": ("deny\b\b\b\ballow", "denyallow"),
    "new lines": ("a\nb\r\nc\u2028d", "a b  c d"),
    "right to left": ("\u202egnp.exe\u202c", "gnp.exe"),
    "isolates": ("a\u2066b\u2069c\u200f\u061c", "abc"),
    "zero width": ("p\u200ba\u200dy\ufeff\u2060", "pay"),
    "soft hyphen and tags": ("a\u00adb\U000e0041\U000e007f", "ab"),
    "private use": ("a\ue000\U000f0000b", "ab"),
    "zalgo": ("a" + "\u0301" * 50, "a" + "\u0301" * 3),
    "half a character": ("a\ud800b", "ab"),
    "delete and nul": ("a\x7f\x00b", "ab"),
    "bare escape": ("a\x1b", "a"),
    "charset switch": ("\x1b(0lqqk\x1b(B", "lqqk"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_taken_out(name: str) -> None:
    given_text, expected = ATTACKS[name]
    assert clean(given_text) == expected


def test_honest_text_is_left_as_it_is() -> None:
    for text in ("plain", "größer · 42 €", "日本語", "مرحبا", "👍🏽 ok", "e\u0301", "a  b"):
        assert clean(text) == text


def test_long_text_is_cut_and_says_so() -> None:
    assert clean("x" * 100, 10) == "x" * 9 + "…"
    assert clean("x" * 10, 10) == "x" * 10
    assert clean("\x1b[31m" * 1000 + "abc", 10) in ("abc", "")
    assert len(clean("\u0301" * 10_000_000, 50)) <= 50


@given(st.text(alphabet=st.characters(), max_size=200))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    for char in clean(text):
        assert unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


@given(st.text(max_size=200))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert clean(clean(text)) == clean(text)
