"""One form for what reads alike: case, Unicode, look-alike letters, hidden characters, encodings.

Used only to find a value again; what is compared with the house's own domains stays as it is
written (`addresses`), since there a look-alike must not count as the original.
"""

import base64
import binascii
import html
import re
import unicodedata
from functools import lru_cache
from urllib.parse import unquote

from checkrein.policy.flow.signs import may_hide

DECODED_CHARS_MAX = 65_536
_DEPTH_MAX = 3
_TOKENS_MAX = 256

_LOOKALIKES = {
    # Cyrillic
    "\u0430": "a", "\u0432": "b", "\u044c": "b", "\u0435": "e", "\u0451": "e", "\u0437": "3",
    "\u0438": "u", "\u0456": "i", "\u0457": "i", "\u0458": "j", "\u043a": "k", "\u043c": "m",
    "\u043d": "h", "\u04bb": "h", "\u043e": "o", "\u043f": "n", "\u0440": "p", "\u0441": "c",
    "\u0442": "t", "\u0443": "y", "\u04af": "y", "\u0445": "x", "\u0455": "s", "\u0501": "d",
    "\u051b": "q", "\u051d": "w", "\u04cf": "l", "\u0433": "r", "\u050d": "g", "\u0475": "v",
    # Greek
    "\u03b1": "a", "\u03b2": "b", "\u03b3": "y", "\u03b5": "e", "\u03b6": "z", "\u03b7": "n",
    "\u03b9": "i", "\u03ba": "k", "\u03bc": "u", "\u03c5": "u", "\u03bd": "v", "\u03bf": "o",
    "\u03c3": "o", "\u03c1": "p", "\u03c4": "t", "\u03c7": "x", "\u03c9": "w", "\u03c2": "c",
    "\u03f2": "c", "\u03f3": "j", "\u03bb": "l",
    # Latin and signs
    "\u0131": "i", "\u0261": "g", "\u0251": "a", "\u017f": "s", "\u00f8": "o", "\u0111": "d",
    "\u0127": "h", "\u0142": "l", "\u01c0": "l", "\ua4f2": "l", "\u0167": "t", "\u2024": ".",
    "\u2027": ".", "\u3002": ".", "\u2215": "/", "\u2044": "/", "\u2010": "-", "\u2011": "-",
    "\u2012": "-", "\u2013": "-", "\u2014": "-", "\u2212": "-", "\uff20": "@",
}  # fmt: skip
_FOLD = str.maketrans(_LOOKALIKES)
_WORDS = str.maketrans({chr(code): " " for code in range(128) if not chr(code).isalnum()})
_NOT_WORD = re.compile(r"[\W_]+")
_SPELLED = re.compile(r"[\[({<]\s*(?:at|dot)\s*[\])}>]|(?<= )(?:at|dot)(?= )")
_SCHEME = re.compile(r"(?:[a-z][a-z0-9+.-]{1,12}:[\\/]{2})?(?:www\.)?(.+?)/?", re.S)
_PERCENT = re.compile(r"%[0-9a-fA-F]{2}")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_QUOTED = re.compile(r"\\([nrt\"'\\/]|\n\s*)")
_UNQUOTED = {"n": "\n", "r": "\r", "t": "\t"}
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{12,}(?:\r?\n[A-Za-z0-9+/_-]{4,})*={0,2}")
_HEX = re.compile(r"[0-9a-fA-F]{12,}|[0-9a-fA-F]{2}(?:[ :-][0-9a-fA-F]{2}){5,}")


def normal(text: str) -> str:
    """Lower case, compatibility forms, accents and hidden characters off, look-alikes as Latin.
    O(len)."""
    if text.isascii():
        return text.lower()
    spread = unicodedata.normalize("NFKD", text.casefold().translate(_FOLD))
    if not spread.isascii():
        spread = "".join([
            each for each in spread
            if each < "\x80" or unicodedata.category(each) not in ("Mn", "Cf", "Cc", "Me")
        ])  # fmt: skip
    return spread.casefold().translate(_FOLD)


