"""Which hosts a URL, a host or a mail address leads to, and whether that is inside.

Patterns: `acme.com` is that host alone (and mail to it), `*.acme.com` every host below it and not
itself, `*` every public host; `https://` before it takes only that scheme, `:8443` only that port,
`:*` any; `pay@acme.com` one mailbox, `*@acme.com` mail and nothing else; `192.0.2.7` an address,
`10.0.0.0/8` a network (any port). Without a scheme: http, https and none at all; without a port:
the scheme's own. A deny pattern without a port denies all of them. Only deny patterns: every other
public host is inside.

Refused unless a pattern names them: private, loopback, link-local and metadata addresses, names
without a dot, `localhost`, `*.internal` and their like. `*` and patterns like `*.com` never name
an address.

A name is not looked up here: which address it leads to is only known to whoever connects, and must
be judged there (`addresses.is_private_number`). So must every hop of a redirect (`same_scope`).
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple, Protocol

import re2

from checkrein.policy.scopes.addresses import (
    Address,
    Unreadable,
    inner_number,
    is_private_name,
    read_address,
    read_host,
)
from checkrein.policy.scopes.globs import piece_regex, shown
from checkrein.policy.scopes.types import ScopeError, ScopeRule

_WEB = frozenset({"", "http", "https"})


class JudgesUrls(Protocol):
    def judge_url(self, url: str) -> str: ...


class HostPattern(NamedTuple):
    """One pattern. `port` -1: any, 0: the scheme's own. `mailbox` "": not only mail; "*": any."""

    text: str
    scheme: str
    host: str
    port: int
    mailbox: str
    expression: "re2._Regexp | None"
    network: IPv4Network | IPv6Network | None
    is_denied: bool

    def match(self, address: Address) -> bool:
        if self.mailbox and not self._is_mailbox(address.mailbox):
            return False
        if self.scheme:
            if address.scheme != self.scheme and not (self.is_denied and not address.scheme):
                return False
        elif address.scheme not in _WEB and not self.is_denied:
            return False
        if not (self.port == -1 or self._is_port(address)):
            return False
        if self.network is not None:
            inner = inner_number(address.number) if self.is_denied else None
            return any(n is not None and n in self.network for n in (address.number, inner))
        if self.expression is None:
            return address.host == self.host
        if address.number is not None and not (self.is_denied and self.host == "*"):
            return self.host == "*" and not address.is_private
        if address.is_private and not self.is_denied and not self._names_private():
            return False
        return self.expression.fullmatch(address.host) is not None

    def _names_private(self) -> bool:
        """`*.internal` and `app-*` name what is not public; `*` and `*.io` do not."""
        is_word = "." not in self.host and self.host != "*"
        return is_word or is_private_name(self.host.rpartition("*")[2].lstrip("."))

    def _is_port(self, address: Address) -> bool:
        if self.port == 0:
            return address.is_default_port
        return address.port == self.port or (self.is_denied and not address.port)

    def _is_mailbox(self, mailbox: str) -> bool:
        if not mailbox or self.mailbox == "*":
            return bool(mailbox)
        if self.is_denied:
            return mailbox.lower().split("+")[0] == self.mailbox.lower().split("+")[0]
        return mailbox == self.mailbox


class Hosts:
    """A compiled `hosts` scope. Pure; safe from any thread."""

    def __init__(self, rule: ScopeRule) -> None:
        """Raises ScopeError."""
        self._allow = [host_pattern(text) for text in rule.allow]
        if not rule.allow and rule.deny:
            self._allow = [host_pattern("*")]
        self._deny = [host_pattern(text, is_denied=True) for text in rule.deny]
        self._shown = ", ".join(shown(text, 60) for text in rule.allow[:5])

    def judge(self, value: str) -> str:
        """Empty: inside. Else why not."""
        try:
            address = read_address(value)
        except Unreadable as error:
            return f"{shown(value)} {error}"
        for pattern in self._deny:
            if pattern.match(address):
                return f"{shown(value)} is denied by {shown(pattern.text)}"
        for pattern in self._allow:
            if pattern.match(address):
                return ""
        return f"{shown(value)} leads to {shown(_host_text(address))}, {self._why(address)}"

    def _why(self, address: Address) -> str:
        if address.is_private:
            return "which is not public: a pattern must name it"
        if not address.is_default_port and any(
            pattern.match(address._replace(port=0)) for pattern in self._allow
        ):
            return f"and no pattern names the port {address.port}"
        if address.scheme not in _WEB:
            return f"and no pattern names the scheme `{address.scheme}`"
        return f"which is outside of {self._shown or 'the public hosts'}"


