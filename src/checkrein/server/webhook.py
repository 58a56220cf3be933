"""Telling people outside: a signed POST for every approval asked for and every escalation.

Configured by the environment of `up`:

    CHECKREIN_APPROVAL_WEBHOOK          where to (http or https)
    CHECKREIN_APPROVAL_WEBHOOK_SECRET   what the signature is made with

The body is JSON, `{"event", "id", "at", …}`. The header `Checkrein-Signature: t=SECONDS,v1=HEX` is
HMAC-SHA256 with the secret over `SECONDS.BODY`. A notice may come twice: `id` tells. What is not
taken after ATTEMPTS is given up and said in the log; the approval waits all the same. Redirects are
not followed, and a name that leads to this machine is refused unless it says so itself.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import logging
import socket
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from checkrein.control.types import Notify
from checkrein.world import World

_log = logging.getLogger(__name__)

URL = "CHECKREIN_APPROVAL_WEBHOOK"
SECRET = "CHECKREIN_APPROVAL_WEBHOOK_SECRET"  # noqa: S105 # the name of a variable
WAITING_MAX = 1_000
ATTEMPTS = 5
PAUSES_S = (0.5, 2.0, 5.0, 15.0)
TIMEOUT_S = 5.0
_LOCAL_NAMES = ("localhost", "ip6-localhost")


class WebhookError(Exception):
    """The configuration cannot be used, or a notice was not taken. Says why."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A signed notice goes where it was meant for, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))

Post = Callable[[str, bytes, dict[str, str]], None]
"""(url, body, headers): blocks, and raises WebhookError."""


class Webhook:
    """Takes notices without waiting and sends them one after the other, from a task of its own."""

    def __init__(self, url: str, secret: str, world: World, post: Post | None = None) -> None:
        """Raises WebhookError."""
        check(url, secret)
        self._url, self._secret, self._world = url, secret.encode(), world
        self._post = post or send
        self._waiting: deque[Notify] = deque()
        self._news = asyncio.Event()
        self.dropped = 0

    @classmethod
    def of(cls, environ: Mapping[str, str], world: World) -> "Webhook | None":
        """As the environment says; None when it names none, or one that cannot be used (which is
        said in the log)."""
        url = environ.get(URL, "")
        if not url:
            return None
        try:
            return cls(url, environ.get(SECRET, ""), world)
        except WebhookError as error:
            _log.error("no notices are sent: %s", error)
            return None

    def add(self, notice: Notify) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.popleft()
            self.dropped += 1
            _log.error("notice number %d was dropped: %s takes none", self.dropped, self._url)
        self._waiting.append(notice)
        self._news.set()

    async def work(self) -> None:
        """Until cancelled."""
        while True:
            while self._waiting:
                await self._tell(self._waiting.popleft())
            self._news.clear()
            await self._news.wait()

    async def _tell(self, notice: Notify) -> None:
        at = self._world.now_ns()
        body = json.dumps(
            {"event": notice.what, "id": f"{notice.key}/{notice.what}", "at": at, **notice.body},
            default=repr,
        ).encode()
        for attempt in range(ATTEMPTS):
            try:
                headers = signed(body, self._secret, self._world.now_ns() // 1_000_000_000)
                await asyncio.to_thread(self._post, self._url, body, headers)
                return
            except WebhookError as error:
                if attempt + 1 == ATTEMPTS:
                    _log.error("notice %s %s was not taken: %s", notice.what, notice.key, error)
                else:
                    await self._world.sleep(PAUSES_S[min(attempt, len(PAUSES_S) - 1)])


def signed(body: bytes, secret: bytes, seconds: int) -> dict[str, str]:
    mac = hmac.new(secret, b"%d." % seconds + body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "Checkrein-Signature": f"t={seconds},v1={mac}",
    }


def check(url: str, secret: str) -> None:
    """Raises WebhookError unless notices can be sent there."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WebhookError(f"{URL} is no http or https URL: {url[:200]!r}")
    if parts.username or parts.password:
        raise WebhookError(f"{URL} must not hold a password")
    if len(secret) < 16:
        raise WebhookError(f"set {SECRET} to at least 16 characters: notices are signed with it")


def send(url: str, body: bytes, headers: dict[str, str]) -> None:
    """Blocks for some seconds at most. Raises WebhookError."""
    _check_place(url)
    asked = urllib.request.Request(  # noqa: S310 # http and https only: `check`
        url, data=body, headers=headers, method="POST"
    )
    try:
        with _OPENER.open(asked, timeout=TIMEOUT_S) as answer:
            answer.read(1_024)
    except urllib.error.HTTPError as error:
        with error:
            raise WebhookError(f"{url} answered {error.code}") from error
    except (OSError, ValueError) as error:
        raise WebhookError(f"{url}: {error}") from error


def _check_place(url: str) -> None:
    """A name may not lead to this machine or its link; an address, or `localhost`, says itself what
    it is."""
    host = (urlsplit(url).hostname or "").lower()
    if host in _LOCAL_NAMES or _is_address(host):
        return
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise WebhookError(f"{host} has no address: {error}") from error
    for *_, place in found:
        address = ipaddress.ip_address(str(place[0]).partition("%")[0])
        if address.is_loopback or address.is_link_local or address.is_unspecified:
            raise WebhookError(
                f"{host} leads to {address}: name that address itself if it is meant"
            )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
