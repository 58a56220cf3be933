"""Numbers of persons and what libraries know of them, with the libraries and without."""

import sys
from importlib import import_module
from random import Random

import pytest
from tests.canaries import PERSONAL, SECRETS, canaries

from checkrein.policy import redact_libraries as libraries
from checkrein.policy.redact import compile_redaction

PII = compile_redaction(["pii"])
SECRETS_ONLY = compile_redaction(["secrets"])

PERSONS = [
    "RCCMNL83S18D969H", "BOXW310820HNERXN09", "390.533.447-05", "X-2482300W", "54362315-K",
    "2 95 10 99 126 111 93", "295109912611193", "756.9217.0769.85", "85.07.30-033.28",
    "131052-308T", "880320-0016", "971013-9019902", "710319/2745", "2341 2341 2346", "ACUPA7085R",
    "360426199101010071", "912-90-3456", "AB 12 34 56 C", "BSN: 111222333", "PESEL 44051401359",
    "Steuer-ID 36 574 261 809", "fødselsnummer 15108695088", "CPR 211062-5629",
    "T.C. Kimlik 17291716060", "ID number 7503305044089", "TFN 123 456 782", "SIN 123-456-782",
    "NHS number 943 476 5870", "CNP 1630615123457", "Aadhaar 234123412346",
]  # fmt: skip
NO_PERSONS = [
    "390.533.447-06", "54362315-X", "756.9217.0769.84", "131052-308U", "710319/2744",
    "BSN: 111222334", "PESEL 44051401358", "order 880320-0017", "2341 2341 2347",
    "version 12.34.56-789.01", "tax id pending", "SIN 123-456-783", "1712345678901234567",
    "build 20240131/1234", "serial 1-390.533.447-05", "4111 1111 1111 1112",
]  # fmt: skip


@pytest.mark.parametrize("text", PERSONS)
def test_a_persons_number_is_found(text: str) -> None:
    assert "[redacted:national-id]" in PII.text(f"it is {text}, as asked")


@pytest.mark.parametrize("text", NO_PERSONS)
def test_what_has_a_wrong_check_digit_is_none(text: str) -> None:
    assert PII.text(f"it is {text}, as asked") == f"it is {text}, as asked"


def test_phones_that_cannot_be_are_none() -> None:
    assert PII.text("+999 1234567 or 555-123-2002") == "+999 1234567 or [redacted:phone]"
    assert PII.text("ring 01234 567890") == "ring [redacted:phone]"


def test_ids_and_sequences_are_no_secrets() -> None:
    for text in (
        "token_id: a8f5f167f44f4964e6c998dee827110c1x", "key = 0123456789abcdefghijklmnop",
        "api token: {a8f5f167f44f4964e6c998}",
    ):  # fmt: skip
        assert SECRETS_ONLY.text(text) == text
    for text in ("session_id=a8f5f167f44f4964e6c998dee827110c", "token=a8f5f167f44f4964e6c998x"):
        assert "[redacted:" in SECRETS_ONLY.text(text)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a base install has."""
    for name in ("detect_secrets", "stdnum", "phonenumbers"):
        for loaded in [name, *(each for each in sys.modules if each.startswith(f"{name}."))]:
            monkeypatch.setitem(sys.modules, loaded, None)
    monkeypatch.setattr(libraries, "library", libraries.library.__wrapped__)
    monkeypatch.setattr(libraries, "_hex_plugin", libraries._hex_plugin.__wrapped__)


@pytest.mark.usefixtures("bare")
def test_without_libraries_more_is_hidden_and_nothing_less() -> None:
    with pytest.raises(ImportError):
        import_module("phonenumbers")
    both = compile_redaction(["secrets", "pii"])
    for text in PERSONS:
        assert "[redacted:" in both.text(f"it is {text}, as asked")
    assert both.text("390.533.447-06") == "[redacted:national-id]"
    for _, secret, value in [*canaries(4, 200, SECRETS), *canaries(4, 200, PERSONAL)]:
        assert secret not in repr(both.plain(value))


def test_whatever_detect_secrets_finds_by_form_is_found_here() -> None:
    """Its own detectors on made-up keys: each one that it finds is taken out here too."""
    from detect_secrets.core.scan import scan_line
    from detect_secrets.settings import default_settings

    chance = Random(1)
    missed = []
    with default_settings():
        for name, make in SECRETS.items():
            for _ in range(5):
                line = f'value = "{make(chance)}"'.split("\n")[0]
                if list(scan_line(line)) and SECRETS_ONLY.text(line) == line:
                    missed.append((name, line))
    assert missed == []