def same_scope(scope: JudgesUrls, url: str) -> str:
    """For each hop of a redirect, before it is followed, with the absolute URL: the reason against
    it, or an empty text. A scope has seen only the first URL; whoever follows (a tool, the gateway)
    asks again, or follows none."""
    if "://" not in url:
        return f"{shown(url)} is no absolute address"
    return scope.judge_url(url)


def external_host(value: str, internal: Sequence[str]) -> bool | None:
    """Whether a destination (URL, host, mail address) is none of the house's own. None: it cannot
    be told, since the value is no destination, or a bare word. Private addresses are external too
    unless `internal` names them, and so is what only looks like an address (several in one text,
    `https://acme.com@evil.com`). Raises ScopeError for a pattern that is none."""
    try:
        address = read_address(value)
    except Unreadable:
        return True if "@" in value or "://" in value else None
    plain = address._replace(port=0, scheme="")
    if any(pattern.match(plain) for pattern in _internal(tuple(internal))):
        return False
    is_bare_word = "." not in address.host and address.number is None
    return None if is_bare_word and not address.scheme and not address.mailbox else True


@lru_cache(maxsize=64)
def _internal(patterns: tuple[str, ...]) -> tuple[HostPattern, ...]:
    return tuple(host_pattern(text)._replace(port=-1, scheme="") for text in patterns)


@lru_cache(maxsize=1024)
def host_pattern(text: str, is_denied: bool = False) -> HostPattern:
    """Raises ScopeError."""
    scheme, mark, rest = text.rpartition("://")
    if mark and not (scheme.isascii() and scheme.replace("+", "").replace("-", "").isalnum()):
        raise ScopeError("has a scheme that is none", text)
    mailbox, at, rest = rest.rpartition("@")
    if at and (mark or not mailbox):
        raise ScopeError("has a name before the host", text)
    if not rest:
        raise ScopeError("names no host", text)
    network = _network(rest)
    if network is not None:
        return HostPattern(text, scheme.lower(), rest, -1, mailbox, None, network, is_denied)
    host, port = _host_and_port(rest, text)
    if is_denied and port == 0:
        port = -1
    if host.startswith("["):
        host = _compressed(host, text)
        return HostPattern(text, scheme.lower(), host, port, mailbox, None, None, is_denied)
    if "*" not in host and "?" not in host:
        try:
            host, _ = read_host(host)
        except Unreadable as error:
            raise ScopeError(str(error), text) from error
        return HostPattern(text, scheme.lower(), host, port, mailbox, None, None, is_denied)
    host = host.lower().rstrip(".")
    expression = re2.compile(_host_regex(host, text))
    return HostPattern(text, scheme.lower(), host, port, mailbox, expression, None, is_denied)


def _host_and_port(rest: str, text: str) -> tuple[str, int]:
    if "/" in rest.rstrip("/"):
        raise ScopeError("is a host with a path: a scope is about hosts alone", text)
    rest = rest.rstrip("/")
    host, colon, port = rest.rpartition(":") if "]" not in rest.rpartition(":")[2] else (rest,) * 3
    if host is colon or not colon:
        return rest, 0
    if port == "*":
        return host, -1
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ScopeError("has a port that is none; `:*` is any port", text)
    return host, int(port)


def _compressed(host: str, text: str) -> str:
    try:
        return read_address(host).host
    except Unreadable as error:
        raise ScopeError(str(error), text) from error


def _network(rest: str) -> IPv4Network | IPv6Network | None:
    if "/" not in rest:
        return None
    try:
        return ip_network(rest.replace("[", "").replace("]", ""))
    except ValueError:
        return None


def _host_regex(host: str, text: str) -> str:
    labels = host.split(".")
    if not host.isascii() or any(not label or "**" in label for label in labels):
        raise ScopeError("is no host", text)
    if all(set(label) <= set("0123456789*?") for label in labels) and host != "*":
        raise ScopeError("is an address with a wildcard; write a network, as `10.0.0.0/8`", text)
    if host == "*":
        return r"(?s).+"
    parts = [r"[^.]+(?:\.[^.]+)*" if labels[0] == "*" else piece_regex(labels[0], ".")]
    parts += [piece_regex(label, ".").replace("[^\\.]*", "[^.]+") for label in labels[1:]]
    return r"\.".join(parts)


def _host_text(address: Address) -> str:
    port = "" if address.is_default_port else f":{address.port}"
    return f"{address.host}{port}"