def words_of(normalised: str) -> list[str]:
    """Its words, in their order."""
    if normalised.isascii():
        return normalised.translate(_WORDS).split()
    return _NOT_WORD.sub(" ", normalised).split()


def phrase(normalised: str) -> str:
    """Its words, with one space before, between and after: ` bob evil example `. So a phrase is in
    a text exactly if its words stand there in this order."""
    return f" {' '.join(words_of(normalised))} "


def compact(normalised: str) -> str:
    """Letters and digits alone, `[at]` and ` dot ` left out: the same however it was split."""
    if " at " in normalised or " dot " in normalised or _has_bracket(normalised):
        normalised = _SPELLED.sub("", normalised)
    return phrase(normalised).replace(" ", "")


def _has_bracket(text: str) -> bool:
    return "[" in text or "(" in text or "{" in text or "<" in text


@lru_cache(maxsize=4096)
def keys(text: str) -> tuple[str, str]:
    """A short value's phrase and compact form; of a URL without `https://`, `www.` and the last
    slash, since the same place is written with and without."""
    plain = normal(text)
    if "." in plain and (hit := _SCHEME.fullmatch(plain)):
        plain = hit[1]
    return phrase(plain), compact(plain)


def decoded(text: str) -> list[str]:
    """What the text says once decoded: percent, HTML entities, `\\u` escapes, base64 and hex inside
    of it, three layers deep. At most 64 Ki characters in all."""
    found: list[str] = []
    if not may_hide(text):
        return found
    layer, room = [text], DECODED_CHARS_MAX
    for _ in range(_DEPTH_MAX):
        deeper: list[str] = []
        for each in layer:
            for other in _decoded_once(each):
                if room <= 0:
                    return found
                other = other[:room]
                room -= len(other)
                deeper.append(other)
        if not deeper:
            break
        found += deeper
        layer = deeper
    return found


def _decoded_once(text: str) -> list[str]:
    found = []
    if "%" in text and _PERCENT.search(text):
        found.append(unquote(text, errors="ignore"))
    if "&" in text:
        plain = html.unescape(text)
        if plain != text:
            found.append(plain)
    if "\\u" in text or "\\x" in text:
        found.append(_ESCAPE.sub(lambda hit: chr(int(hit[1] or hit[2], 16)), text))
    if "\\n" in text or "\\t" in text:  # a text quoted within JSON or YAML
        found.append(_QUOTED.sub(lambda hit: _UNQUOTED.get(hit[1], hit[1]), text))
    clear = text if text.isascii() else _visible(text)
    for count, hit in enumerate(_BASE64.finditer(clear)):
        if count >= _TOKENS_MAX:
            break
        found += _from_base64(hit[0])
    for count, hit in enumerate(_HEX.finditer(clear)):
        if count >= _TOKENS_MAX:
            break
        found += _from_hex(hit[0])
    return [each.encode("utf-8", "replace").decode() for each in found]


def _visible(text: str) -> str:
    """Compatibility forms without hidden characters, case kept (base64 needs it)."""
    spread = unicodedata.normalize("NFKC", text)
    return "".join([each for each in spread if unicodedata.category(each) not in ("Cf", "Mn")])


def _from_base64(token: str) -> list[str]:
    bare = "".join(token.split()).rstrip("=").replace("-", "+").replace("_", "/")
    if bare.isdigit():
        return []
    bare = bare[: len(bare) - (len(bare) % 4 == 1)]
    try:
        raw = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        return []
    return _readable(raw)


def _from_hex(token: str) -> list[str]:
    bare = token.replace(" ", "").replace(":", "").replace("-", "")
    try:
        return _readable(bytes.fromhex(bare[: len(bare) // 2 * 2]))
    except ValueError:
        return []


def _readable(raw: bytes) -> list[str]:
    """The bytes as text, if that is what they are."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return []
    return (
        [text] if text.isprintable() or all(c.isprintable() or c in "\r\n\t" for c in text) else []
    )
