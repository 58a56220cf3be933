"""Identifiers: the parts of a text or a value by which one can tell where it came from.

Strong ones name one thing (a mail address, URL, host, account, path, id with digits, phone number)
and go into the index. Weak ones (a capitalised name, an amount, a date) are only looked for in the
texts, when they are a whole argument.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from checkrein.policy.flow.normal import keys
from checkrein.policy.flow.signs import may_be_spaced, may_name

LEAVES_MAX = 256
DEPTH_MAX = 12
LEAF_CHARS_MAX = 262_144
TOKEN_CHARS_MAX = 512
SHORT_CHARS_MAX = 120
_WORDS_MAX = 8
_NAME_CHARS_MAX = 128

IdentifierKind = Literal["mail", "url", "host", "account", "path", "id", "phone", "name", "amount"]

_BETWEEN = str.maketrans(dict.fromkeys("\"'<>(){}[],;|`*", " "))
_EDGE = ".:!?-=&#%$~_"
_DATE = re.compile(
    r"(?:\d{4}[-/.]\d{1,2}(?:[-/.]\d{1,2})?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})"
    r"(?:[t ]?\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?)?(?:z|[+-]\d\d:?\d\d)?|\d{1,2}:\d\d(?::\d\d)?",
    re.I,
)
_NUMBER = re.compile(r"[-+]?[$€£]?\d{1,3}(?:[,.]?\d{3})*(?:[.,]\d{1,2})?%?[$€£]?|[-+]?\d*\.\d+")
_PHONE = re.compile(r"\+?\(?\d[\d\s().-]{6,18}\d")
_SPACED = re.compile(r"\b[A-Za-z]{2}\d{2}(?: [A-Za-z0-9]{4}){2,7}(?: [A-Za-z0-9]{1,4})?\b")
_DOTTED = re.compile(r"(?:[\w-]{1,63}\.){1,8}[a-z]{2,24}")
_FREE = frozenset({
    "subject", "title", "body", "content", "contents", "message", "description", "text", "comment",
    "note", "notes", "query", "reason", "summary", "caption", "prompt", "question", "answer",
    "details", "memo", "reference", "instructions", "review", "feedback", "topic", "headline",
})  # fmt: skip
_FILES = frozenset({
    "txt", "pdf", "doc", "docx", "xls", "xlsx", "ppt", "pptx", "csv", "tsv", "md", "rst", "json",
    "yaml", "yml", "xml", "html", "htm", "py", "js", "ts", "java", "sh", "sql", "log", "ini", "cfg",
    "toml", "png", "jpg", "jpeg", "gif", "svg", "mp3", "mp4", "wav", "zip", "tar", "gz", "bak",
    "exe", "dll", "db", "sqlite", "parquet", "ipynb", "tex", "eml", "ics", "key", "pem", "lock",
})  # fmt: skip
_GOES_TO = frozenset({
    "url", "urls", "uri", "link", "links", "href", "website", "site", "host", "hosts", "hostname",
    "domain", "endpoint", "webpage", "page", "server", "proxy", "webhook",
})  # fmt: skip
_IDENTITY = frozenset({"id", "ids", "uuid", "key", "iban", "account", "number", "no", "code"})
_NAME_PART = re.compile(r"[a-z]+|[A-Z][a-z]*|[A-Z]+(?![a-z])")


class Identifier(NamedTuple):
    """`key` is equal for equal things: letters and digits of the normal form."""

    kind: IdentifierKind
    text: str
    key: str


class Leaf(NamedTuple):
    """A text in a call's arguments: `argument` is its path without positions (`attachments.url`).
    `free`: prose, of which only the strong identifiers count."""

    argument: str
    text: str
    free: bool


def strong(text: str) -> Iterator[Identifier]:
    """The strong identifiers of a text, in their order, with repeats. O(len): tokens are cut at
    blanks and quotes, then looked at one by one."""
    if not may_name(text):
        return
    for token in [each for each in text.translate(_BETWEEN).split() if not each.isalpha()]:
        if len(token) < 3 or len(token) > TOKEN_CHARS_MAX:
            continue
        token = token.strip(_EDGE)
        kind = None if token.isalpha() else _kind(token)
        if kind is not None:
            key = keys(token)[1]
            if len(key) >= 2:
                yield Identifier(kind, token, key)
                if kind == "url":
                    yield from _host(token)
    if len(text) <= LEAF_CHARS_MAX and may_be_spaced(text):
        for hit in _SPACED.finditer(text):
            yield Identifier("account", hit[0], keys(hit[0])[1])


def named(text: str) -> tuple[Identifier, ...]:
    """The strong identifiers of an argument's value; of short ones, which calls repeat, those of
    the latest 4,096 are kept."""
    return _short_named(text) if len(text) <= SHORT_CHARS_MAX else tuple(strong(text))


@lru_cache(maxsize=4096)
def _short_named(text: str) -> tuple[Identifier, ...]:
    return tuple(strong(text))


def _kind(token: str) -> IdentifierKind | None:
    if len(token) < 3:
        return None
    if "@" in token:
        return "mail" if token[0] != "@" and "." in token else None
    if "://" in token or token.startswith("www."):
        return "url"
    digits = sum(map(str.isdigit, token)) if not token.isdigit() else len(token)
    if digits and (_DATE.fullmatch(token) or _NUMBER.fullmatch(token)) and digits < 7:
        return None
    if digits and _DATE.fullmatch(token):
        return None
    if "/" in token or "\\" in token:
        first = token.partition("/")[0]
        if _DOTTED.fullmatch(first.lower()):
            return "url"
        return "path" if token[0] in "/~." or token.count("/") + token.count("\\") > 1 else None
    if "." in token and _DOTTED.fullmatch(token.lower()):
        return "path" if token.rpartition(".")[2].lower() in _FILES else "host"
    if digits >= 8 and len(token) - digits <= 6:
        return "phone" if token[0] == "+" else "account"
    return "id" if digits else None


def _host(url: str) -> Iterator[Identifier]:
    """The host of a URL counts by itself: another page there is still the same place."""
    rest = url.partition("://")[2] or url
    host = rest.replace("\\", "/").partition("/")[0].partition("?")[0].rpartition("@")[2]
    host = host.partition(":")[0].partition("#")[0].removeprefix("www.")
    if host and "." in host:
        yield Identifier("host", host, keys(host)[1])


def texts(value: Any) -> Iterator[str]:
    """Every text in a value, keys of maps too; numbers as their text. At most 12 deep."""
    left = 20_000
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack and left > 0:
        left -= 1
        each, depth = stack.pop()
        match each:
            case str():
                yield each[:LEAF_CHARS_MAX]
            case bytes() | bytearray():
                yield bytes(each[:LEAF_CHARS_MAX]).decode("utf-8", "replace")
            case bool() | None:
                pass
            case int():
                if -(10**300) < each < 10**300:
                    yield str(each)
            case float():
                yield repr(each)
            case dict() if depth < DEPTH_MAX:
                for key, inner in reversed(list(each.items())[:left]):
                    stack.append((inner, depth + 1))
                    if type(key) is str:
                        stack.append((key, depth + 1))
            case list() | tuple() | set() | frozenset() if depth < DEPTH_MAX:
                stack.extend((inner, depth + 1) for inner in reversed(list(each)[:left]))
            case _ if depth < DEPTH_MAX and not isinstance(each, dict | list | tuple | set):
                yield _shown(each)


def _shown(value: Any) -> str:
    try:
        return str(value)[:LEAF_CHARS_MAX]
    except Exception:  # an object of the agent's own: it may raise anything
        return ""


def leaves(arguments: dict[str, Any]) -> list[Leaf]:
    """The texts of a call's arguments, at most 256, with the name of the argument."""
    found: list[Leaf] = []
    for name, value in arguments.items():
        if type(value) is str:
            if value:
                found.append(_leaf(str(name), value))
        else:
            _leaves_of(str(name), value, found)
        if len(found) >= LEAVES_MAX:
            break
    return found


