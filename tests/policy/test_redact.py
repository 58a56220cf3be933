"""Redaction: nothing survives, and little is taken out for nothing."""

import json
import re
import time
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.canaries import PERSONAL, SECRETS, canaries, innocent, passwords

from checkrein.policy.redact import VALUES_MAX, compile_redaction, key_class
from checkrein.policy.redact_patterns import PII as ALL_PII
from checkrein.policy.redact_patterns import SECRETS as ALL_SECRETS
from checkrein.policy.redact_patterns import Pattern, entropy, luhn, mod97

BOTH = compile_redaction(["secrets", "pii"])


def shown(value: Any) -> str:
    """All that somebody who reads a value could find in it."""
    return value if isinstance(value, str) else repr(value)


def bare(text: str) -> str:
    return "".join(letter for letter in text if letter.isalnum())


@pytest.mark.parametrize("seed", range(3))
def test_no_canary_survives(seed: int) -> None:
    made = [
        *canaries(seed, 560, SECRETS),
        *canaries(seed, 300, PERSONAL),
        *passwords(seed, 140),
    ]
    assert len(made) == 1000
    survived = []
    for name, secret, value in made:
        clean = shown(BOTH.plain(value))
        body = secret.split("\n")[2] if "\n" in secret else secret
        if body in clean or (len(bare(body)) > 8 and bare(body) in bare(clean)):
            survived.append((name, secret, value, clean))
        assert "[redacted:" in clean
    assert survived == []


def test_parts_of_canaries_do_not_survive_either() -> None:
    for _, secret, value in [*canaries(9, 400, SECRETS), *passwords(9, 140)]:
        clean = shown(BOTH.plain(value))
        body = secret.split("\n")[2] if "\n" in secret else secret
        tail = body[-8:] if len(body) > 16 else body[3:]
        assert tail not in clean, (secret, clean)


def test_little_is_taken_out_for_nothing() -> None:
    wrong = [(v, c) for v in innocent(1, 4000) if (c := BOTH.plain(v)) != v]
    assert len(wrong) <= 4, wrong[:10]  # 0.1 %


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("key sk-proj-abcdefABCDEF1234567890 end", "key [redacted:api-key] end"),
        ("password=hunter2&x=1", "password=[redacted:secret]&x=1"),
        ('{"password": "sword fish"}', '{"password": "[redacted:secret]"}'),
        ('{\\"password\\": \\"hunter2\\", \\"a\\": 1}',
         '{\\"password\\": \\"[redacted:secret]\\", \\"a\\": 1}'),
        ("postgres://u:p@ss/w@db/x", "postgres://u:[redacted:url-password]@db/x"),
        ("mail bob.o'x@acme.co.uk, ok", "mail [redacted:email], ok"),
        ("call +1 (555) 123-4567 now", "call [redacted:phone] now"),
        ("tel: 030 1234567", "tel: [redacted:phone]"),
        ("4111 1111 1111 1111 12/25", "[redacted:card] 12/25"),
        ("pan 4111-1111-1111-1111.", "pan [redacted:card]."),
        ("DE89 3704 0044 0532 0130 00 please", "[redacted:iban] please"),
        ("ssn 123-45-6789", "ssn [redacted:ssn]"),
        ("Authorization: Bearer abcd12345678", "Authorization: Bearer [redacted:authorization]"),
        ("Cookie: session=abcdef123; a=b", "Cookie: [redacted:cookie]"),
        ("password: é漢字é!", "password: [redacted:secret]"),
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),
        ("DE88 3704 0044 0532 0130 00", "DE88 3704 0044 0532 0130 00"),
        ("000-12-3456", "000-12-3456"),
        ("git@github.com:acme/x.git", "git@github.com:acme/x.git"),
        ("http://host:8080/x@1", "http://host:8080/x@1"),
        ("password: str = None", "password: str = None"),
        ("PWD=/home/u PASSWORD_RESET_TIMEOUT=259200", "PWD=/home/u PASSWORD_RESET_TIMEOUT=259200"),
        ('"pubkey": "MIGfMA0GCSqGSIb3DQEBAQ1"', '"pubkey": "MIGfMA0GCSqGSIb3DQEBAQ1"'),
        ('"enc_key": "MIGfMA0GCSqGSIb3DQEBAQ1"', '"enc_key": "[redacted:secret]"'),
        ("key: ${API_KEY} password=<your password>", "key: ${API_KEY} password=<your password>"),
    ],
)  # fmt: skip
def test_texts(text: str, clean: str) -> None:
    assert BOTH.text(text) == clean


def test_kinds_are_apart() -> None:
    text = "bob@acme.com has AKIAIOSFODNN7EXAMPLE"
    assert compile_redaction(["secrets"]).text(text) == "bob@acme.com has [redacted:aws-key]"
    assert compile_redaction(["pii"]).text(text) == "[redacted:email] has AKIAIOSFODNN7EXAMPLE"
    nothing = compile_redaction([])
    assert nothing.text(text) is text
    assert nothing.plain({"password": "x1234"}) == {"password": "x1234"}
    with pytest.raises(ValueError, match="names"):
        compile_redaction(["names"])  # type: ignore[list-item]


