"""What secrets and personal data look like: a cheap sign of each, what it is exactly, and a check.

`sign` is what every one of them contains, as simple as can be, since all signs are looked for at
once in every text. `exact` runs only where the sign was seen; the one of its groups that matched is
the part to hide. `check` has the last word: a checksum, or whether the value is random at all.
All are expressions of RE2 over bytes.
"""

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from math import log2
from typing import NamedTuple

from checkrein.policy import redact_libraries as libraries
from checkrein.policy import redact_national as national

Span = tuple[int, int]
Check = Callable[[bytes, int, int], Span | None]
"""Takes the text and where a match stands; gives what of it to hide, or None: nothing."""


class Pattern(NamedTuple):
    kind: str
    sign: str
    exact: str
    check: Check | None = None


def entropy(value: bytes) -> float:
    """Shannon's, in bits a byte."""
    size = len(value)
    return -sum(n / size * log2(n / size) for n in Counter(value).values()) if size else 0.0


_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEX = re.compile(rb"(?:[0-9a-f]+|[0-9A-F]+)")
_PLACEHOLDER = re.compile(
    rb"(?i)(?:str|string|text|bytes|int|number|bool|boolean|any|object|optional|required|null|none|"
    rb"nil|true|false|undefined|unknown|empty|missing|invalid|redacted|hidden|self|this|type|value|"
    rb"default|env|yes|no|not|is|must|x+|\*+|\.+|-+|_+|\?+|<[^<>]*>?|\$\{?[\w.]*\}?|\{\{?[^{}]*\}*|"
    rb"%[sdrv]|\[redacted.*)"
)
_DOTTED = re.compile(rb"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_SECRET_WORD = re.compile(rb"(?i)pass|secret|token|key|cred|auth|pwd|env|config|settings")


def is_placeholder(value: bytes) -> bool:
    """A value that says there is none: `null`, `***`, `${TOKEN}`, `<your key>`."""
    return _PLACEHOLDER.fullmatch(value) is not None


def is_random(value: bytes) -> bool:
    """Whether a value looks drawn by chance: letters and digits, many different ones."""
    if len(value) < 16 or is_placeholder(value) or b" " in value:
        return False
    has_digit = any(48 <= byte <= 57 for byte in value)
    has_letter = any(65 <= byte <= 90 or 97 <= byte <= 122 for byte in value)
    return has_digit and has_letter and entropy(value) >= 3.0


def is_id(value: bytes) -> bool:
    """A UUID or a hash: random too, but a name rather than a secret."""
    return _UUID.fullmatch(value) is not None or _HEX.fullmatch(value) is not None


_ABOUT = re.compile(
    rb"(?i)(?:timeout|polic(?:y|ies)|length|minimum|maximum|validators?|hashers?|expir[a-z]*|"
    rb"attempts|count|failed[_-]?passwords?)[\"'`\\\s:=>]*$"
)
"""The end of a name that is about a secret and does not hold it: `PASSWORD_RESET_TIMEOUT=`."""


def _after_strong_name(text: bytes, start: int, end: int) -> Span | None:
    value = text[start:end]
    quoted = text[start - 1 : start] in (b'"', b"'", b"`")
    if is_placeholder(value) or _ABOUT.search(text[max(0, start - 80) : start]):
        return None
    if not quoted and (
        value[:1] == b"/"
        or text[end : end + 1] in (b"(", b"[")
        or (_DOTTED.fullmatch(value) and _SECRET_WORD.search(value))
        or _SECRET_WORD.fullmatch(value)
    ):
        return None  # code that takes it from somewhere
    return start, end


def _after_token(text: bytes, start: int, end: int) -> Span | None:
    value = text[start:end]
    if not is_random(value) or libraries.is_no_secret(value, text[max(0, start - 80) : start]):
        return None
    return start, end


def _after_key(text: bytes, start: int, end: int) -> Span | None:
    value = text[start:end]
    if len(value) < 20 or not is_random(value) or is_id(value) or libraries.is_regular(value):
        return None
    if libraries.is_no_secret(value, text[max(0, start - 80) : start]):
        return None
    return None if b"pub" in text[max(0, start - 24) : start].lower() else (start, end)


def _in_url(text: bytes, start: int, end: int) -> Span | None:
    value = text[start:end]
    is_port = re.match(rb"[0-9]{1,5}(?:[/?#]|$)", value)
    return None if is_port or is_placeholder(value) else (start, end)


_FILES = frozenset(b"png jpg jpeg gif svg webp css js mjs ts json html py md txt map".split())
"""How the name of a file ends, as `icon@2x.png`, and no mail address."""


def _mail(text: bytes, start: int, end: int) -> Span | None:
    mailbox = text[start:end].partition(b"@")[0].lower()
    follows = text[end : end + 1]
    ending = text[start:end].rpartition(b".")[2].lower()
    if (mailbox == b"git" and follows in (b":", b"/")) or ending in _FILES:
        return None
    while text[start : start + 1] == b"'":  # a quotation mark, not the mailbox's
        start += 1
    return start, end


def _card(text: bytes, start: int, end: int) -> Span | None:
    """The card's number within a run of digits: one with a known beginning and a right checksum."""
    places = [at for at in range(start, end) if 48 <= text[at] <= 57]
    for first in range(len(places) - 12):
        at = places[first]
        before = text[at - 1 : at] if at else b""
        if before.isalnum() or before in (b".", b"_") or not text[at : at + 3].isdigit():
            continue
        for size in (16, 15, 14, 19, 18, 17, 13):
            if first + size > len(places):
                continue
            stop = places[first + size - 1] + 1
            after = text[stop : stop + 1]
            if after.isalnum() or (after == b"." and text[stop + 1 : stop + 2].isdigit()):
                continue
            digits = bytes(text[p] for p in places[first : first + size])
            if _is_issued(digits) and _is_grouped(text[at:stop]) and luhn(digits):
                return at, stop
    return None


def _is_grouped(number: bytes) -> bool:
    """Written in one, or in groups of three digits and more: no calendar, no row of numbers."""
    return all(len(group) >= 3 for group in re.split(rb"[ -]", number))


def _is_issued(digits: bytes) -> bool:
    size = len(digits)
    two, three, four = int(digits[:2]), int(digits[:3]), int(digits[:4])
    if digits[0] == 0x34:
        return size in (13, 16, 19)
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return size == 16
    if two in (34, 37):
        return size == 15
    if 300 <= three <= 305 or two in (36, 38, 39):
        return size in (14, 16, 19)
    return size in (16, 19) and (
        two in (35, 62, 65)
        or four == 6011
        or 644 <= three <= 649
        or two in (50, 56, 57, 58, 60, 67)
    )


def luhn(digits: bytes) -> bool:
    """The checksum of card numbers (ISO/IEC 7812-1)."""
    total = 0
    for place, byte in enumerate(reversed(digits)):
        number = (byte - 48) * (2 if place % 2 else 1)
        total += number - 9 if number > 9 else number
    return total % 10 == 0


IBAN_SIZES = {
    b"AD": 24, b"AE": 23, b"AL": 28, b"AT": 20, b"AZ": 28, b"BA": 20, b"BE": 16, b"BG": 22,
    b"BH": 22, b"BR": 29, b"BY": 28, b"CH": 21, b"CR": 22, b"CY": 28, b"CZ": 24, b"DE": 22,
    b"DK": 18, b"DO": 28, b"EE": 20, b"EG": 29, b"ES": 24, b"FI": 18, b"FR": 27,
    b"FO": 18,  # codespell:ignore fo
    b"GB": 22, b"GE": 22, b"GI": 23, b"GL": 18, b"GR": 27, b"GT": 28, b"HR": 21, b"HU": 28,
    b"IE": 22, b"IL": 23, b"IQ": 23, b"IS": 26, b"IT": 27, b"JO": 30, b"KW": 30, b"KZ": 20,
    b"LB": 28, b"LC": 32, b"LI": 21, b"LT": 20, b"LU": 20, b"LV": 21, b"LY": 25, b"MC": 27,
    b"MD": 24, b"ME": 22, b"MK": 19, b"MR": 27, b"MT": 31, b"MU": 30, b"NL": 18, b"NO": 15,
    b"PK": 24, b"PL": 28, b"PS": 29, b"PT": 25, b"QA": 29, b"RO": 24, b"RS": 22, b"SA": 24,
    b"SC": 31, b"SE": 24, b"SI": 19, b"SK": 24, b"SM": 27, b"ST": 25, b"SV": 28, b"TL": 23,
    b"TN": 24, b"TR": 26, b"UA": 29, b"VA": 22, b"VG": 24, b"XK": 20,
}  # fmt: skip


def _iban(text: bytes, start: int, end: int) -> Span | None:
    size = IBAN_SIZES.get(text[start : start + 2].upper())
    if size is None:
        return None
    places = [at for at in range(start, end) if text[at : at + 1].isalnum()][:size]
    after = text[places[-1] + 1 : places[-1] + 2]
    if len(places) < size or after.isalnum():
        return None
    compact = bytes(text[at] for at in places).upper()
    if not mod97(compact) or libraries.is_iban(compact.decode("ascii")) is False:
        return None
    return start, places[-1] + 1


def mod97(compact: bytes) -> bool:
    """The checksum of an IBAN (ISO 13616)."""
    turned = (compact[4:] + compact[:4]).decode("ascii")
    return int("".join(str(int(letter, 36)) for letter in turned)) % 97 == 1


def _ssn(text: bytes, start: int, end: int) -> Span | None:
    digits = text[start:end].replace(b"-", b"").replace(b" ", b"")
    bad = digits[:3] in (b"000", b"666") or digits[:1] == b"9"
    return None if bad or digits[3:5] == b"00" or digits[5:] == b"0000" else (start, end)


REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "IN", "AU", "BR", "JP", "CN")
"""Whose own form of phone numbers is known, where no `+` says the country."""