def _leaves_of(whole: str, value: Any, found: list[Leaf]) -> None:
    stack: list[tuple[str, Any, int]] = [(whole, value, 0)]
    while stack and len(found) < LEAVES_MAX:
        name, each, depth = stack.pop()
        match each:
            case str():
                if each:
                    found.append(_leaf(name, each))
            case bool() | float() | None:
                pass
            case int():
                if _is_identity(name) and abs(each) < 10**300:
                    found.append(Leaf(name, str(each), False))
            case dict() if depth < DEPTH_MAX:
                stack.extend(
                    (f"{name}.{key}", inner, depth + 1)
                    for key, inner in reversed(list(each.items())[:LEAVES_MAX])
                )
            case list() | tuple() | set() | frozenset() if depth < DEPTH_MAX:
                stack.extend(
                    (name, inner, depth + 1) for inner in reversed(list(each)[:LEAVES_MAX])
                )
            case bytes():
                found.append(_leaf(name, each[:LEAF_CHARS_MAX].decode("utf-8", "replace")))
            case _:
                pass


def _leaf(name: str, text: str) -> Leaf:
    free = (
        len(text) > SHORT_CHARS_MAX
        or text.count(" ") >= _WORDS_MAX
        or _ends_in_free(name[-_NAME_CHARS_MAX:])
    )
    return Leaf(name, text[:LEAF_CHARS_MAX], free)


@lru_cache(maxsize=2048)
def _ends_in_free(name: str) -> bool:
    return name.rpartition(".")[2].rpartition("_")[2].lower() in _FREE


def is_weak(name: str, text: str) -> bool:
    """A date, a time, an amount or a flag: it says nothing of where it came from. A number counts
    where the argument's name says that it names something."""
    if len(text) < 2 and not _is_identity(name):
        return True
    if _DATE.fullmatch(text):
        return True
    if len(text) <= 24 and _NUMBER.fullmatch(text):
        return not _is_identity(name) and sum(map(str.isdigit, text)) < 7
    return text.lower() in ("true", "false", "none", "null", "yes", "no")


def goes_to(leaf: Leaf) -> bool:
    """Whether a read with this argument goes somewhere: a URL, or a host by the argument's name."""
    text = leaf.text
    if "://" in text or text[:4].lower() == "www.":
        return True
    parts = _NAME_PART.findall(leaf.argument.rpartition(".")[2])
    return bool(parts) and parts[-1].lower() in _GOES_TO and "." in text


def _is_identity(name: str) -> bool:
    return _ends_in_identity(name[-_NAME_CHARS_MAX:])


@lru_cache(maxsize=2048)
def _ends_in_identity(name: str) -> bool:
    parts = _NAME_PART.findall(name.rpartition(".")[2])
    return bool(parts) and parts[-1].lower() in _IDENTITY
