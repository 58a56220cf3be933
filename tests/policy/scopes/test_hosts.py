"""Hosts: what patterns mean, and addresses that programs read differently."""

from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from checkrein.policy.scopes.addresses import Unreadable, is_private_number, read_address
from checkrein.policy.scopes.compiling import compile_scope
from checkrein.policy.scopes.hosts import Hosts, external_host, same_scope
from checkrein.policy.scopes.types import ScopeError, ScopeRule


def hosts(*allow: str, deny: tuple[str, ...] = ()) -> Hosts:
    return Hosts(ScopeRule(kind="hosts", allow=allow, deny=deny))


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("acme.com",
         ["acme.com", "ACME.com", "https://acme.com", "http://acme.com/a?b=c@evil.com#d",
          "https://acme.com.", "bob@acme.com", "https://acme.com:443/", "acme.com/x"],
         ["evilacme.com", "acme.com.evil.com", "x.acme.com", "https://acme.com:8080", "acme.co",
          "ftp://acme.com", "acme.com:22", "bob@x.acme.com"]),
        ("*.acme.com", ["a.acme.com", "a.b.acme.com", "x@mail.acme.com"],
         ["acme.com", "evilacme.com", "a.acme.com.evil.com", ".acme.com"]),
        ("api-*.acme.com", ["api-1.acme.com"], ["api.acme.com", "api-1.x.acme.com"]),
        ("*", ["a.com", "http://8.8.8.8", "b@c.org", "https://[2606:4700::1111]"],
         ["localhost", "http://10.0.0.1", "http://intranet/", "http://169.254.169.254/latest",
          "http://x.internal", "http://[::1]", "http://[::ffff:8.8.8.8]", "a.com:81",
          "http://127.0.0.1.nip.io", "http://168.63.129.16", "http://100.100.100.200",
          "http://0.0.0.0", "http://224.0.0.1", "http://[64:ff9b::7f00:1]", "http://[fe80::1]"]),
        ("*.io", ["a.io"], ["127.0.0.1.nip.io"]),
        ("*:*", ["a.com:81"], ["http://localhost:81"]),
        ("*.internal", ["http://metadata.google.internal"], ["http://internal"]),
        ("localhost:8000", ["http://localhost:8000", "localhost:8000"],
         ["http://localhost", "http://localhost:8001"]),
        ("localhost:*", ["http://localhost", "http://localhost:8001"], ["http://127.0.0.1"]),
        ("https://acme.com", ["https://acme.com"], ["http://acme.com", "acme.com", "x@acme.com"]),
        ("wss://acme.com", ["wss://acme.com"], ["https://acme.com"]),
        ("10.0.0.0/8", ["http://10.1.2.3", "http://10.1.2.3:99"],
         ["http://11.0.0.1", "http://[::ffff:10.1.2.3]", "http://012.1.2.3"]),
        ("127.0.0.1:80", ["http://127.0.0.1"], ["http://127.0.0.1:81", "http://127.1"]),
        ("[::1]:8080", ["http://[::1]:8080", "http://[0:0:0:0:0:0:0:1]:8080"], ["http://[::1]"]),
        ("pay@acme.com", ["pay@acme.com"], ["acme.com", "PAY@acme.com", "bob@acme.com"]),
        ("*@acme.com", ["pay@acme.com"], ["acme.com", "https://acme.com"]),
        ("xn--bcher-kva.example", ["https://xn--bcher-kva.example"], ["https://bücher.example"]),
    ],
)  # fmt: skip
def test_patterns(pattern: str, inside: list[str], outside: list[str]) -> None:
    scope = hosts(pattern)
    assert [v for v in inside if scope.judge(v)] == []
    assert [v for v in outside if not scope.judge(v)] == []


