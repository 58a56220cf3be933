"""The API from a terminal: one connection, plain errors.

ClientError
    NotReachable   nobody answers there
    Refused        the server says no; carries its `{error, detail, do}`
"""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from checkrein.cli.discover import Place

TIMEOUT_S = 40.0
STREAM_TIMEOUT_S = 35.0
LINE_BYTES_MAX = 8 * 1024 * 1024


class ClientError(Exception):
    """What was asked could not be asked, or not be done."""


class NotReachable(ClientError):
    """Nobody answers at the URL."""


class Refused(ClientError):
    """The server answered with an error."""

    def __init__(self, status: int, error: str, detail: str, do: str) -> None:
        super().__init__(f"{detail}. {do}" if do else detail)
        self.status, self.error, self.detail, self.do = status, error, detail, do


class Client:
    """Not for threads: one thread, one client."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._connection: http.client.HTTPConnection | None = None
        self.incomplete = ""
        """What the last answer lacked, in the server's words; empty when it was whole."""

    def get(self, path: str, **query: Any) -> Any:
        """Raises ClientError."""
        return self._ask("GET", path + _query(query), None)[0]

    def post(self, path: str, body: Any) -> Any:
        """Raises ClientError."""
        return self._ask("POST", path, body)[0]

    def put(self, path: str, body: Any) -> Any:
        """Raises ClientError."""
        return self._ask("PUT", path, body)[0]

    def delete(self, path: str) -> Any:
        """Raises ClientError."""
        return self._ask("DELETE", path, None)[0]

    def pages(self, path: str, **query: Any) -> Iterator[list[Any]]:
        """A long list, page by page. Raises ClientError."""
        incomplete = ""
        while True:
            found, headers = self._ask("GET", path + _query(query), None)
            incomplete = incomplete or self.incomplete
            yield found
            following = headers.get("Checkrein-Next")
            if not following:
                self.incomplete = incomplete
                return
            query["after"] = following

    def stream(self, **query: Any) -> Iterator[tuple[str, str, str]]:
        """Server-sent events as (name, id, data), until the server ends. Raises ClientError."""
        connection = self._connect(STREAM_TIMEOUT_S)
        try:
            answer = self._send(connection, "GET", "/api/v1/stream" + _query(query), None)
            if answer.status != 200:
                _raise(answer.status, answer.read(LINE_BYTES_MAX))
            yield from _events_of(answer)
        except (OSError, http.client.HTTPException) as error:
            raise NotReachable(f"the connection to {self.place.url} broke: {error}") from error
        finally:
            connection.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, method: str, path: str, body: Any) -> tuple[Any, http.client.HTTPMessage]:
        for attempt in (1, 2):
            fresh = self._connection is None
            self._connection = self._connection or self._connect(TIMEOUT_S)
            try:
                answer = self._send(self._connection, method, path, body)
                data = answer.read()
                break
            except NotReachable:
                self.close()
                raise
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if fresh or attempt == 2 or method != "GET":
                    raise NotReachable(
                        f"the connection to {self.place.url} broke: {error!r}"
                    ) from error
        self.incomplete = answer.headers.get("Checkrein-Incomplete", "")
        if answer.status >= 400:
            _raise(answer.status, data)
        try:
            return json.loads(data), answer.headers
        except ValueError as error:
            raise ClientError(
                f"{self.place.url} does not answer like Checkrein: {error}"
            ) from error

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Any
    ) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self.place.token}"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection.request(method, path, data, headers)
        return connection.getresponse()

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.place.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ClientError(f"{self.place.url!r} is no address of a server (http://HOST:PORT)")
        try:
            secure = parts.scheme == "https"
            kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
            connection = kind(parts.hostname, parts.port, timeout=timeout_s)
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise NotReachable(
                f"nobody answers at {self.place.url} ({error}). Start a server with "
                "`checkrein up`, or name another with --url or CHECKREIN_URL."
            ) from error
        return connection


def segment(text: str) -> str:
    """A name as one part of a path."""
    return quote(text, safe="")


def _query(query: dict[str, Any]) -> str:
    given = {key: value for key, value in query.items() if value not in (None, "", ())}
    return "?" + urlencode(given) if given else ""


def _raise(status: int, data: bytes) -> None:
    try:
        body = json.loads(data)
        raise Refused(status, str(body["error"]), str(body["detail"]), str(body["do"]))
    except (ValueError, KeyError, TypeError):
        raise Refused(status, "unknown", f"the server answered {status}", "") from None


def _events_of(answer: http.client.HTTPResponse) -> Iterator[tuple[str, str, str]]:
    name, ident, data = "", "", ""
    while True:
        line = answer.readline(LINE_BYTES_MAX)
        if not line:
            return
        text = line.rstrip(b"\r\n").decode("utf-8", "replace")
        if not text:
            if data:
                yield name, ident, data
            name, data = "", ""
        elif text.startswith("data:"):
            data += text[5:].removeprefix(" ")
        elif text.startswith("event:"):
            name = text[6:].strip()
        elif text.startswith("id:"):
            ident = text[3:].strip()
