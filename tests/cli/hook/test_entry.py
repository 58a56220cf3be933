"""The hook as it is started: what it says when it cannot ask, or is asked nonsense."""

import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkrein.cli.hook import entry
from checkrein.cli.hook.asking import NoKey, key_of, place_of

PRE = {"hook_event_name": "PreToolUse", "session_id": "s", "tool_name": "Bash", "tool_input": {},
       "tool_use_id": "t"}  # fmt: skip
YES = b'{"verdict": "allow", "reason": ""}'


class Script:
    """A service on a Unix socket that answers with these bytes, and keeps what it was asked."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self.path, self.asked = path, b""
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        line, _ = self._listener.accept()
        with line:
            self.asked = line.recv(65536)
            line.sendall(self._answer)

    def close(self) -> None:
        self._thread.join(5)
        self._listener.close()


def http(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    said = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\ncontent-length: {said}\r\n\r\n".encode() + body


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("CHECKREIN_KEY", "cra_secret")
    monkeypatch.delenv("CHECKREIN_GATEWAY", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], event: Any, *options: str
) -> tuple[int, Any, str]:
    """Exit code, what is said as JSON, and stderr."""
    data = event if isinstance(event, bytes) else json.dumps(event).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    code = entry.main(["claude-code", *options])
    out = capsys.readouterr()
    return code, json.loads(out.out) if out.out else None, out.err


def test_one_question_over_the_socket(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Script(folder / "gate.sock", http(YES))
    code, said, err = start(monkeypatch, capsys, PRE, "--gateway", str(script.path), "--grant")
    script.close()
    assert (code, err) == (0, "")
    assert said["hookSpecificOutput"]["permissionDecision"] == "allow"
    head, _, body = script.asked.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /decide HTTP/1.1")
    assert b"Authorization: Bearer cra_secret" in head
    assert json.loads(body)["tool"] == "Bash"


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"nonsense", http(b"[]"), http(b"{}"), http(b"not json"), http(YES, length=5000),
        http(b'{"verdict": "deny", "reason": "no key"}', "401 Unauthorized"),
        http(b'{"verdict": 1}'), http(YES, "500 No"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_a_no(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: bytes
) -> None:
    script = Script(folder / "gate.sock", answer)
    code, said, _ = start(monkeypatch, capsys, PRE, "--gateway", str(script.path), "--grant")
    script.close()
    assert code == 0
    assert said["hookSpecificOutput"]["permissionDecision"] == "deny"
    assert "cra_secret" not in json.dumps(said)


def test_nobody_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = start(monkeypatch, capsys, PRE)
    decision = said["hookSpecificOutput"]
    assert (code, decision["permissionDecision"]) == (0, "deny")
    assert "checkrein up" in decision["permissionDecisionReason"]
    code, said, err = start(monkeypatch, capsys, PRE, "--on-error", "allow")
    assert (code, list(said)) == (0, ["systemMessage"])
    assert "nobody decides" in err
    code, said, err = start(monkeypatch, capsys, PRE | {"hook_event_name": "PostToolUse"})
    assert (code, said) == (1, None), "what was made cannot be blocked any more"
    assert "nobody decides" in err


@pytest.mark.parametrize(
    "event", [b"", b"[1]", b"{", b"\xff", json.dumps(PRE).encode() + b"x"],
)  # fmt: skip
def test_nonsense_on_stdin_blocks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], event: bytes
) -> None:
    code, said, err = start(monkeypatch, capsys, event)
    assert (code, said) == (2, None)
    assert err


@pytest.mark.parametrize(
    "options",
    [
        ["--on-error", "maybe"], ["--wait", "long"], ["--wait", "1e9"], ["--nope"], ["--run"],
        ["a", "b"],
    ],
)  # fmt: skip
def test_nonsense_in_the_command_blocks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    options: list[str],
) -> None:  # fmt: skip
    code, said, err = start(monkeypatch, capsys, PRE, *options)
    assert (code, said) == (2, None)
    assert "checkrein hook" in err


def test_other_events_are_let_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(monkeypatch, capsys, {"hook_event_name": "Notification"}) == (0, None, "")


def test_where_the_gateway_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place_of("unix:/run/g.sock", {}) == "/run/g.sock"
    assert place_of("", {"CHECKREIN_GATEWAY": "http://h:1/"}) == "http://h:1"
    (tmp_path / "checkrein").mkdir()
    found = {"url": "http://127.0.0.1:1", "token_file": "/srv/data/operator.token"}
    (tmp_path / "checkrein" / "local.json").write_text(json.dumps(found))
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert place_of("", environ) == "/srv/data/gateway/gateway.sock"
    (tmp_path / "checkrein" / "local.json").write_text("[")
    monkeypatch.chdir(tmp_path)
    assert place_of("", environ) == f"{tmp_path}/checkrein-data/gateway/gateway.sock"


def test_whose_key(tmp_path: Path) -> None:
    assert key_of("", {"CHECKREIN_KEY": "crr_a", "CHECKREIN_TOKEN": "cra_b"}) == "crr_a"
    assert key_of("", {"CHECKREIN_TOKEN": "cra_b"}) == "cra_b"
    (tmp_path / "key").write_text("cra_c\n")
    assert key_of(str(tmp_path / "key"), {}) == "cra_c"
    for environ in ({}, {"CHECKREIN_TOKEN": "cro_operator"}):
        with pytest.raises(NoKey, match="agent add"):
            key_of("", environ)
    with pytest.raises(NoKey, match="cannot be read"):
        key_of(str(tmp_path / "none"), {})


def test_nothing_but_the_standard_library_is_imported() -> None:
    code = (
        "import sys; from checkrein.cli import main\n"
        "sys.argv = ['checkrein', 'hook', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "sys.stderr.write(' '.join(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    loaded = set(done.stderr.split())
    assert "checkrein.cli.hook.entry" in loaded
    assert not loaded & {"click", "rich", "msgspec", "http.client", "dataclasses", "typing"}