def test_deny_wins_on_every_port_and_scheme() -> None:
    scope = hosts(
        "*:*", "ftp://evil.com", deny=("evil.com", "*.evil.com", "bad@acme.com", "1.1.1.1")
    )
    for value in ("evil.com", "EVIL.com.", "http://evil.com:99", "a.evil.com", "ftp://evil.com",
                  "x@evil.com", "Bad+tag@acme.com", "http://1.1.1.1:8"):  # fmt: skip
        assert "denied" in scope.judge(value)
    assert not scope.judge("good@acme.com")
    mapped = hosts("*", "[::ffff:10.0.0.1]", deny=("10.0.0.0/8",))
    assert "denied" in mapped.judge("http://[::ffff:10.0.0.1]")
    only = hosts(deny=("evil.com",))
    assert not only.judge("a.com")
    assert only.judge("localhost")
    assert hosts().judge("a.com")


ESCAPES = [
    "https://acme.com@evil.com", "https://acme.com:x@evil.com", "https://acme.com%40evil.com",
    "https://evil.com\\@acme.com", "https://acme.com\\.evil.com", "https://acme.com\t.evil.com",
    "https://acme.com\n", "\thttps://acme.com", "https://acme.com\x00.evil.com", "https:acme.com",
    "https:/acme.com", "https:///acme.com", "//acme.com", "/acme.com", "https://acme.com:",
    "https://acme.com:443x", "https://acme.com:0443", "https://acme.com:99999", "https://",
    "https://acme..com", "https://.acme.com", "https://acme.com..", "https://-acme.com", "",
    "https://\u0430cme.com", "https://acme\u3002com", "https://\uff41cme.com", "https://acme%2ecom",
    "https://acme.com\u200b", "https://acm\u0435.com", "https://acme.com\uff0fx",
    "https://acme.com/\x7f",
    "javascript:acme.com", "data:text/html,acme.com", "file://acme.com", "mailto:bob@acme.com",
    "bob@evil.com@acme.com", "bob@evil.com,bob@acme.com", "bob%evil.com@acme.com", "@acme.com",
    "evil.com!bob@acme.com", '"bob@evil.com"@acme.com', "Bob <bob@acme.com>", "bob@acme.com\n",
    "bob@acme.com?cc=x@evil.com", "bob@[10.0.0.1]", "bob@10.0.0.1", "acme.com\r\nHost: evil.com",
    "http://2130706433", "http://0x7f.0.0.1", "http://0177.0.0.1", "http://127.1",
    "http://0x7f000001",
    "http://[::1", "http://::1", "http://[::1%25eth0]", "http://127.0.0.1.", "http://256.1.1.1",
    "http://\u0661\u0662\u0667.0.0.1", "http://acme.com:8 0", "http://xn--acme.com",
    "http://xn--a.acme.com",
    "http://[acme.com]", "ht!tp://acme.com", "acme.com://x", "http://acme.com:443@evil.com",
]  # fmt: skip


@pytest.mark.parametrize("value", ESCAPES)
def test_what_programs_read_differently_is_refused(value: str) -> None:
    scope = hosts("acme.com:*", "acme.com", "*.acme.com", "127.0.0.0/8", "*")
    reason = scope.judge(value)
    assert reason
    assert reason.isprintable()


@pytest.mark.parametrize(
    "pattern",
    ["", "https://", "a@", "https://u@acme.com", "acme.com/path", "10.*", "a..b", "*..com", "**.x",
     "bücher.example", "acme.com:0", "acme.com:x", "[::1", "a b", "127.1", "ht tp://a.com"],
)  # fmt: skip
def test_patterns_that_mean_nothing_are_refused(pattern: str) -> None:
    with pytest.raises(ScopeError):
        hosts(pattern)
    with pytest.raises(ScopeError):
        hosts("a.com", deny=(pattern,))


def test_every_hop_of_a_redirect_is_judged() -> None:
    scope = compile_scope(ScopeRule(kind="hosts", argument="url", allow=("acme.com",)))
    assert not same_scope(scope, "https://acme.com/next")
    assert same_scope(scope, "https://evil.com/next")
    assert same_scope(scope, "/relative")
    assert same_scope(scope, "//evil.com")
    other = compile_scope(ScopeRule(kind="paths", allow=("/a",)))
    with pytest.raises(ScopeError):
        same_scope(other, "https://acme.com")


