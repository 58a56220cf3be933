"""Where the gateway itself may connect to: upstreams and tool servers, and nothing inside the house
that its operator has not named.

A name is resolved once and the connection goes to that very address. An address of this machine, of
a private network, of a link, or of a cloud's metadata service is refused, in whatever form it
comes, unless the operator's own setting names it: as an address, as a name of the house
(`localhost`, one without dots, one under `.internal`, `.local`, `.lan` or `.home.arpa`), or in
`allow_addresses`. A public name that leads to a private address is refused.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

CONNECTIONS_MAX = 1_024
KEEP_ALIVE_S = 60.0
_PORTS = {"http": 80, "https": 443}
_HOUSE = (".localhost", ".internal", ".local", ".lan", ".home.arpa")
_NUMBERS = re.compile(r"(?i)^(?:0x[0-9a-f]*|\d+)(?:\.(?:0x[0-9a-f]*|\d+))*\.?$")
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16",
                 "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)  # fmt: skip
_CARRIERS = tuple(
    (ipaddress.IPv6Network(network), shift)
    for network, shift in (("64:ff9b::/96", 0), ("64:ff9b:1::/48", 0), ("2002::/16", 80),
                           ("::/96", 0), ("::ffff:0:0/96", 0), ("::ffff:0:0:0/96", 0))
)  # fmt: skip
"""Kinds of IPv6 addresses that carry an IPv4 one, and how far it is shifted."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class EgressRefused(aiohttp.ClientError):
    """The gateway may not connect there: where, and why."""


def inside(address: Address) -> str:
    """Why an address is none of the open internet's; "" when it is one."""
    if address in _METADATA:
        return "a metadata service's address"
    if isinstance(address, ipaddress.IPv6Address):
        for network, shift in _CARRIERS:
            if address in network and int(address) > 1:
                carried = ipaddress.IPv4Address((int(address) >> shift) & 0xFFFFFFFF)
                why = inside(carried)
                return why and f"{why} ({carried}) in another form"
        if address.teredo is not None:
            return "a tunnel's address"
    for name, what in (("is_loopback", "an address of this machine"),
                       ("is_unspecified", "an address of this machine"),
                       ("is_link_local", "an address of the link"),
                       ("is_multicast", "a multicast address"),
                       ("is_private", "a private address"),
                       ("is_reserved", "a reserved address")):  # fmt: skip
        if getattr(address, name):
            return what
    return "" if address.is_global else "a private address"


class Egress:
    """What may be connected to. `urls`: the upstreams that the operator has set; `allow`: networks
    (CIDR) that they may be in."""

    def __init__(
        self, urls: Iterable[str], allow: Iterable[str] = (),
        resolver: AbstractResolver | None = None,
    ) -> None:  # fmt: skip
        self._allow = [ipaddress.ip_network(network) for network in allow]
        self._literal: set[tuple[Address, int]] = set()
        self._names: set[tuple[str, int]] = set()
        self._resolved: set[tuple[Address, int]] = set()
        self._resolver = resolver
        for url in urls:
            host, port = place_of(url)
            address = _address(host)
            if address is not None:
                self._literal.add((address, port))
            elif "." not in host or host.endswith(_HOUSE):
                self._names.add((host, port))

    def connector(self) -> aiohttp.TCPConnector:
        """A new connector that goes nowhere else. To be made on the loop that uses it."""
        return aiohttp.TCPConnector(
            resolver=_Resolver(self, self._resolver or aiohttp.ThreadedResolver()),
            socket_factory=self._socket, limit=CONNECTIONS_MAX, ttl_dns_cache=30,
            keepalive_timeout=KEEP_ALIVE_S,
        )  # fmt: skip

    def check(self, url: str) -> None:
        """Raises EgressRefused for a URL that is no web address or names an address inside."""
        host, port = place_of(url)
        address = _address(host)
        if address is not None:
            self.check_address(address, port, host)

    def check_address(self, address: Address, port: int, host: str) -> None:
        """Raises EgressRefused unless a connection to this address may be made for this host."""
        why = inside(address)
        if not why or (address, port) in self._literal or (address, port) in self._resolved:
            return
        if any(address in network for network in self._allow):
            return
        if (host, port) in self._names and address not in _METADATA:
            self._resolved.add((address, port))
            return
        where = str(address) if host == str(address) else f"{host} ({address})"
        raise EgressRefused(
            f"{where} is {why}, and nobody has allowed it: name it in gateway.allow_addresses of "
            "checkrein.toml if it is meant"
        )

    def _socket(self, info: "aiohttp.AddrInfoType") -> socket.socket:
        """The last look: at the very address that is connected to."""
        family, kind, proto, _, place = info
        address = _address(str(place[0]))
        if address is None:
            raise EgressRefused(f"{place[0]!r} is no address")
        self.check_address(address, int(place[1]), str(place[0]))
        found = socket.socket(family, kind, proto)
        found.setblocking(False)
        return found


def place_of(url: str) -> tuple[str, int]:
    """Host (lower case, without a dot at its end) and port. Raises EgressRefused."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise EgressRefused(f"{url[:200]!r} is no address: {error}") from None
    if parts.scheme not in _PORTS or not host or parts.username is not None:
        raise EgressRefused(f"{_said(url)} is no http or https address without a password")
    if "%" in host:
        raise EgressRefused(f"{host!r} names a link's scope")
    if _NUMBERS.match(host) and _address(host) is None:
        raise EgressRefused(f"{host!r} is an address in disguise: write it as four numbers")
    return host.rstrip("."), port or _PORTS[parts.scheme]


class _Resolver(AbstractResolver):
    def __init__(self, egress: Egress, inner: AbstractResolver) -> None:
        self._egress, self._inner = egress, inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """One address inside refuses the name: who mixes them is not to be trusted."""
        found = await self._inner.resolve(host, port, family)
        for each in found:
            address = _address(each["host"])
            if address is None:
                raise EgressRefused(f"{host} leads to {each['host']!r}, which is no address")
            self._egress.check_address(address, port, host.lower().rstrip("."))
        return found

    async def close(self) -> None:
        await self._inner.close()


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _said(url: str) -> str:
    """A URL as it may be told: no password."""
    return repr(re.sub(r"//[^/@]*@", "//…@", url[:200]))