def _phone(
    text: bytes, start: int, end: int, regions: tuple[str, ...] = REGIONS, strict: bool = False
) -> Span | None:
    digits = sum(48 <= byte <= 57 for byte in text[start:end])
    if not 7 <= digits <= 15:
        return None
    return None if libraries.is_phone(text[start:end], regions, strict) is False else (start, end)


_phone_us = partial(_phone, regions=("US",))
_phone_local = partial(_phone, strict=True)


def _national(text: bytes, start: int, end: int, module: str) -> Span | None:
    return (start, end) if national.is_one(module, text, start, end) else None


def _given(sign: str, exact: str, kind: str) -> Pattern:
    return Pattern(kind, sign, rf"(?:^|[^A-Za-z0-9])({exact})")


_SEPARATOR = r"""\\{0,4}["'`]?\s{0,4}(?:[:=]|=>|:=|%3[dD])\s{0,4}"""
_VALUE = (
    r"""(?:\\{1,4}["']((?:[^"'\\]|\\[^"'])+)|["'`]((?:[^"'`\\\n]|\\.)+)|"""
    r"""([^\s"'`\\,;&<>(){}\[\]]+))"""
)
_STRONG = (
    r"(?:passw(?:or)?d|passwort|passphrase|pwd|secret(?:[_-]?(?:access)?[_-]?key)?|api[_-]?key|"
    r"(?:access|private|auth|encryption|signing|account|shared[_-]?access|storage|master)[_-]?key|"
    r"credentials?)"
)

