"""Which headers go on to a provider, and which come back from one. Pure."""

from collections.abc import Iterable, Mapping

from checkrein.bus.identities import AGENT_KEY, RUN_KEY

_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
    "te", "trailer", "transfer-encoding", "upgrade",  # codespell:ignore te
})  # fmt: skip
_OURS = frozenset({
    "host", "content-length", "content-type", "content-encoding", "accept-encoding", "expect",
    "authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "forwarded", "via",
    "x-real-ip", "origin", "referer", "http2-settings", "priority",
})  # fmt: skip
_OUR_PREFIXES = ("x-checkrein-", "x-forwarded-", "proxy-", "sec-", "cf-")
_NOT_BACK = frozenset({
    "content-length", "content-encoding", "set-cookie", "set-cookie2", "server", "date", "alt-svc",
    "strict-transport-security", "location", "x-checkrein-run", "clear-site-data", "nel",
    "report-to",
})  # fmt: skip
_KEYS = (AGENT_KEY, RUN_KEY)


def onward(headers: Mapping[str, str], protocol: str, key: str) -> dict[str, str]:
    """The headers of a request to a provider: what is the provider's own of the agent's, and the
    real key. Never a key of ours, whatever header it stands in."""
    named = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    found = {
        name: value
        for name, value in headers.items()
        if name not in _HOP and name not in _OURS and name not in named
        and not name.startswith(_OUR_PREFIXES)
        and not any(prefix in value for prefix in _KEYS)
    }  # fmt: skip
    found["accept-encoding"] = "identity"
    if key and protocol == "anthropic":
        found["x-api-key"] = key
    elif key:
        found["authorization"] = f"Bearer {key}"
    return found


def back(headers: Iterable[tuple[str, str]], key: str = "") -> dict[str, str]:
    """The headers of an answer to the agent; of a name that comes twice, all values. Never the real
    key, nor what cannot be written into a header."""
    given = [(name.lower(), value) for name, value in headers]
    named = {
        one.strip().lower() for name, value in given if name == "connection"
        for one in value.split(",")
    }  # fmt: skip
    found: dict[str, str] = {}
    for name, value in given:
        if name in _HOP or name in _NOT_BACK or name in named or (key and key in value):
            continue
        if not value.isascii():
            continue
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