def test_keys_say_what_their_values_are() -> None:
    value = {
        "password": "swordfish", "dbPassword": "x y", "n": 3, "pin_code": 7,
        "secret": {"value": "abc", "list": ["d", 12345]}, "token": "abc", "access_token": "abc",
        "sessionToken": "abcd", "ssn": 123456789, "phone_number": "0301234567", "Set-Cookie": "a=b",
        "password_policy": "long", "max_tokens": 100, "api_key": None, "passphrase": "",
        "card_number": 4242, "card": 4111111111111111, "apiKey": b"raw",
    }  # fmt: skip
    mark, pii = "[redacted:secret]", "[redacted:pii]"
    assert BOTH.plain(value) == {
        "password": mark, "dbPassword": mark, "n": 3, "pin_code": 7,
        "secret": {"value": mark, "list": [mark, mark]}, "token": "abc", "access_token": mark,
        "sessionToken": mark, "ssn": pii, "phone_number": pii, "Set-Cookie": mark,
        "password_policy": "long", "max_tokens": 100, "api_key": None, "passphrase": "",
        "card_number": pii, "card": "[redacted:card]", "apiKey": mark.encode(),
    }  # fmt: skip
    assert key_class("nextPageToken", frozenset({"secrets"})) == ""


def test_keys_stay_apart_when_they_are_taken_out() -> None:
    clean = BOTH.plain({"a@b.com": 1, "c@d.com": 2, "e": 3})
    assert sorted(clean.values()) == [1, 2, 3]
    assert "b.com" not in repr(clean)


def test_shapes_are_kept() -> None:
    value = (1, [2.5, {"a": None, 3: True}], {"x"}, frozenset({"y"}), b"z")
    assert BOTH.plain(value) == value
    assert BOTH.plain((b"a@b.com",)) == (b"[redacted:email]",)

    class Odd:
        def __repr__(self) -> str:
            return "password=hunter2"

    assert BOTH.plain([Odd()]) == ["[redacted:Odd]"]


def test_a_key_makes_marks_comparable() -> None:
    one, other = compile_redaction(["pii"], b"k1"), compile_redaction(["pii"], b"k2")
    first = one.text("a@b.com c@d.com a@b.com").split()
    assert first[0] == first[2] != first[1]
    assert first[0].startswith("[redacted:email:")
    assert one.text("a@b.com") != other.text("a@b.com")
    assert first[0] == compile_redaction(["pii"], b"k1").text("a@b.com")


def test_endless_values_come_to_an_end() -> None:
    deep: list[Any] = []
    deep.append(deep)
    assert "too-large" in repr(BOTH.plain(deep))
    twice: list[Any] = []
    twice += [twice, twice]
    assert "too-large" in repr(BOTH.plain(twice))[:10_000]
    wide = BOTH.plain(list(range(VALUES_MAX + 5)))
    assert wide[-1] == "[redacted:too-large]"


def test_the_last_word_of_a_large_text_is_seen() -> None:
    """The set of signs must not run out of memory silently, whatever stands before."""
    chance = Random(5)
    noise = "".join(chance.choice("abcdefghij 0123456789-_=:@./+AKIsk\n") for _ in range(400_000))
    begun = time.perf_counter()
    clean = BOTH.text(f"{noise} AKIAIOSFODNN7EXAMPLE")
    assert time.perf_counter() - begun < 10
    assert "AKIAIOSFODNN7EXAMPLE" not in clean
    for filler in (  # each the beginning of something, again and again
        "a" * 300_000, "1 " * 150_000, "a@" * 150_000, "password=" * 30_000, "-" * 300_000,
                   "eyJ" * 100_000, "://a:" * 60_000, '"' * 300_000, "sk-" * 100_000):  # fmt: skip
        begun = time.perf_counter()
        assert "AKIAIOSFODNN7EXAMPLE" not in BOTH.text(f"{filler}\n AKIAIOSFODNN7EXAMPLE"), filler[
            :9
        ]
        assert time.perf_counter() - begun < 5, filler[:9]


def test_checksums() -> None:
    assert luhn(b"4111111111111111")
    assert not luhn(b"4111111111111112")
    assert mod97(b"DE89370400440532013000")
    assert not mod97(b"DE88370400440532013000")
    assert entropy(b"aaaa") == 0
    assert entropy(b"abcd") == 2


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30)
    | st.sampled_from(["password=abc123", "a@b.com", "\ud800", "Bearer x", "4111 1111 1111 1111"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=8) | st.sampled_from(["password", "token", "ssn"]), inner),
    max_leaves=15,
)  # fmt: skip


@settings(max_examples=400)
@given(PLAIN)
def test_never_crashes_and_twice_is_once(value: Any) -> None:
    clean = BOTH.plain(value)
    assert BOTH.plain(clean) == clean
    assert "a@b.com" not in repr(clean)
    if isinstance(value, dict):
        assert len(clean) == len(value)


@settings(max_examples=400)
@given(st.text(max_size=60), st.text(max_size=60))
def test_what_stands_around_does_not_hide_a_secret(before: str, after: str) -> None:
    secret = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
    assert secret not in BOTH.text(f"{before} {secret} {after}")
    assert secret not in BOTH.text(json.dumps([before, secret, after]))


@pytest.mark.parametrize(
    "pattern", [*ALL_SECRETS, *ALL_PII], ids=lambda pattern: pattern.exact[:30]
)
def test_whatever_is_one_shows_its_sign(pattern: Pattern) -> None:
    """The sign is looked for first: an exact match without it would never be found."""
    exact, sign = re.compile(pattern.exact.encode()), re.compile(pattern.sign.encode())

    @settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.from_regex(exact))
    def shows(text: bytes) -> None:
        assert sign.search(text)

    shows()
