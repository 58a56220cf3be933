"""When two calls or two results count as the same: canonical text, fingerprints, near-duplicates.

Texts are compared as canonical JSON in lower case, sorted keys. What changes by itself from call to
call (timestamps, request ids, durations) is masked before results are compared.
"""

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

TEXT_BYTES_MAX = 4096
"""How much of a call's arguments, or of a result, is looked at word by word; the rest counts by its
hash alone."""
_VALUE_CHARS_MAX = 256 * 1024

VOLATILE = frozenset({
    "ts", "timestamp", "nonce", "request_id", "requestid", "trace_id", "traceid", "span_id",
    "correlation_id", "idempotency_key", "call_id", "tool_call_id", "elapsed", "elapsed_ms",
    "duration_ms", "took_ms", "latency_ms", "took",
})  # fmt: skip
_STOP = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "how", "in", "is", "it", "me",
    "my", "of", "on", "or", "please", "that", "the", "this", "to", "was", "what", "when", "where",
    "which", "with", "you", "your",
})  # fmt: skip
_KEY = re.compile(r'"[^"\\]{1,80}"\s*:')
_WORD = re.compile(r"[^\W_][\w./@:+-]*")
_VOLATILE_FIELD = re.compile(
    rb'"(?:' + b"|".join(sorted(name.encode() for name in VOLATILE)) + rb')"\s*:\s*'
    rb'(?:"[^"]*"|[^,}\]]*)'
)
_CHANGING = re.compile(
    rb"\d{4}-\d\d-\d\d[t ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:z|[+-]\d\d:?\d\d)?"
    rb"|\d\d:\d\d:\d\d(?:\.\d+)?"
    rb"|\d+(?:\.\d+)?\s?(?:ms|us|ns|s|secs?|seconds?|minutes?)\b"
    rb"|0x[0-9a-f]{6,16}|\b1[67]\d{8}(?:\d{3})?(?:\.\d+)?\b"
    rb"|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"
)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,16}")
_EMPTY = re.compile(
    rb'(?:""|\[\]|\{\}|[^a-z0-9]*(?:no|not|nothing|cannot|unable|could not)\b.{1,120}'
    rb"|.{0,80}\bnot found\b.{0,40}|.{0,80}\bno (?:results?|matches|match|records?|data)\b.{0,40})",
    re.S,
)
LOW_BYTES_MAX = 80


def _plain(value: Any) -> str:
    """Anything msgspec does not know: its type and what it shows, without its address."""
    return f"{type(value).__qualname__} {_ADDRESS.sub('', repr(value)[:_VALUE_CHARS_MAX])}"


_ENCODE = msgspec.json.Encoder(order="deterministic", enc_hook=_plain).encode


def canonical(value: Any) -> bytes:
    """One text for equal values: sorted JSON in lower case. Never raises: what has no JSON form
    (cycles, endless depth, broken text) counts as its type."""
    if type(value) is str and len(value) > _VALUE_CHARS_MAX:
        value = value[:_VALUE_CHARS_MAX] + f"…{len(value)}"
    try:
        return _ENCODE(value).lower()
    except Exception:  # objects of the agent's own: their repr may raise anything
        return b"unreadable " + type(value).__qualname__.encode()


def arguments_text(arguments: Any) -> bytes:
    """The canonical text of a call's arguments, without the keys that change by themselves."""
    if type(arguments) is dict and not VOLATILE.isdisjoint(arguments):
        arguments = {name: value for name, value in arguments.items() if name not in VOLATILE}
    return canonical(arguments)


def fingerprint(text: bytes) -> int:
    """63 bits, the same in every process."""
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 1


def masked(text: bytes) -> int:
    """The fingerprint of a result without timestamps, request ids, addresses and durations."""
    head = _VOLATILE_FIELD.sub(b"#", text[:TEXT_BYTES_MAX])
    return fingerprint(_CHANGING.sub(b"#", head) + text[TEXT_BYTES_MAX:])


def is_empty(text: bytes) -> bool:
    """A result that says it found nothing."""
    return len(text) <= 200 and _EMPTY.fullmatch(text) is not None


def is_low(text: bytes) -> bool:
    """A result too short to tell one outcome from another (`"ok"`, `null`)."""
    return len(text) <= LOW_BYTES_MAX


class Words(NamedTuple):
    """A text's words in their order, and as a set."""

    order: tuple[str, ...]
    all: frozenset[str]


@lru_cache(maxsize=1024)
def words(text: bytes) -> Words:
    """The words of a call's argument values, in order: lower case, stop words and plural endings
    off, `1.0` as `1`."""
    plain = text.decode("utf-8", "replace").replace("\\n", " ").replace("\\t", " ")
    found = []
    for word in _WORD.findall(_KEY.sub(" ", plain)):
        word = word.rstrip("./:+-@")
        if word in _STOP:
            continue
        if word.endswith(".0") and word[:-2].isdigit():
            word = word[:-2]
        elif len(word) > 3 and word.endswith("s") and word.isalpha():
            word = word[:-1]
        found.append(word)
    return Words(tuple(found), frozenset(found))


def near(one: Words, other: Words) -> bool:
    """Near-duplicates: half of the words in common and the same words with digits in them (so that
    order 1001 is not order 1002, nor page 2 page 3), or nine tenths in common."""
    if one.all == other.all:
        return True
    both = len(one.all & other.all)
    share = both / (len(one.all) + len(other.all) - both)
    if share >= 0.9:
        return True
    if share < 0.5:
        return False
    return all(word.isalpha() for word in one.all ^ other.all)
