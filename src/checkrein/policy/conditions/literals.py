"""Literals of a condition's text as values."""

import re

INT_LEAST = -(2**63)
INT_MOST = 2**63 - 1

_SIMPLE = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "?": "?", '"': '"', "'": "'", "`": "`",
}  # fmt: skip
_ESCAPE = re.compile(
    r"\\(?:(?P<simple>[abfnrtv\\?\"'`])|[xX](?P<byte>[0-9A-Fa-f]{2})|(?P<octal>[0-3][0-7]{2})"
    r"|u(?P<short>[0-9A-Fa-f]{4})|U(?P<long>[0-9A-Fa-f]{8})|(?P<wrong>(?:.|\n)?))"
)


class LiteralError(ValueError):
    """A literal that means nothing; `offset` counts characters within it."""

    def __init__(self, problem: str, offset: int = 0) -> None:
        super().__init__(problem)
        self.offset = offset


def whole(text: str) -> int:
    """`12`, `0xff`, `12u`. May be 2**63, which only a minus before it makes good."""
    text = text.rstrip("uU")
    if len(text) > 24:
        raise LiteralError("the number is too large: whole numbers have 64 bits")
    value = int(text, 16) if text[:2] in ("0x", "0X") else int(text)
    if value > INT_MOST + 1:
        raise LiteralError("the number is too large: whole numbers have 64 bits")
    return value


def raw(text: str) -> str | bytes:
    """`r"…"`, `rb"…"` and the long forms."""
    letters = len(text) - len(text.lstrip("rRbB"))
    body = _unquoted(text[letters:])
    return body.encode() if "b" in text[:letters].lower() else body


def quoted(text: str) -> str | bytes:
    """`"…"`, `b"…"` and the long forms, with their escapes."""
    if text[0] in "bB":
        return _bytes(_unquoted(text[1:]))
    skipped = 3 if text[:3] in ('"""', "'''") else 1

    def meant(found: re.Match[str]) -> str:
        code = _code(found, skipped)
        if isinstance(code, str):
            return code
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise LiteralError(f"there is no character {found[0]}", skipped + found.start())
        return chr(code)

    return _ESCAPE.sub(meant, _unquoted(text))


def _bytes(body: str) -> bytes:
    """Of bytes, an escape by number is one byte and no character."""
    whole_bytes, at = bytearray(), 0
    for found in _ESCAPE.finditer(body):
        whole_bytes += body[at : found.start()].encode()
        at = found.end()
        code = _code(found, 2)
        if isinstance(code, str):
            whole_bytes += code.encode()
        elif found["short"] or found["long"]:
            raise LiteralError(f"{found[0]} is no byte: write \\xHH", 2 + found.start())
        else:
            whole_bytes.append(code)
    return bytes(whole_bytes + body[at:].encode())


def _code(found: re.Match[str], skipped: int) -> str | int:
    if found["simple"]:
        return _SIMPLE[found["simple"]]
    if found["octal"]:
        return int(found["octal"], 8)
    number = found["byte"] or found["short"] or found["long"]
    if number:
        return int(number, 16)
    raise LiteralError(
        f"unknown escape `{found[0]}`: for a backslash itself write \\\\, or put r before the text",
        skipped + found.start(),
    )


def _unquoted(text: str) -> str:
    if text[:3] in ('"""', "'''") and len(text) >= 6:
        return text[3:-3]
    return text[1:-1]
