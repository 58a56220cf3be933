"""Hosts and mail domains in a value, as they are written, and whether they are the house's own."""

import re
from collections.abc import Iterable

_MAIL = re.compile(r"@\s*([^\s@<>\"',;()\[\]]{1,253})")
_URL_HEAD = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{0,30}:[\\/]{2,}")
_HOST_END = re.compile(r"[\s/\\?#\"'<>|,;]")
_BARE = re.compile(r"(?<![\w@.\-])(?:[\w\-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w@])")
_VALUE_CHARS_MAX = 8192


def domains(value: str) -> list[str]:
    """Every host and mail domain of a text: of mail addresses, of URLs (behind any userinfo), and
    bare names (`www.corp.example/x`). Lower case, nothing else changed."""
    value = value[:_VALUE_CHARS_MAX]
    found = [hit.rstrip(".").lower() for hit in _MAIL.findall(value)]
    for hit in _URL_HEAD.finditer(value):
        rest = value[hit.end() : hit.end() + 2048]
        end = _HOST_END.search(rest)
        authority = rest[: end.start()] if end else rest
        host = authority.rpartition("@")[2]
        if host.startswith("["):
            found.append(host.partition("]")[0].lower() + "]")
        else:
            found.append(host.partition(":")[0].rstrip(".").lower())
    if not found:
        found = [hit.lower() for hit in _BARE.findall(value)]
    return found


class Internal:
    """The pact's `internal`: domains, each with what lies under it."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(_bare(name) for name in names if _bare(name))

    def domain(self, name: str) -> bool:
        """Exactly one of them, or below one. A look-alike is not."""
        if not name.isascii():
            return False
        while name:
            if name in self._names:
                return True
            name = name.partition(".")[2]
        return False

    def value(self, value: str) -> bool:
        """Whether everything this text addresses is inside. What names no domain at all (an
        account, a phone number) is inside only if it stands in the list itself."""
        found = domains(value)
        if not found:
            return value.strip().lower() in self._names
        return all(self.domain(name) for name in found)


def _bare(name: str) -> str:
    return name.strip().lower().removeprefix("*.").removeprefix("@").strip(".")
