"""Secrets and personal data, taken out of what is recorded: `[redacted:KIND]` stands for them.

Deterministic, and linear in the text: the signs of all patterns are looked for at once by one RE2
set, and only where one is seen does its exact pattern run, with a checksum or a test of randomness
where there is one. What is no secret by its letters, but stands under a key that says it is
(`{"password": "swordfish"}`), is taken out too.

Not found: what is encoded (base64, encrypted), split over several values, or written in words;
phone numbers of a country's own form without a `+` unless a word for them stands before; names of
persons and postal addresses. Redaction is a net, no proof.
"""

import copy
import re
from collections.abc import Callable, Iterable
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal
from uuid import UUID

import re2

from checkrein.policy import redact_libraries as libraries
from checkrein.policy.redact_patterns import (
    PII,
    PII_KINDS,
    SECRETS,
    Pattern,
    is_placeholder,
    is_random,
)

DEPTH_MAX = 64
VALUES_MAX = 200_000
_MEMORY_MAX = 64 << 20
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_PLAIN = (type(None), bool, float, complex, date, time, timedelta, Decimal, UUID, Enum)

_SECRET_KEYS = frozenset({
    "password", "passwd", "passwort", "pwd", "passphrase", "secret", "secrets", "apikey",
    "apikeys", "accesskey", "secretkey", "privatekey", "authkey", "encryptionkey", "signingkey",
    "masterkey", "clientsecret", "credential", "credentials", "authorization", "authtoken",
    "accesstoken", "refreshtoken", "idtoken", "bearertoken", "sessiontoken", "csrftoken", "cookie",
    "cookies", "cvv", "cvc", "otp",
})  # fmt: skip
_RANDOM_KEYS = frozenset({"token", "tokens", "key", "auth", "session", "sessionid", "signature"})
_PII_KEYS = frozenset({
    "ssn", "socialsecuritynumber", "cardnumber", "creditcard", "creditcardnumber", "iban", "phone",
    "phonenumber", "mobile", "mobilenumber", "telephone", "passport", "passportnumber", "taxid",
    "accountnumber",
})  # fmt: skip


Found = tuple[int, int, str]
"""First byte, the byte after the last, kind."""
Mark = Callable[[str, bytes], str]
"""What stands in place of a value of this kind."""
Names = Callable[[str], Iterable[tuple[int, int]]]
"""Finds names of persons: where each stands in the text, in characters."""


class Redactor:
    """Takes out what it was compiled for. Pure; safe from any thread."""

    def __init__(self, kinds: Iterable[str], key: bytes = b"", names: Names | None = None) -> None:
        """`key`: each mark carries 8 hex digits of a hash keyed with it, so that equal values can
        be told equal without being known. `names` counts when `pii` is among the kinds."""
        self.kinds = frozenset(kinds)
        self._key = key
        self.names = names if "pii" in self.kinds else None
        self._mark: Mark = self._told
        self._patterns = (SECRETS if "secrets" in self.kinds else ()) + (
            PII if "pii" in self.kinds else ()
        )
        self._set, self._exact = _compiled(self._patterns)

    def marking(self, mark: Mark) -> "Redactor":
        """The same, with other marks."""
        other = copy.copy(self)
        other._mark = mark
        return other

    def text(self, text: str) -> str:
        """The text without them; the very same object when there is none."""
        if not self._patterns or len(text) < 4:
            return text
        data = text.encode("utf-8", "surrogatepass")
        hits = self._set.Match(data)
        if not hits and self.names is None:
            return text
        clean = self._replaced(data, self._found(data, hits))
        return text if clean is data else clean.decode("utf-8", "surrogatepass")

    def found(self, data: bytes) -> list[Found]:
        """Where they stand in UTF-8 text, in order, none overlapping another."""
        if not self._patterns:
            return []
        hits = self._set.Match(data)
        return self._found(data, hits) if hits or self.names is not None else []

    def plain(self, value: Any) -> Any:
        """A plain value (maps, lists, texts, numbers) without them, at any depth. Keys stay, but
        for those that are one themselves. What is no plain value, or deeper than 64 or further than
        200,000 values in, is replaced whole: it cannot be looked through."""
        return self._plain(value, "", 0, [VALUES_MAX])

    def _plain(self, value: Any, under: str, depth: int, left: list[int]) -> Any:
        left[0] -= 1
        if depth > DEPTH_MAX or left[0] < 0:
            return "[redacted:too-large]"
        if isinstance(value, str):
            return self._under(value, under) if under else self.text(value)
        if isinstance(value, dict):
            return self._map(value, under, depth, left)
        if isinstance(value, list | tuple | set | frozenset):
            items = [self._plain(item, under, depth + 1, left) for item in value]
            if isinstance(value, list):
                return items
            return tuple(items) if isinstance(value, tuple) else type(value)(items)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._bytes(bytes(value), under)
        if isinstance(value, int) and not isinstance(value, bool | Enum):
            return self._number(value, under)
        return value if isinstance(value, _PLAIN) else f"[redacted:{type(value).__name__}]"

    def _map(self, value: dict[Any, Any], under: str, depth: int, left: list[int]) -> Any:
        clean: dict[Any, Any] = {}
        for name, item in value.items():
            own = key_class(name, self.kinds) if isinstance(name, str) else ""
            if isinstance(name, str):
                shown: Any = self.text(name)
            else:
                shown = self._plain(name, "", depth + 1, left)
            while shown in clean:
                shown = f"{shown}'"
            inherited = own or (under if under == "secret" else "")
            clean[shown] = self._plain(item, inherited, depth + 1, left)
        return clean

    def _under(self, text: str, under: str) -> str:
        """A text under a key that says what it is."""
        data = text.encode("utf-8", "surrogatepass")
        match under:
            case "secret":
                is_one = bool(data.strip()) and not is_placeholder(data)
            case "random":
                is_one = is_random(data)
            case _:
                is_one = sum(48 <= byte <= 57 for byte in data) >= 4
        clean = self.text(text)
        if clean != text and under != "secret":
            return clean
        return self._mark("pii" if under == "pii" else "secret", data) if is_one else clean

    def _number(self, value: int, under: str) -> Any:
        text = str(value) if -(10**40) < value < 10**40 else ""
        if under in {"secret", "pii"} and len(text) >= 3:
            return self._under(text, under)
        if len(text) >= 12:
            clean = self.text(text)
            return value if clean == text else clean
        return value

    def _bytes(self, data: bytes, under: str) -> bytes:
        if under == "secret" and data.strip():
            return self._mark("secret", data).encode()
        hits = self._set.Match(data) if self._patterns else ()
        return self._replaced(data, self._found(data, hits, named=False)) if hits else data

    def _found(self, data: bytes, hits: Iterable[int] | None, named: bool = True) -> list[Found]:
        spans: list[Found] = []
        for index in sorted(
            hits or ()
        ):  # of two at one place, the first in the table names the kind
            pattern = self._patterns[index]
            for match in self._exact[index].finditer(data):
                start, end = _value_of(match)
                span = pattern.check(data, start, end) if pattern.check else (start, end)
                if span is not None and span[0] < span[1]:
                    spans.append((*_whole_letters(data, *span), pattern.kind))
        if named and self.names is not None:
            spans += _named(data, self.names)
        spans.sort(key=lambda span: (span[0], -span[1]))
        return _merged(spans) if spans else spans

    def _replaced(self, data: bytes, spans: list[Found]) -> bytes:
        """The very same object when there is nothing to replace."""
        if not spans:
            return data
        parts, at = [], 0
        for start, end, kind in spans:
            parts += [data[at:start], self._mark(kind, data[start:end]).encode()]
            at = end
        parts.append(data[at:])
        return b"".join(parts)

    def _told(self, kind: str, value: bytes) -> str:
        if not self._key:
            return f"[redacted:{kind}]"
        digest = blake2b(value, key=self._key[:64], digest_size=4).hexdigest()
        return f"[redacted:{kind}:{digest}]"


