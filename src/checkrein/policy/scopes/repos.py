"""Which repositories a remote names, and whether that is inside.

Patterns: `github.com/acme/*` (`*` within one name, `**` for any number), `acme/*` without a host;
`ssh://` or `https://` before it takes only that way. A value with a host is inside only by a
pattern with a host. `owner/name` alone is inside by either: its host is the tool's own choice.
`.git` at the end makes no difference. Other schemes than https and ssh need a pattern that names
them (`git://…`).

Refused whatever the patterns say: options (`--upload-pack=…`), transports that run a program
(`ext::`, `fd::`), local paths and `file://`, names and passwords in https addresses, `..`, letters
that are not ASCII.
"""

import re
from functools import lru_cache
from typing import NamedTuple

import re2

from checkrein.policy.scopes.addresses import Unreadable, read_address, read_host
from checkrein.policy.scopes.globs import shown, strange_letter
from checkrein.policy.scopes.paths import path_regex
from checkrein.policy.scopes.types import ScopeError, ScopeRule

REMOTE_CHARS_MAX = 1024
_NAMES_MAX = 16
_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.+-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_SCP = re.compile(r"(?:([^@:/]*)@)?([^@:/]+):(.+)", re.S)
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)/(.+)", re.S)
_ALONE = re.compile(r"[^/:@]+/[^/:@]+")
_WAYS = frozenset({"https", "ssh"})


class Remote(NamedTuple):
    """A repository: `host` with its port when that is not the scheme's own, empty when the value
    says none; `path` is `owner/name` or deeper."""

    scheme: str
    host: str
    path: str


class RepoPattern(NamedTuple):
    """One compiled pattern. `whole` is about `host/owner/name` when it names a host."""

    text: str
    scheme: str
    has_host: bool
    whole: "re2._Regexp"
    path: "re2._Regexp"

    def match(self, remote: Remote, is_denied: bool) -> bool:
        path, host = remote.path, remote.host
        if is_denied:
            path, host = path.lower(), host.rpartition(":")[0] or host
        elif remote.host and remote.scheme not in (_WAYS if not self.scheme else {self.scheme}):
            return False
        if not host:
            return self.path.fullmatch(path) is not None
        if not self.has_host:
            return is_denied and self.path.fullmatch(path) is not None
        return self.whole.fullmatch(f"{host}/{path}") is not None


class Repos:
    """A compiled `repos` scope. Pure; safe from any thread."""

    def __init__(self, rule: ScopeRule) -> None:
        """Raises ScopeError."""
        self._anything = not rule.allow and bool(rule.deny)
        self._allow = [repo_pattern(text) for text in rule.allow]
        self._deny = [repo_pattern(text, is_denied=True) for text in rule.deny]
        self._shown = ", ".join(shown(text, 60) for text in rule.allow[:5])

    def judge(self, value: str) -> str:
        """Empty: inside. Else why not."""
        try:
            remote = read_remote(value)
        except Unreadable as error:
            return f"{shown(value)} {error}"
        for pattern in self._deny:
            if pattern.match(remote, is_denied=True):
                return f"{shown(value)} is denied by {shown(pattern.text)}"
        if self._anything and remote.scheme in {*_WAYS, ""}:
            return ""
        for pattern in self._allow:
            if pattern.match(remote, is_denied=False):
                return ""
        name = f"{remote.host}/{remote.path}".lstrip("/")
        return f"{shown(name)} is outside of {self._shown or 'what is allowed: nothing'}"


def read_remote(value: str) -> Remote:
    """Raises Unreadable."""
    found = _read(value) if len(value) <= REMOTE_CHARS_MAX else "is too long"
    if isinstance(found, str):
        raise Unreadable(found)
    return found


@lru_cache(maxsize=512)
def _read(value: str) -> Remote | str:
    try:
        return _reading(value)
    except Unreadable as error:
        return str(error)


def _reading(value: str) -> Remote:
    if not value:
        raise Unreadable("is empty")
    if not value.isascii() or strange_letter(value) or " " in value:
        raise Unreadable("contains a letter that no remote has")
    if value.startswith("-"):
        raise Unreadable("is an option")
    if "::" in value:
        raise Unreadable("names a transport that runs a program")
    if any(letter in value for letter in "\\%?#$`'\"<>|;&*!{}()^~"):
        raise Unreadable("contains a letter that no remote has")
    if match := _URL.fullmatch(value):
        return _of_url(match[1].lower(), match[2], match[3])
    if "://" in value or value.startswith(("/", ".")):
        raise Unreadable("is a local path, or no remote")
    if match := _SCP.fullmatch(value):
        if match[1] is not None and not _USER.fullmatch(match[1]):
            raise Unreadable("has a user that is none")
        return Remote("ssh", read_host(match[2])[0], _path(match[3]))
    if _ALONE.fullmatch(value) and "." not in value.partition("/")[0]:
        return Remote("", "", _path(value))
    host, _, path = value.partition("/")
    if "." in host and path.strip("/").count("/") >= 1 and "@" not in value:
        return Remote("https", read_host(host)[0], _path(path))
    raise Unreadable("is a local path, or no remote")


def _of_url(scheme: str, authority: str, path: str) -> Remote:
    if scheme == "file":
        raise Unreadable("is a local path")
    user, at, host = authority.rpartition("@")
    if at and (scheme not in {"ssh", "git+ssh", "ssh+git"} or not _USER.fullmatch(user)):
        raise Unreadable("has a name or a password before the host")
    scheme = "ssh" if scheme in {"git+ssh", "ssh+git"} else scheme
    address = read_address(f"{scheme}://{host}")
    port = "" if address.is_default_port else f":{address.port}"
    return Remote(scheme, address.host + port, _path(path))


def _path(text: str) -> str:
    names = text.removesuffix("/").split("/")
    names[-1] = names[-1].removesuffix(".git")
    if len(names) < 2 or len(names) > _NAMES_MAX:
        raise Unreadable("names no repository of an owner")
    for name in names:
        if name in {".", ".."} or not _NAME.fullmatch(name) or name.endswith(".git"):
            raise Unreadable("has a name that no repository has")
    return "/".join(names)


@lru_cache(maxsize=512)
def repo_pattern(text: str, is_denied: bool = False) -> RepoPattern:
    """Raises ScopeError."""
    scheme, mark, rest = text.rpartition("://")
    rest = rest.removesuffix("/").removesuffix(".git")
    if not text.isascii() or strange_letter(text) or any(c in rest for c in " @\\%?#"):
        raise ScopeError("is no pattern for repositories, such as `github.com/acme/*`", text)
    names = rest.split("/")
    has_host = bool(mark) or "." in names[0] or ":" in names[0] or names[0] == "localhost"
    if len(names) < 2 + has_host and "**" not in names:
        raise ScopeError("names no repositories: write `github.com/acme/*` or `acme/*`", text)
    if any(not name or name in {".", ".."} or ("**" in name and name != "**") for name in names):
        raise ScopeError("is no pattern for repositories, such as `github.com/acme/*`", text)
    if has_host:
        names[0] = names[0].lower().rstrip(".")
    path = "/".join(names[1:] if has_host else names)
    whole = f"{names[0]}/{path}" if has_host else path
    if is_denied:
        path, whole = path.lower(), whole.lower().replace(names[0], names[0].split(":")[0], 1)
    return RepoPattern(
        text,
        scheme.lower(),
        has_host,
        re2.compile(path_regex(whole)),
        re2.compile(path_regex(path)),
    )
