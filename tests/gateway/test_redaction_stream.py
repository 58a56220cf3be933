"""Streams: however a text is cut, what comes out is what the whole would give."""

import string
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkrein.gateway.known import MARK, KnownKeys
from checkrein.gateway.redaction import Redaction
from checkrein.gateway.vault import PARTIAL, TOKEN, TOKEN_CHARS_MAX, Vault
from checkrein.policy.redact import compile_redaction
from tests.canaries import PERSONAL, SECRETS, drawn, password, private_key

AHEAD = 256
BOTH = compile_redaction(["secrets", "pii"])
NOTHING = compile_redaction([])
PROVIDERS = "sk-live-providers-own-key-0123456789"
KNOWN = KnownKeys([PROVIDERS])
WORDS = [
    "the",
    "answer",
    "is",
    "token",
    "and",
    "key",
    "of",
    "number",
    "id",
    "no",
    "password",
    "for",
    "you:",
    "see",
    "section",
    "4.2",
    "(of",
    "2024)",
    "é漢字",
    "GB",
    "DE89",
    "--",
    "<",
    "&",
    "\\",
    "phone",
    "tel",
    "SSN",
    "of",
    "Bob",
    "<email:ab",
    "&lt;",
    "item.",
    "item,",
    "[1]",
    "don't",
    "-----BEGIN",
]


def screen(vault: Vault, ahead: int = AHEAD) -> Redaction:
    return Redaction(BOTH, vault, KNOWN, ahead)


def cut(ours: Redaction, text: str, sizes: Callable[[], int]) -> tuple[str, int]:
    """What comes out of a text that comes in such pieces, and how much was held at most."""
    channel, out, at, held = ours.channel(), [], 0, 0
    while at < len(text):
        size = max(1, sizes())
        out.append(channel.text(text[at : at + size]))
        at += size
        held = max(held, len(channel.held))
    out.append(channel.finish())
    assert channel.held == ""
    return "".join(out), held


def written(chance: Random, tokens: list[str]) -> str:
    """A text with secrets, personal data, tokens and the beginnings of such, none of them longer
    than the look-ahead."""
    short = [made for name, made in (SECRETS | PERSONAL).items() if name != "private key"]
    parts = []
    for _ in range(chance.randint(1, 30)):
        kind = chance.random()
        if kind < 0.15:
            parts.append(chance.choice(short)(chance))
        elif kind < 0.27:
            token = chance.choice(tokens)
            parts.append(chance.choice([token, token, token.replace("<", "&lt;")]))
        elif kind < 0.32:
            parts.append(chance.choice(["password=", "api_key: ", "Bearer "]) + password(chance))
        elif kind < 0.36:
            parts.append(PROVIDERS[: chance.choice([9, 20, 99, 99])])
        else:
            parts.append(chance.choice(WORDS))
        parts.append(chance.choice([" ", " ", " ", "\n", ", ", "", ": "]))
    return "".join(parts)


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 7, 40, 300]))
def test_any_split_gives_what_the_whole_gives(seed: int, step: int) -> None:
    chance = Random(seed)
    vault = Vault(b"k" * 32)
    sent = [made(chance) for made in PERSONAL.values()]
    tokens = [screen(vault).request({"input": value})["input"] for value in sent]
    text = written(chance, tokens)
    whole = screen(vault).value(text)
    got, held = cut(screen(vault), text, lambda: chance.randint(1, step))
    assert got == whole
    assert held <= AHEAD + TOKEN_CHARS_MAX


def test_every_cut_of_a_token_and_of_a_key() -> None:
    vault = Vault(b"k" * 32)
    token = screen(vault).request({"input": "bob@acme.com"})["input"]
    escaped = token.replace("<", "\\u003c").replace(">", "\\u003e")
    text = f"to {token}, {escaped} and {PROVIDERS}!"
    whole = f"to bob@acme.com, bob@acme.com and {MARK}!"
    for redactor, ahead in ((NOTHING, 0), (BOTH, AHEAD)):
        for at in range(len(text) + 1):
            parts = iter([at, len(text)])
            ours = Redaction(redactor, vault, KNOWN, ahead)
            got, _ = cut(ours, text, lambda parts=parts: next(parts))  # type: ignore[misc]
            assert got == whole
    for at in range(1, len(token)):
        assert PARTIAL.search(token[:at].encode()), token[:at]
        assert not TOKEN.search(token[:at].encode())


def test_without_redaction_only_the_gateways_keys_are_held_back() -> None:
    ours = Redaction(NOTHING, Vault(b"k" * 32), KNOWN, 0)
    assert not ours.active
    channel = ours.channel()
    assert channel.text("a password=hunter2 and sk-li") == "a password=hunter2 and "
    assert channel.text("fe is ok sk-live-providers-") == "sk-life is ok "
    assert channel.text("own-key-0123456789 x") == f"{MARK} x"
    assert channel.finish() == ""


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 5, 30, 200]), st.sampled_from([0, 16, 256]))
def test_nothing_of_what_is_longer_than_the_look_ahead_gets_out(
    seed: int, step: int, ahead: int
) -> None:
    """What stands behind it does: it is dropped as long as it goes on, and no longer."""
    chance = Random(seed)
    long = {
        "private key": private_key(chance),
        "api-key": "sk-" + drawn(chance, string.ascii_letters + string.digits, 2000),
        "secret": 'password: "' + drawn(chance, string.ascii_letters + " ", 1000) + '"',
    }
    for name, secret in long.items():
        text = f"here it is:\n{secret}\n. And that is all, folks; the end"
        got, held = cut(screen(Vault(b"k" * 32), ahead), text, lambda: chance.randint(1, step))
        value = secret.partition('"')[2] if name == "secret" else secret
        body = [value[at : at + 12] for at in range(40, len(value) - 40, 12)]
        if ahead == AHEAD:
            assert [part for part in body if part in got] == []
        assert "And that is all, folks; the end" in got
        assert "[redacted:" in got
        assert held <= ahead + TOKEN_CHARS_MAX + step


def test_calm_prose_is_hardly_held_back() -> None:
    prose = (
        "The customer was told that the parcel will be there soon, and was glad to hear it. " * 9
    )
    channel = screen(Vault(b"k" * 32)).channel()
    held = []
    for at in range(0, len(prose), 4):
        channel.text(prose[at : at + 4])
        held.append(len(channel.held))
    assert max(held) <= 12


@pytest.mark.parametrize(
    "text",
    ["password: ", "my SSN is ", "call +1 (415) 555-", "the IBAN DE89 3704 0044 ", "see <email:abc",
     "Authorization: Bearer ", "mail bob@", "-----BEGIN RSA PRIVATE ", "token_"],
)  # fmt: skip
def test_what_may_still_become_something_is_held_back(text: str) -> None:
    channel = screen(Vault(b"k" * 32)).channel()
    given = channel.text(f"Some calm words first. {text}")
    assert given.startswith("Some calm words ")
    assert text.split()[-1] in channel.held
    whole = screen(Vault(b"k" * 32)).value(f"Some calm words first. {text}")
    assert given + channel.finish() == whole