@pytest.mark.parametrize(
    ("value", "external"),
    [
        ("bob@acme.com", False), ("bob@evil.com", True), ("https://acme.com:99/x", False),
        ("ftp://acme.com", False), ("https://x.corp.acme.com", False), ("x.acme.com", True),
        ("10.1.2.3", False), ("http://8.8.8.8", True), ("http://localhost", True),
        ("bob", None), ("#general", None), ("", None), ("https://acme.com@evil.com", True),
        ("Bob <bob@acme.com>", True), ("a b", None),
        ("intranet", False), ("bob@intranet", False),
    ],
)  # fmt: skip
def test_external(value: str, external: bool | None) -> None:
    internal = ("acme.com", "*.corp.acme.com", "10.0.0.0/8", "intranet", "https://only.acme.com:9")
    assert external_host(value, internal) is external


def test_private_addresses() -> None:
    from ipaddress import ip_address

    for text in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:8.8.8.8",
                 "2002:7f00:1::", "0.0.0.0", "255.255.255.255", "100.64.0.1",
                 "ff02::1"):  # fmt: skip
        assert is_private_number(ip_address(text)), text
    for text in ("8.8.8.8", "2606:4700::1111"):
        assert not is_private_number(ip_address(text)), text


# ------------------------------------------------------------------------------------- properties

ODD = st.sampled_from("@:/\\?#[]%.-_ \t\n\x00&;,!~'\"<>^`{|}*=+") | st.sampled_from([
    "acme.com", "evil.com", "a", "http", "https", "://", "//", "127.0.0.1", "::1", "0x7f", "1",
    "%2e", "%40", "%00", "\u3002", "\uff0e", "\u200b", "\u0430", "é", "xn--", "80", "ß", "\u017f",
])  # fmt: skip
URLS = st.lists(ODD, max_size=10).map("".join)


def clients(url: str) -> set[str]:
    """The hosts that other programs would connect to."""
    found = {(urlsplit(url).hostname or "").removesuffix(".")}
    client = httpx.URL(url)
    return found | {client.raw_host.decode().strip("[]").removesuffix(".")}


@settings(max_examples=3000)
@given(URLS | URLS.map(lambda tail: f"https://acme.com{tail}") | URLS.map(lambda t: f"http://{t}"))
@example("http://acme.com#@evil.com/")
@example("http://acme.com?@evil.com/")
def test_clients_agree_on_the_host_of_what_is_read(url: str) -> None:
    try:
        address = read_address(url)
    except Unreadable:
        return
    if "://" in url and address.scheme in {"http", "https"}:
        assert clients(url) == {address.host.strip("[]")}
        assert httpx.URL(url).port in {None, address.port}
        assert (urlsplit(url).port or address.port) == address.port


@settings(max_examples=500)
@given(URLS.map(lambda tail: f"https://acme.com{tail}"))
def test_what_is_inside_goes_to_the_allowed_host(url: str) -> None:
    if not hosts("acme.com").judge(url):
        assert clients(url) == {"acme.com"}


@settings(max_examples=500)
@given(st.text(max_size=60), st.text(max_size=20))
def test_never_crashes(value: str, pattern: str) -> None:
    try:
        scope = hosts(pattern)
    except ScopeError:
        scope = hosts("*")
    assert isinstance(scope.judge(value), str)
    assert external_host(value, ("acme.com",)) in {True, False, None}


@given(
    st.lists(st.sampled_from(["*", "acme.com", "*.acme.com", "https://a.com", "10.0.0.0/8"])), URLS
)
def test_a_deny_never_allows_more(deny: list[str], url: str) -> None:
    few, more = hosts("*", "acme.com:*"), hosts("*", "acme.com:*", deny=tuple(deny))
    for value in (url, f"https://{url}", f"https://acme.com{url}"):
        if few.judge(value):
            assert more.judge(value)


def test_reasons_say_what_is_wrong() -> None:
    scope = hosts("acme.com", "https://api.acme.com")
    for value, reason in {
        "https://acme.com@evil.com": "a name or a password before the host",
        "https://acme.com:81": "no pattern names the port 81",
        "http://127.0.0.1": "not public: a pattern must name it",
        "https://evil.com": "outside of `acme.com`",
        "http://2130706433": "no plain IPv4 address",
    }.items():
        assert reason in scope.judge(value)
