import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from checkrein.gateway.egress import Egress, EgressRefused, inside, place_of

INSIDE = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.1.1",
    "169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "224.0.0.1",
    "255.255.255.255", "240.0.0.1", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1",
    "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe",
    "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2", "::7f00:1", "2001:db8::1",
]  # fmt: skip


class Names(AbstractResolver):
    """A resolver that answers what the test says."""

    def __init__(self, **names: list[str]) -> None:
        self.names = {name.replace("_", "."): found for name, found in names.items()}
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked += 1
        return [
            ResolveResult(
                hostname=host, host=each, port=port, proto=0, flags=0,
                family=socket.AF_INET6 if ":" in each else socket.AF_INET,
            )
            for each in self.names[host]
        ]  # fmt: skip

    async def close(self) -> None: ...


@contextmanager
def listening() -> Iterator[int]:
    """A port that accepts, and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


async def reach(egress: Egress, url: str) -> str:
    """`reached`, or why not."""
    timeout = aiohttp.ClientTimeout(total=0.2)
    async with aiohttp.ClientSession(connector=egress.connector(), timeout=timeout) as session:
        try:
            await session.get(url)
        except EgressRefused as error:
            return str(error)
        except TimeoutError:
            return "reached"
    return "answered"


@pytest.mark.parametrize("text", INSIDE)
def test_addresses_inside_are_known_in_every_form(text: str) -> None:
    assert inside(ip_address(text))


@pytest.mark.parametrize("text", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_addresses_outside_are_open(text: str) -> None:
    assert inside(ip_address(text)) == ""


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "gopher://host/", "ftp://host/", "http://", "http://me:pass@host/",
     "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/",
     "http://[fe80::1%25eth0]/", "http://host:99999/", "//host/x"],
)  # fmt: skip
def test_what_is_no_plain_web_address_is_refused(url: str) -> None:
    with pytest.raises(EgressRefused) as refused:
        place_of(url)
    assert "pass@" not in str(refused.value)


@pytest.mark.parametrize("text", INSIDE)
async def test_a_literal_address_inside_is_refused(text: str) -> None:
    host = f"[{text}]" if ":" in text else text
    egress = Egress(["https://api.example.com"])
    with pytest.raises(EgressRefused):
        egress.check(f"http://{host}/")
    assert "allow_addresses" in await reach(egress, f"http://{host}:9/")


async def test_the_operators_own_address_is_reached_and_no_other_port_of_it() -> None:
    with listening() as port, listening() as other:
        egress = Egress([f"http://127.0.0.1:{port}/v1"])
        assert await reach(egress, f"http://127.0.0.1:{port}/x") == "reached"
        assert "an address of this machine" in await reach(egress, f"http://127.0.0.1:{other}/x")


async def test_a_name_of_the_house_is_the_operators_word() -> None:
    with listening() as port:
        names = Names(models=["127.0.0.1"], other=["127.0.0.1"])
        egress = Egress([f"http://models:{port}"], resolver=names)
        assert await reach(egress, f"http://models:{port}/") == "reached"
    metadata = Egress(["http://models"], resolver=Names(models=["169.254.169.254"]))
    assert "metadata" in await reach(metadata, "http://models/")


async def test_a_public_name_that_leads_inside_is_refused_unless_allowed() -> None:
    with listening() as port:
        url = f"http://api.example.com:{port}"
        names = Names(api_example_com=["127.0.0.1"])
        assert "api.example.com (127.0.0.1)" in await reach(Egress([url], resolver=names), url)
        allowed = Egress([url], ["127.0.0.0/8"], names)
        assert await reach(allowed, url) == "reached"
        mixed = Names(api_example_com=["1.1.1.1", "10.0.0.1"])
        assert "10.0.0.1" in await reach(Egress([url], resolver=mixed), url)


async def test_what_was_resolved_is_what_is_connected_to() -> None:
    with listening() as port:
        names = Names(models=["127.0.0.1"])
        egress = Egress([f"http://models:{port}"], resolver=names)
        assert await reach(egress, f"http://models:{port}/") == "reached"
        assert names.asked == 1
