"""What the gateway's redaction costs: a request, an answer, a piece of a stream.

    python -m benches redact

Beside it, in the same run: `detect-secrets` over the same texts, where it is installed, and the
work of the RE2 set alone. Recall is measured on made-up values of every kind, in the places they
turn up in; how much is taken out for nothing, on texts that have none.
"""

import time
from collections.abc import Callable
from random import Random

from benches.bench_scan import median_us, texts
from benches.harness import Row
from tests.canaries import PERSONAL, SECRETS, canaries, innocent, passwords

from checkrein.gateway.known import KnownKeys
from checkrein.gateway.redaction import Redaction
from checkrein.gateway.vault import Vault
from checkrein.policy.redact import compile_redaction

QUESTION = "What does redaction cost at the gateway, and how much does it find?"

BOTH = compile_redaction(["secrets", "pii"])
KNOWN = KnownKeys(["sk-a-providers-own-key-0123456789"])
PROSE = "The customer was told that the parcel will be there soon, and was glad to hear it. " * 25


def screen() -> Redaction:
    return Redaction(BOTH, Vault(b"k" * 32), KNOWN)


def detect_secrets_us(inputs: list[str]) -> float | None:
    try:
        from detect_secrets.core.scan import scan_line
        from detect_secrets.settings import default_settings
    except ImportError:
        return None
    with default_settings():
        return median_us(lambda text: list(scan_line(text)), inputs[:20])


def piece_us(size: int) -> float:
    """One piece of a stream, on average."""
    best = float("inf")
    for _ in range(7):
        channel = screen().channel()
        begun = time.perf_counter_ns()
        for at in range(0, len(PROSE), size):
            channel.text(PROSE[at : at + size])
        channel.finish()
        best = min(best, (time.perf_counter_ns() - begun) / (len(PROSE) / size) / 1e3)
    return best


def recall() -> tuple[int, int]:
    made = [*canaries(21, 1600, SECRETS), *canaries(22, 1200, PERSONAL), *passwords(23, 700)]
    found = sum(secret not in repr(BOTH.plain(value)) for _, secret, value in made)
    return found, len(made)


def mistakes() -> tuple[int, int]:
    values = list(innocent(24, 4000))
    return sum(BOTH.plain(value) != value for value in values), len(values)


def once(work: Callable[[str], object], inputs: list[str]) -> float:
    return median_us(work, inputs)


def run() -> list[Row]:
    chance = Random(7)
    clean, one_hit = texts(0), texts(1)
    chance.shuffle(one_hit)
    sieve_us = once(lambda text: BOTH._set.Match(text.encode()), clean)
    slow_us = detect_secrets_us(clean)
    found, made = recall()
    wrong, innocents = mistakes()
    return [
        Row(name="sieve: 2 kB of clean text", measured=once(BOTH.text, clean), target=20.0,
            limit=sieve_us, unit="us", note="limit: the RE2 set alone"),
        Row(name="the same, beside detect-secrets", measured=once(BOTH.text, clean),
            limit=slow_us, target=slow_us / 500 if slow_us else None, unit="us"),
        Row(name="2 kB with one hit, checked and replaced", measured=once(BOTH.text, one_hit),
            target=200.0, limit=slow_us, unit="us", note="limit: detect-secrets"),
        Row(name="a request of 2 kB", unit="us", target=40.0, measured=once(
            lambda text: screen().request({"messages": [{"role": "user", "content": text}]}),
            clean)),
        Row(name="a piece of 4 characters in a stream", measured=piece_us(4), target=60.0,
            unit="us"),
        Row(name="a piece of 40 characters in a stream", measured=piece_us(40), target=60.0,
            unit="us"),
        Row(name=f"found of {made} made-up values", measured=found, target=made, unit="ok"),
        Row(name=f"changed of {innocents} innocent values", measured=100 * wrong / innocents,
            target=0.1, unit="%"),
    ]  # fmt: skip
