"""Patterns with `*`, `?` and `**`, compiled to RE2: linear in the text, whatever the pattern."""

import unicodedata

import re2

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def piece_regex(pattern: str, separators: str) -> str:
    """One piece of a pattern: `*` and `?` stop at each of the separators."""
    other = f"[^{re2.escape(separators)}]" if separators else "."
    parts = []
    for letter in pattern:
        match letter:
            case "*":
                parts.append(f"{other}*")
            case "?":
                parts.append(other)
            case _:
                parts.append(re2.escape(letter))
    return "".join(parts)


def strange_letter(text: str) -> str:
    """What is wrong with the letters of a text: a control character, one that cannot be seen, or
    one that another program may read as a different one (fullwidth dots, ligatures). Empty: none.
    """
    if text.isascii():
        if text.isprintable():
            return ""
        return "contains a control character"
    if text != unicodedata.normalize("NFKC", text):
        composed = unicodedata.normalize("NFC", text)
        if composed != unicodedata.normalize("NFKC", composed):
            return "contains a letter that other programs read as a different one"
    for letter in text:
        category = unicodedata.category(letter)
        if category in _HIDDEN or (category == "Zs" and letter != " "):
            return f"contains a letter that cannot be seen (U+{ord(letter):04X})"
    return ""


def folded(text: str) -> str:
    """What two names have in common that a careless program takes for the same."""
    return unicodedata.normalize("NFKC", text).casefold()


def shown(value: str, chars_max: int = 120) -> str:
    """A value as a reason quotes it: short, and nothing in it that a terminal obeys."""
    text = value if len(value) <= chars_max else value[:chars_max] + "…"
    plain = text.encode("ascii", "backslashreplace").decode()
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in plain)
    return f"`{plain.replace('`', chr(39))}`"
