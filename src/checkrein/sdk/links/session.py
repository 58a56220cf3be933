"""Asking the api for a session: one HTTP request with the standard library, nothing else."""

import json
import urllib.error
import urllib.request
from typing import Any

import msgspec

from checkrein.bus.messages import SessionGrant, SessionRequest
from checkrein.sdk.config import Endpoint, is_web_url

ANSWER_BYTES_MAX = 4 * 1024 * 1024
TIMEOUT_S = 5.0


class NoSession(Exception):
    """The server was not there, or did not grant a session. Says which URL and what to do."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token goes to the server it was meant for, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


def ask(endpoint: Endpoint, request: SessionRequest) -> SessionGrant:
    """Blocks for at most a few seconds. Raises NoSession."""
    url = endpoint.url.rstrip("/") + "/api/v1/sessions"
    if not is_web_url(url):
        raise NoSession(f"{endpoint.url!r} is not an http or https URL: set CHECKREIN_URL")
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if endpoint.token:
        headers["Authorization"] = f"Bearer {endpoint.token}"
    asked = urllib.request.Request(  # noqa: S310 # http and https only, checked above
        url, data=msgspec.json.encode(request), headers=headers, method="POST"
    )
    try:
        with _OPENER.open(asked, timeout=TIMEOUT_S) as answer:
            return msgspec.json.decode(answer.read(ANSWER_BYTES_MAX), type=SessionGrant)
    except urllib.error.HTTPError as error:
        raise NoSession(f"{url} answered {error.code}: {_detail(error)}") from error
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise NoSession(f"{url}: {error}") from error


def _detail(error: urllib.error.HTTPError) -> str:
    """What the server said, and what to do when it did not know us."""
    with error:
        try:
            found = json.loads(error.read(4_096))
            said = str(found.get("detail") or found.get("error") or found)
        except (OSError, ValueError, AttributeError):
            said = str(error.reason)
    hint = " (set CHECKREIN_TOKEN)" if error.code in (401, 403) else ""
    return f"{said[:500]}{hint}"