def compile_redaction(
    kinds: Iterable[Literal["secrets", "pii"]], key: bytes = b"", names: Names | None = None
) -> Redactor:
    """What takes out these kinds. Raises ValueError for a kind that is none."""
    wanted = frozenset(kinds)
    if unknown := sorted(wanted - {"secrets", "pii"}):
        raise ValueError(f"`{unknown[0]}` is nothing to redact: there are `secrets` and `pii`")
    libraries.warm(wanted)
    return Redactor(wanted, key, names)


@lru_cache(maxsize=8192)
def key_class(name: str, kinds: frozenset[str]) -> str:
    """What a key says of its value: `secret`, `random` (a secret when it looks random), `pii` or
    nothing. Its last words count: `db_password`, `x-api-key`; not `password_policy`."""
    words = [word.lower() for word in _WORD.findall(name[-120:])]
    ends = {"".join(words[-count:]) for count in (1, 2, 3, 4)}
    if "secrets" in kinds:
        if not ends.isdisjoint(_SECRET_KEYS):
            return "secret"
        if not ends.isdisjoint(_RANDOM_KEYS) and ends.isdisjoint({"pagetoken", "nexttoken"}):
            return "random" if words[-1] != "key" or len(words) > 1 else ""
    if "pii" in kinds and not ends.isdisjoint(_PII_KEYS):
        return "pii"
    return ""


@lru_cache(maxsize=8)
def _compiled(patterns: tuple[Pattern, ...]) -> tuple[Any, tuple[Any, ...]]:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = _MEMORY_MAX
    signs = re2.Set.SearchSet(options)
    for pattern in patterns:
        signs.Add(pattern.sign.encode("ascii"))
    if patterns:
        signs.Compile()
    return signs, tuple(re2.compile(p.exact.encode("ascii"), options) for p in patterns)


def _value_of(match: Any) -> tuple[int, int]:
    for place in range(1, match.re.groups + 1):
        if match.start(place) >= 0:
            return match.start(place), match.end(place)
    return match.start(), match.end()


def _whole_letters(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Never cuts a letter of several bytes in two."""
    while start and data[start] & 0xC0 == 0x80:
        start -= 1
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end += 1
    return start, end


def _named(data: bytes, names: Names) -> list[Found]:
    text = data.decode("utf-8", "surrogatepass")
    spans = []
    for start, end in names(text):
        first = len(text[:start].encode("utf-8", "surrogatepass"))
        last = first + len(text[start:end].encode("utf-8", "surrogatepass"))
        if first < last:
            spans.append((first, last, "name"))
    return spans


def _merged(spans: list[Found]) -> list[Found]:
    """Where two overlap, a secret outweighs what could be turned back."""
    merged = [spans[0]]
    for start, end, kind in spans[1:]:
        first, last, name = merged[-1]
        if start < last:
            merged[-1] = (first, max(last, end), kind if name in PII_KINDS else name)
        else:
            merged.append((start, end, kind))
    return merged
