"""The gateway as `up` starts it: its port, its socket, and what it says of itself."""

import http.client
import json
import os
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system import System


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system = System(tmp_path_factory.mktemp("gateway"))
    system.up()
    yield system
    system.down()


def get(url: str, **headers: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_it_serves_and_says_what_it_is_for(system: System) -> None:
    assert get(system.gateway + "/healthz") == (200, {"status": "ok", "in_flight": 0})
    status, body = get(system.gateway + "/elsewhere")
    assert status == 404
    assert "no path of the gateway" in body["error"]["message"]
    assert f"the gateway for models and tools is at {system.gateway}" in system.log()


def test_it_serves_on_a_unix_socket_that_only_its_owner_may_open(system: System) -> None:
    path = system.data / "gateway" / "gateway.sock"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as link:
        folder = os.open(path.parent, os.O_RDONLY)
        link.connect(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
        link.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert b'"status":"ok"' in b"".join(iter(lambda: link.recv(4096), b""))


def test_a_header_sent_twice_is_refused(system: System) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", system.gateway_port)
    connection.putrequest("GET", "/healthz")
    connection.putheader("authorization", "Bearer a")
    connection.putheader("authorization", "Bearer b")
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 400
    assert b"was sent twice" in answer.read()
    connection.close()


def test_a_wrong_setting_is_said_before_anything_starts(tmp_path: Path) -> None:
    system = System(tmp_path)
    (tmp_path / "checkrein.toml").write_text("[gateway]\nlook_ahaed = 3\n")
    system.up(wait=False)
    try:
        assert system.process is not None
        assert system.process.wait(30) == 2
    finally:
        system.down()
    assert "look_ahaed" in system.log()