SECRETS = (
    _given("cr[arot]_[A-Za-z0-9_-]", r"cr[arot]_[A-Za-z0-9_-]{20,}", "checkrein-key"),
    _given("sk-ant-", r"sk-ant-[A-Za-z0-9_-]{16,}", "api-key"),
    _given("sk-[A-Za-z0-9_-]", r"sk-(?:[a-z]+-)*[A-Za-z0-9_-]{16,}", "api-key"),
    _given("[rs]k_(?:live|test)_", r"[rs]k_(?:live|test)_[A-Za-z0-9]{10,}", "api-key"),
    _given("whsec_", r"whsec_[A-Za-z0-9+/=]{16,}", "api-key"),
    _given("A[A-Z]{2}A[A-Z0-9]", r"(?:AKIA|ASIA|AGPA|AROA|AIDA|AIPA|ANPA|ANVA|ABIA|ACCA)"
           r"[A-Z0-9]{16}", "aws-key"),
    _given("gh[pousr]_", r"gh[pousr]_[A-Za-z0-9_]{30,}", "github-token"),
    _given("github_pat_", r"github_pat_[A-Za-z0-9_]{22,}", "github-token"),
    _given("gl[a-z]+-[A-Za-z0-9_.=-]", r"gl(?:pat|dt|rt|cbt|ptt|ft|oas|soat|agent|imt|ffct)-"
           r"[A-Za-z0-9_.=-]{16,}", "gitlab-token"),
    _given("x(?:ox[a-z]|app)-", r"x(?:ox[abceoprs](?:\.xox[a-z])?|app)-[A-Za-z0-9-]{10,}",
           "slack-token"),
    _given("hooks.slack.com/",
    r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9_/+-]{20,}",
           "webhook"),
    _given("discord(?:app)?.com/api/webhooks",
    r"discord(?:app)?\.com/api/webhooks/[0-9]+/[\w-]{30,}",
           "webhook"),
    _given("AIza", r"AIza[A-Za-z0-9_-]{30,}", "google-key"),
    _given(r"ya29\.", r"ya29\.[A-Za-z0-9_.-]{20,}", "google-key"),
    _given("GOCSPX-", r"GOCSPX-[A-Za-z0-9_-]{20,}", "google-key"),
    _given("npm_", r"npm_[A-Za-z0-9]{30,}", "npm-token"),
    _given("pypi-A", r"pypi-A[A-Za-z0-9_-]{40,}", "pypi-token"),
    _given("hf_", r"hf_[A-Za-z0-9]{30,}", "api-key"),
    _given(r"SG\.", r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}", "api-key"),
    _given("SK[0-9a-f]{4}", r"SK[0-9a-f]{32}", "api-key"),
    _given("key-[0-9a-f]{4}", r"key-[0-9a-f]{32}", "api-key"),
    _given(":AA", r"[0-9]{8,10}:AA[A-Za-z0-9_-]{32,}", "api-key"),
    _given("shp[a-z]+_", r"shp(?:at|ca|pa|ss|tka)_[a-fA-F0-9]{32}", "api-key"),
    _given("do[opr]_v1_", r"do[opr]_v1_[a-f0-9]{64}", "api-key"),
    _given("dapi[0-9a-f]", r"dapi[0-9a-f]{32}(?:-[0-9])?", "api-key"),
    _given("(?:lin_api|ntn|gsk|r8|sbp|glsa|glc|sntrys|sntryu|dop|pat|oauth|rubygems|nvapi|shippo)_",
           r"(?:lin_api|ntn|gsk|r8|sbp|glsa|glc|sntrys|sntryu|rubygems)_[A-Za-z0-9_=+/-]{20,}",
           "api-key"),
    _given("(?:xai|pplx|nvapi|HRKU|NRAK|PMAK|CFPAT|EZAK|EZTK)-",
    r"(?:xai|pplx|nvapi|HRKU|NRAK|PMAK|"
           r"CFPAT|EZAK|EZTK)-[A-Za-z0-9_-]{20,}", "api-key"),
    _given(r"hv[sbr]\.", r"hv[sbr]\.[A-Za-z0-9_-]{20,}", "api-key"),
    _given(r"dp\.[a-z]+\.", r"dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9]{30,}", "api-key"),
    _given("[0-9a-f]{8}-us[0-9]", r"[0-9a-f]{32}-us[0-9]{1,2}", "api-key"),
    _given(r"[MNO][A-Za-z0-9_-]{23,25}\.", r"[MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\."
           r"[A-Za-z0-9_-]{27,38}", "api-key"),
    _given("AKCp?[A-Za-z0-9]{4}", r"AKC[A-Za-z0-9]{10,}", "api-key"),
    _given(r"pat[A-Za-z0-9]+\.", r"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}", "api-key"),
    _given("sq0[a-z]{3}-", r"sq0[a-z]{3}-[A-Za-z0-9_-]{20,}", "api-key"),
    _given("AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1[0-9A-Z]{50,}", "private-key"),
    Pattern("private-key", "-----BEGIN [A-Z0-9 ]*PRIVATE KEY",
            r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:.*?-----END [A-Z0-9 ]*"
            r"PRIVATE KEY(?: BLOCK)?-----|[A-Za-z0-9+/=\s\\:,-]*)"),
    _given("eyJ[A-Za-z0-9_-]+\\.",
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,3}",
           "jwt"),
    Pattern("url-password", r"://[^\s/?#:@]*:[^\s]+@",
            r"""://[^\s/?#:@"'<>]{0,256}:([^\s"'<>]{1,512})@[A-Za-z0-9\[]""", _in_url),
    Pattern("authorization", r"(?i)authorization",
            r"""(?i)authorization["'\\]{0,5}\s{0,4}[:=]\s{0,4}["'\\]{0,5}"""
            r"""(?:(?:bearer|basic|token|digest|apikey|negotiate)\s{1,4})?([^\s"'\\,;]{6,})""",
            _after_strong_name),
    Pattern("authorization", r"(?i)(?:bearer|basic)\s",
            r"(?i)(?:bearer|basic)\s{1,4}([A-Za-z0-9._~+/=-]{16,})", _after_token),
    Pattern("cookie", "(?i)cookie", r"""(?i)cookie["'\\]{0,5}\s{0,4}[:=]\s{0,4}["'\\]{0,5}"""
            r"""([A-Za-z0-9_.%-]{1,64}=[^\r\n"'\\]{8,})"""),
    Pattern("secret", rf"(?i){_STRONG}",
            rf"(?i){_STRONG}[A-Za-z0-9_-]{{0,20}}{_SEPARATOR}{_VALUE}", _after_strong_name),
    Pattern("secret", r"(?i)(?:token|auth|session|sid|signature|credential)[A-Za-z0-9_-]{0,20}"
            r"""["'`\\]{0,5}\s{0,4}(?:[:=]|%3d)""",
            r"(?i)(?:token|auth|session|sid|signature|credential)[A-Za-z0-9_-]{0,20}"
            rf"{_SEPARATOR}{_VALUE}", _after_token),
    Pattern("secret", r"""(?i)(?:key|sig)["'`\\]{0,5}\s{0,4}(?:[:=]|%3d)""",
            rf"(?i)(?:key|sig){_SEPARATOR}{_VALUE}", _after_key),
)  # fmt: skip

