"""The host of a URL, a bare host or a mail address, read as strictly as the strictest client.

What programs read differently is refused: a name and password before the host, backslashes,
letters that are not ASCII, encoded hosts, addresses of numbers written in an unusual way.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from checkrein.policy.scopes.globs import strange_letter

VALUE_CHARS_MAX = 8192
_HOST_CHARS_MAX = 253
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([/?#].*)?", re.S)
_MAIL = re.compile(r"[A-Za-z0-9_'+=-]+(?:\.[A-Za-z0-9_'+=-]+)*")
_NUMERIC = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_QUAD = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}")
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21, "ssh": 22, "git": 9418}

_PRIVATE_SUFFIXES = (
    "localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "home.arpa",
    "localdomain", "in-addr.arpa", "ip6.arpa", "onion",
    "nip.io", "sslip.io", "xip.io", "localtest.me", "lvh.me", "vcap.me", "lacolhost.com",
)  # fmt: skip
_DOTTED_SUFFIXES = tuple(f".{suffix}" for suffix in _PRIVATE_SUFFIXES)
"""Names that never, or not only, lead out into the public: the machine, the network, and those that
answer with whatever address stands in them."""
_METADATA = frozenset({IPv4Address("168.63.129.16"), IPv4Address("100.100.100.200")})


class Unreadable(ValueError):
    """A value of which programs may read different hosts; the text says why."""


class Address(NamedTuple):
    """Where a value leads. `scheme` is empty for a bare host and for mail, whose `mailbox` is what
    stands before the `@`. `port` is the scheme's own when none is written; 0: none known."""

    host: str
    port: int
    scheme: str = ""
    mailbox: str = ""
    number: IPv4Address | IPv6Address | None = None

    @property
    def is_default_port(self) -> bool:
        return self.port == _PORTS.get(self.scheme or "https", 0) or self.port == 0

    @property
    def is_private(self) -> bool:
        """Not out in the public: the machine itself, its network, a cloud's metadata."""
        if self.number is not None:
            return is_private_number(self.number)
        return "." not in self.host or is_private_name(self.host)


def is_private_name(host: str) -> bool:
    """Whether a name ends as names do that never, or not only, lead out into the public."""
    return host.endswith(_DOTTED_SUFFIXES) or host in _PRIVATE_SUFFIXES


def is_private_number(number: IPv4Address | IPv6Address) -> bool:
    """Whether an address is not a public one: for whoever looks a name up, and connects."""
    if inner_number(number) is not None:
        return True
    return not number.is_global or number.is_multicast or number.is_reserved or number in _METADATA


@lru_cache(maxsize=1024)
def _read(value: str) -> Address | str:
    try:
        return _reading(value)
    except Unreadable as error:
        return str(error)


def read_address(value: str) -> Address:
    """Raises Unreadable."""
    found = _read(value) if len(value) <= 512 else _reading(value)
    if isinstance(found, str):
        raise Unreadable(found)
    return found


def _reading(value: str) -> Address:
    if not value:
        raise Unreadable("is empty")
    if len(value) > VALUE_CHARS_MAX:
        raise Unreadable(f"is longer than {VALUE_CHARS_MAX} characters")
    if "\\" in value or value != value.strip():
        raise Unreadable("contains a backslash, or begins or ends with a space")
    if strange := strange_letter(value):
        raise Unreadable(strange)
    if "://" in value.split("?", 1)[0].split("#", 1)[0]:
        match = _URL.fullmatch(value)
        if match is None:
            raise Unreadable("is no address")
        scheme = match[1].lower()
        return _authority(match[2], scheme)
    if value.startswith("/"):
        raise Unreadable("has no host")
    head = re.split(r"[/?#]", value, maxsplit=1)[0]
    if "@" in value:
        if head != value:
            raise Unreadable("is neither an address nor a mail address")
        return _mail(value)
    if ":" in head and not re.fullmatch(r"(?:[^:]+|\[[0-9A-Fa-f:.]+\]):[0-9]+|\[.*\]", head):
        raise Unreadable("is no host with a port, and has no `://`")
    return _authority(head, "")


def _authority(text: str, scheme: str) -> Address:
    if "@" in text:
        raise Unreadable("has a name or a password before the host")
    if "%" in text:
        raise Unreadable("has an encoded host")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise Unreadable("has a host that is no IPv6 address")
        port, has_port = rest[1:], bool(rest)
    else:
        host, colon, port = text.partition(":")
        has_port = bool(colon)
    number = _PORTS.get(scheme, 0)
    if has_port:
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
            raise Unreadable("has a port that is none")
        if port[0] == "0":
            raise Unreadable("has a port that is none")
        number = int(port)
    if text.startswith("["):
        return Address(*_six(host, number), scheme=scheme, number=IPv6Address(host))
    name, four = read_host(host)
    return Address(name, number, scheme, "", four)


def _six(host: str, port: int) -> tuple[str, int]:
    try:
        return f"[{IPv6Address(host).compressed}]", port
    except ValueError as error:
        raise Unreadable("has a host that is no IPv6 address") from error


def _mail(value: str) -> Address:
    mailbox, _, domain = value.partition("@")
    if not _MAIL.fullmatch(mailbox) or "@" in domain or len(mailbox) > 64:
        raise Unreadable("is no plain mail address")
    host, number = read_host(domain)
    if number is not None or ":" in domain:
        raise Unreadable("is no plain mail address")
    return Address(host, 0, "", mailbox)


def read_host(text: str) -> tuple[str, IPv4Address | None]:
    """A host's name in its one form: lower case, no dot at the end. Raises Unreadable."""
    host = text[:-1] if text.endswith(".") else text
    if not host or len(host) > _HOST_CHARS_MAX:
        raise Unreadable("has no host" if not host else "has a host that is too long")
    if not host.isascii():
        raise Unreadable("has a host with letters that are not ASCII; write its `xn--` form")
    host = host.lower()
    labels = host.split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        if text != host or not _QUAD.fullmatch(host) or any(int(part) > 255 for part in labels):
            raise Unreadable("has a host of numbers that is no plain IPv4 address")
        return host, IPv4Address(host)
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise Unreadable("has a host that is no name")
        if label.startswith("xn--") and not _is_punycode(label):
            raise Unreadable("has a host with a broken `xn--` name")
    return host, None


def _is_punycode(label: str) -> bool:
    try:
        shown = label[4:].encode("ascii").decode("punycode")
    except UnicodeError:
        return False
    return bool(shown) and not shown.isascii() and not strange_letter(shown)


def inner_number(number: IPv4Address | IPv6Address | None) -> IPv4Address | None:
    """The IPv4 address inside an IPv6 one: mapped, 6to4, Teredo, NAT64, and the old ::a.b.c.d."""
    if not isinstance(number, IPv6Address):
        return None
    packed = number.packed
    if packed[:12] == bytes(12) or packed[:12] == bytes.fromhex("0064ff9b") + bytes(8):
        return IPv4Address(packed[12:])
    teredo = number.teredo
    return number.ipv4_mapped or number.sixtofour or (teredo[1] if teredo else None)
