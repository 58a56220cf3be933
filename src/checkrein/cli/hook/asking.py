"""One question to the decision service, over its Unix socket or HTTP.

HookError
    NoKey        nothing says whose call it is
    NoService    nobody answers
    NoAnswer     what answers does not answer like the service, or says no to being asked
"""

from __future__ import annotations

import json
import os
import socket

TYPE_CHECKING = False  # as in `typing`, which takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

ANSWER_BYTES_MAX = 16 * 1024 * 1024
SLACK_S = 10.0
"""How much longer than the service itself the question waits."""
_PATH_BYTES_MAX = 107


class HookError(Exception):
    """The question could not be asked. Says what to do."""


class NoKey(HookError):
    pass


class NoService(HookError):
    pass


class NoAnswer(HookError):
    pass


def key_of(key_file: str, environ: Mapping[str, str]) -> str:
    """The agent's or the run's key. Raises NoKey."""
    if key_file:
        try:
            with open(key_file) as file:
                return file.read().strip()
        except OSError as error:
            raise NoKey(f"the key file {key_file} cannot be read: {error.strerror}") from error
    for name in ("CHECKREIN_KEY", "CHECKREIN_TOKEN"):
        found = environ.get(name, "").strip()
        if found.startswith(("cra_", "crr_")):
            return found
    raise NoKey(
        "no agent's key: make one with `checkrein agent add NAME`, and give it as CHECKREIN_KEY or "
        "with --key-file"
    )


def place_of(gateway: str, environ: Mapping[str, str]) -> str:
    """`http://HOST:PORT`, or the path of a Unix socket: as said, or that of this user's `up`."""
    said = gateway or environ.get("CHECKREIN_GATEWAY", "").strip()
    if said:
        return said.removeprefix("unix:").rstrip("/")
    base = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    folder = os.path.abspath("checkrein-data")
    try:
        with open(f"{base}/checkrein/local.json") as file:
            folder = os.path.dirname(json.load(file)["token_file"]) or folder
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return f"{folder}/gateway/gateway.sock"


def ask(place: str, key: str, body: Mapping[str, Any], wait_s: float) -> dict[str, Any]:
    """What the service tells. Raises NoService, NoAnswer."""
    data = json.dumps(body).encode()
    if place.startswith("https:"):
        status, answer = _over_tls(place, key, data, wait_s + SLACK_S)
    else:
        status, answer = _over_socket(place, key, data, wait_s + SLACK_S)
    try:
        told = json.loads(answer)
        verdict, reason = told["verdict"], told.get("reason", "")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoAnswer(f"{place} does not answer like a Checkrein gateway") from error
    if status != 200 or not isinstance(verdict, str):
        raise NoAnswer(f"the gateway at {place} says no: {reason} {told.get('appeal', '')}".strip())
    return dict(told)


def _over_socket(place: str, key: str, data: bytes, wait_s: float) -> tuple[int, bytes]:
    head = (
        "POST /decide HTTP/1.1\r\nHost: checkrein\r\nConnection: close\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    try:
        with _connected(place) as line:
            line.settimeout(wait_s)
            line.sendall(head.encode() + data)
            answer = bytearray()
            while part := line.recv(65536):
                answer += part
                if len(answer) > ANSWER_BYTES_MAX:
                    raise NoAnswer(f"{place} answers with more than {ANSWER_BYTES_MAX} bytes")
    except (OSError, ValueError) as error:
        raise _nobody(place, error) from error
    top, _, body = bytes(answer).partition(b"\r\n\r\n")
    status = top[9:12]
    length = top.lower().partition(b"content-length:")[2].partition(b"\r\n")[0].strip()
    if not status.isdigit() or (length.isdigit() and len(body) != int(length)):
        raise NoAnswer(f"the answer of {place} was cut off, or is no HTTP")
    return int(status), body


def _connected(place: str) -> socket.socket:
    if not place.startswith("http:"):
        return _unix(place)
    host, _, port = place.removeprefix("http://").partition("/")[0].rpartition(":")
    if not host or not port.isdigit():
        raise NoService(f"{place!r} is no address of a gateway (http://HOST:PORT)")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=5.0)


def _unix(path: str) -> socket.socket:
    """Also where the path is longer than a socket's address holds."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.settimeout(5.0)
        if len(os.fsencode(path)) <= _PATH_BYTES_MAX:
            line.connect(path)
            return line
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            line.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        finally:
            os.close(folder)
    except BaseException:
        line.close()
        raise
    return line


def _over_tls(place: str, key: str, data: bytes, wait_s: float) -> tuple[int, bytes]:
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(place)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=wait_s)
        connection.request("POST", "/decide", data, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(ANSWER_BYTES_MAX)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _nobody(place, error) from error


def _nobody(place: str, error: Exception) -> NoService:
    why = getattr(error, "strerror", None) or error
    return NoService(
        f"nobody decides at {place} ({why}). Start `checkrein up`, or name the gateway with "
        "--gateway or CHECKREIN_GATEWAY"
    )