_MAILBOX = r"[A-Za-z0-9_%+'\x80-\xff-]"
PII = (
    Pattern("email", r"[A-Za-z0-9_%+'\x80-\xff-]@[A-Za-z0-9\x80-\xff]",
            rf"({_MAILBOX}+(?:\.{_MAILBOX}+)*@(?:[A-Za-z0-9\x80-\xff](?:[A-Za-z0-9\x80-\xff-]*"
            r"[A-Za-z0-9\x80-\xff])?\.)+[A-Za-z\x80-\xff]{2,})", _mail),
    Pattern("phone", r"\+[1-9(]", r"(?:^|[^\w+])(\+[1-9](?:[ ().-]{0,3}[0-9]){6,14})\b", _phone),
    Pattern("phone", r"\b[0-9]{3}(?:\) ?|[-.])[0-9]{3}[-. ][0-9]{4}\b",
            r"(?:^|[^\w.+-])((?:1[-. ])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[-.])[0-9]{3}[-. ]"
            r"[0-9]{4})\b", _phone_us),
    Pattern("phone", r"(?:^|[^\w.+-])0[1-9][0-9]{0,3}[ .-][0-9]{2}",
            r"(?:^|[^\w.+-])(0[1-9](?:[ .-][0-9]{2}){4}|0[1-9][0-9]{2,3}[ -][0-9]{3}[ -]?"
            r"[0-9]{3,4})\b", _phone_local),
    Pattern("phone", r"(?i)(?:phone|mobile|cell|tel|fax|whatsapp|sms)[^0-9]{0,30}[0-9]",
            r"(?i)\b(?:phone|mobile|cell|telephone|tel|fax|whatsapp|sms)(?:[ _-]?(?:number|no|nr))?"
            r"""["'\\.]{0,5}\s{0,3}[:=]?\s{0,3}["'\\]{0,5}"""
            r"(\+?\(?[0-9](?:[ ().-]{0,3}[0-9]){6,14})\b",
            _phone),
    Pattern("iban", r"(?i)[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11}",
            r"(?i)\b([A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30})", _iban),
    Pattern("card", r"[0-9](?:[ -]?[0-9]){12}", r"([0-9](?:[ -]?[0-9]){12,40})", _card),
    Pattern("ssn", r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b",
            r"(?:^|[^\w-])([0-9]{3}-[0-9]{2}-[0-9]{4})(?:$|[^\w-])", _ssn),
    Pattern("ssn", r"(?i)(?:ssn|social.security)[^0-9\n]{0,20}[0-9]{3}",
            r"(?i)(?:ssn|social.security)[^0-9\n]{0,20}([0-9]{3}[ -]?[0-9]{2}[ -]?[0-9]{4})\b",
            _ssn),
    *(Pattern(national.KIND, rf"\b{form}\b", rf"\b({form})\b", partial(_national, module=module))
      for module, form in national.ANYWHERE),
    *(Pattern(national.KIND, rf"(?i)(?:{words})[^0-9\n]{{0,{national.GAP_CHARS_MAX}}}[0-9]",
              rf"(?i)(?:{words})[^0-9\n]{{0,{national.GAP_CHARS_MAX}}}({form})\b",
              partial(_national, module=module))
      for module, words, form in national.AFTER_A_WORD),
)  # fmt: skip

PII_KINDS = frozenset({pattern.kind for pattern in PII} | {"pii", "name"})
"""What can be turned back for an agent's own tools; no secret ever is."""
