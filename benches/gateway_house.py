"""A real `up` with an agent of its own, and a client of its gateway that costs next to nothing, so
that what is measured is the gateway."""

import contextlib
import json
import socket
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from benches.whole import whole
from tests.system import System, eventually


@contextlib.contextmanager
def gateway_house(pact: str, agent: str = "bench") -> Iterator[tuple[System, str]]:
    """A system with an agent under `pact`, and the agent's key."""
    with whole() as running:
        key = add_agent(running, agent)
        if pact:
            push(running, agent, pact)
        yield running, key


def add_agent(running: System, name: str) -> str:
    """The agent's key."""
    return str(post(running, "/api/v1/agents", {"agent": name})["key"])


def push(running: System, agent: str, text: str) -> None:
    """Puts a pact in force for an agent."""
    body = {"text": text, "environment": "development", "stage": "enforce"}
    post(running, f"/api/v1/pacts/{quote(agent, safe='')}", body, "PUT")


def post(running: System, path: str, body: Any, method: str = "POST") -> Any:
    request = urllib.request.Request(
        running.url + path, json.dumps(body).encode(),
        {"Authorization": f"Bearer {running.token}", "Content-Type": "application/json"},
        method=method,
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


class Line:
    """One HTTP/1.1 connection, by Unix socket or TCP; answers must tell their length."""

    def __init__(self, where: str | tuple[str, int]) -> None:
        if isinstance(where, str):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(30)
        self._socket.connect(where)

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """The status and the body."""
        self._socket.sendall(request)
        data = self._socket.recv(65536)
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += self._more()
        return int(head[9:12]), body

    def _more(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the gateway closed the connection")
        return data

    def close(self) -> None:
        self._socket.close()


def request_of(path: str, key: str, body: Any, *headers: str) -> bytes:
    data = json.dumps(body).encode()
    head = [
        f"POST {path} HTTP/1.1", "host: gateway", f"authorization: Bearer {key}",
        "content-type: application/json", f"content-length: {len(data)}", *headers,
    ]  # fmt: skip
    return ("\r\n".join(head) + "\r\n\r\n").encode() + data


def ready(running: System, key: str) -> str:
    """The gateway's Unix socket, once it lives by the agent's pact."""
    path = str(running.data / "gateway" / "gateway.sock")

    def answers() -> bool:
        line = Line(path)
        try:
            _, body = line.ask(request_of("/decide", key, {"tool": "look", "phase": "begin"}))
        finally:
            line.close()
        return bool(json.loads(body).get("pact") not in ("", "default"))

    eventually(answers, 20, "the gateway has the agent's pact")
    return path
