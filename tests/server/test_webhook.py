"""Notices to people outside: signed, tried again within bounds, and never to where they lead."""

import asyncio
import hashlib
import hmac
import json
import logging
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any, ClassVar

import pytest

from checkrein.control.types import Notify
from checkrein.server import webhook
from checkrein.server.webhook import SECRET, URL, Webhook, WebhookError, check, send
from checkrein.world import REAL

KEY = "0123456789abcdef"
NOTICE = Notify("approval.requested", "a1", {"approval_id": "a1", "arguments": {"n": 1}})


class Taken(BaseHTTPRequestHandler):
    """Answers with `codes` in turn, and keeps what came."""

    codes: ClassVar[list[int]] = []
    came: ClassVar[list[tuple[dict[str, str], bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).came.append((dict(self.headers), body))
        code = self.codes.pop(0) if self.codes else 200
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        return None


@pytest.fixture
def url() -> Iterator[str]:
    Taken.codes, Taken.came = [], []
    server = HTTPServer(("127.0.0.1", 0), Taken)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    thread.join()
    server.server_close()


async def told(hook: Webhook, until: Any) -> None:
    task = asyncio.ensure_future(hook.work())
    async with asyncio.timeout(10):
        while not until():
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_notice_is_signed(url: str) -> None:
    hook = Webhook(url, KEY, REAL)
    hook.add(NOTICE)
    await told(hook, lambda: Taken.came)
    headers, body = Taken.came[0]
    sent = json.loads(body)
    assert (sent["event"], sent["id"]) == ("approval.requested", "a1/approval.requested")
    assert sent["arguments"] == {"n": 1}
    stamp, _, mac = headers["Checkrein-Signature"].partition(",v1=")
    seconds = stamp.removeprefix("t=")
    expected = hmac.new(KEY.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    assert mac == expected


async def test_it_is_tried_again_within_bounds(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhook, "PAUSES_S", (0.01,))
    hook = Webhook(url, KEY, REAL)
    Taken.codes = [500, 503]
    hook.add(NOTICE)
    await told(hook, lambda: len(Taken.came) == 3)
    assert len({body for _, body in Taken.came}) == 1  # the same notice, whole
    Taken.came, Taken.codes = [], [500] * webhook.ATTEMPTS
    with caplog.at_level(logging.ERROR):
        hook.add(NOTICE)
        await told(hook, lambda: "was not taken" in caplog.text)
    assert len(Taken.came) == webhook.ATTEMPTS


async def test_a_redirect_is_not_followed(url: str) -> None:
    Taken.codes = [302]
    with pytest.raises(WebhookError, match="302"):
        await asyncio.to_thread(send, url, b"{}", {})
    assert len(Taken.came) == 1


@pytest.mark.parametrize(
    ("address", "secret", "why"),
    [
        ("ftp://example.org/", KEY, "no http"),
        ("http://", KEY, "no http"),
        ("http://ann:pw@example.org/", KEY, "password"),
        ("http://example.org/", "short", SECRET),
    ],
)
def test_what_cannot_be_used_is_said(
    address: str, secret: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(WebhookError, match=why):
        check(address, secret)
    assert Webhook.of({URL: address, SECRET: secret}, REAL) is None
    assert "no notices are sent" in caplog.text


def test_none_is_configured_by_default() -> None:
    assert Webhook.of({}, REAL) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "0.0.0.0"])
def test_a_name_that_leads_here_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    found = [(family, socket.SOCK_STREAM, 6, "", (address, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(WebhookError, match="leads to"):
        send("http://hooks.example.org/", b"{}", {})


async def test_notices_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    hook = Webhook("http://127.0.0.1:1/", KEY, REAL, post=lambda *_: None)
    for _ in range(webhook.WAITING_MAX + 2):
        hook.add(NOTICE)
    assert hook.dropped == 2
