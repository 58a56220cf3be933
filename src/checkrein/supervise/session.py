"""Asking the server for a session: where the buses are and a short-lived credential for them.

SessionError                why there is no session
    ServerUnreachable       nobody answers at the URL: ask again later
    SessionDenied           the server says no (token, agents): asking again will not help soon
"""

import asyncio
import http.client
import ssl
from urllib.parse import urlsplit

import msgspec

from checkrein.bus.messages import SessionGrant, SessionRequest

GRANT_BYTES_MAX = 16 * 1024 * 1024
PATH = "/api/v1/sessions"


NAME_CHARS_MAX = 200


def can_name_an_agent(name: str) -> bool:
    """What the server takes as an agent's name. A session is refused whole for one that it does
    not take."""
    return 0 < len(name) <= NAME_CHARS_MAX and name.isprintable()


class SessionError(Exception):
    """There is no session; the message says where it was asked for and what was answered."""


class ServerUnreachable(SessionError):
    pass


class SessionDenied(SessionError):
    pass


async def ask(
    url: str, token: str, request: SessionRequest, timeout_s: float = 2.0
) -> SessionGrant:
    """Asks in a thread, so that a server which does not answer holds up nothing. Raises
    SessionError."""
    return await asyncio.to_thread(ask_now, url, token, request, timeout_s)


def ask_now(url: str, token: str, request: SessionRequest, timeout_s: float = 2.0) -> SessionGrant:
    """As `ask`, waiting here."""
    status, body = post(url, token, PATH, msgspec.json.encode(request), timeout_s)
    if status in (502, 503, 504):
        raise ServerUnreachable(f"{url} is not ready: {status}")
    if status not in (200, 201):
        raise SessionDenied(f"{url} gives no session: {status} {words_of(body)}")
    try:
        return msgspec.json.decode(body, type=SessionGrant)
    except msgspec.MsgspecError as error:
        raise SessionDenied(f"{url}: the answer is no session: {error}") from error


def post(url: str, token: str, path: str, body: bytes, timeout_s: float) -> tuple[int, bytes]:
    """The status and the body of the answer, of at most GRANT_BYTES_MAX. Raises
    ServerUnreachable."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    headers = {"Content-Type": "application/json", "Connection": "close"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request("POST", parts.path.rstrip("/") + path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(GRANT_BYTES_MAX)
    except (OSError, http.client.HTTPException) as error:
        raise ServerUnreachable(
            f"nobody answers at {url}: {str(error) or type(error).__name__}"
        ) from error
    finally:
        connection.close()


def words_of(body: bytes) -> str:
    """What an error's body says, in one short line."""
    try:
        said = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        said = body.decode("utf-8", "replace")
    if isinstance(said, dict):
        said = said.get("detail") or said.get("reason") or said.get("title") or said
    return " ".join(str(said).split())[:300]
