"""What concerns a whole process: forks, exits, heartbeats, settings, the HTTP question."""

import http.server
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

import checkrein
from checkrein.bus.messages import SessionGrant, SessionRequest
from checkrein.events import codec
from checkrein.sdk import config as configs
from checkrein.sdk.config import Endpoint
from checkrein.sdk.links.session import NoSession, ask
from checkrein.sdk.pulse import Pulse
from checkrein.sdk.reader import RingReader, find_recorders
from checkrein.world import REAL
from tests.sdk.fakes import house


def run_program(folder: Path, text: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A Python program with the SDK, without any server."""
    source = str(Path(checkrein.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        capture_output=True, text=True, timeout=50, check=False,
        env={
            "PATH": os.environ["PATH"], "PYTHONPATH": source, "HOME": str(folder),
            "CHECKREIN_RECORDERS": str(folder / "recorders"), "CHECKREIN_AGENT": "bot", **environ,
        },
    )  # fmt: skip


def recorded(folder: Path) -> list[list[dict[str, object]]]:
    """The events of every recorder in a folder, by recorder, oldest first."""
    found = []
    for one in find_recorders(folder / "recorders"):
        reader = RingReader(one.directory)
        found.append([codec.fields_of(data) for _, data in reader.read(0, 10_000_000)])
        reader.close()
    return found


def test_without_a_server_it_records_locally_and_warns_once(tmp_path: Path) -> None:
    done = run_program(
        tmp_path,
        """
        import checkrein
        checkrein.init()

        @checkrein.tool
        def act(n): return n

        for _ in range(2):
            with checkrein.run(goal="g"):
                act(1)
        print("fine")
        """,
    )
    assert (done.returncode, done.stdout) == (0, "fine\n")
    assert done.stderr.count("no server is known") == 1
    (events,) = recorded(tmp_path)
    kinds = [event["type"] for event in events]
    assert kinds.count("tool.reentered") == 2
    assert kinds.count("run.end") == 2


def test_a_server_that_is_not_there_delays_nothing(tmp_path: Path) -> None:
    done = run_program(
        tmp_path,
        """
        import time, checkrein
        checkrein.init()
        began = time.monotonic()
        with checkrein.run():
            pass
        assert time.monotonic() - began < 1.5
        """,
        CHECKREIN_URL="http://127.0.0.1:9",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no contact with the server") == 1


def test_a_forked_child_records_for_itself_and_does_not_end_its_parents_run(
    tmp_path: Path,
) -> None:
    done = run_program(
        tmp_path,
        """
        import os, sys, checkrein
        checkrein.init(url="off")

        @checkrein.tool
        def act(who): return who

        with checkrein.run(goal="g"):
            act("parent")
            pid = os.fork()
            if pid == 0:
                act("child")
                sys.exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            act("parent again")
        """,
    )
    assert done.returncode == 0, done.stderr
    parent, child = recorded(tmp_path)
    assert [e["arguments"] for e in parent if e["type"] == "tool.arguments"] == [
        {"who": "parent"}, {"who": "parent again"},
    ]  # fmt: skip
    assert [e["arguments"] for e in child if e["type"] == "tool.arguments"] == [{"who": "child"}]
    assert {e["run_id"] for e in child} == {parent[0]["run_id"]}
    assert [e["type"] for e in parent].count("run.end") == 1
    assert [e["type"] for e in child].count("run.end") == 0
    ids = [e["call_id"] for e in parent + child if e["type"] == "tool.invoked"]
    assert len(set(ids)) == 3


def test_a_fork_while_other_threads_are_at_work_does_not_hang(tmp_path: Path) -> None:
    done = run_program(
        tmp_path,
        """
        import os, signal, threading, checkrein
        checkrein.init(url="off")

        @checkrein.tool
        def act(n): return n

        def work(times):
            for n in range(times):
                with checkrein.run():
                    act(n)
                try:
                    act(n)
                except (checkrein.Denied, checkrein.Halted):
                    pass
                if stop.is_set():
                    return

        stop = threading.Event()
        threads = [threading.Thread(target=work, args=(100_000,)) for _ in range(3)]
        for one in threads:
            one.start()
        try:
            for _ in range(20):
                pid = os.fork()
                if pid == 0:
                    signal.alarm(20)
                    work(3)
                    os._exit(0)
                assert os.waitpid(pid, 0)[1] == 0
        finally:
            stop.set()
            for one in threads:
                one.join()
        """,
    )
    assert done.returncode == 0, done.stderr


def test_the_local_pact_is_enforced_without_a_server(tmp_path: Path) -> None:
    pact = tmp_path / "pact.yaml"
    pact.write_text("pact: bot\ntools: {read: {kind: read}}\n")
    done = run_program(
        tmp_path,
        """
        import checkrein

        @checkrein.tool
        def act(): print("made")

        try:
            act()
        except checkrein.Denied as denied:
            print(denied.rule)
        """,
        CHECKREIN_PACT=str(pact), CHECKREIN_URL="off",
    )  # fmt: skip
    assert done.stdout.startswith("tools."), done.stderr


def test_heartbeats_name_the_calls_in_flight() -> None:
    inside, go = threading.Event(), threading.Event()

    @checkrein.tool
    def slow() -> None:
        inside.set()
        go.wait(10)

    with house() as it, checkrein.run() as run:
        there = threading.Thread(target=slow)
        there.start()
        inside.wait(10)
        Pulse(it.client.runs, it.recorder, REAL, it.client.started_ns).beat()
        go.set()
        there.join()
        beat = it.recorder.of("heartbeat")[0]
        assert beat["run_id"] == run.run_id
        assert beat["interval_ns"] == 10_000_000_000
        call = beat["in_flight"][0]
        assert (call["kind"], call["name"]) == ("tool", "slow")
        assert call["since_ns"] > 0


def test_the_pulse_beats_by_itself() -> None:
    with house() as it, checkrein.run():
        pulse = Pulse(it.client.runs, it.recorder, REAL, it.client.started_ns, interval_s=0.01)
        pulse.start()
        deadline = threading.Event()
        for _ in range(1000):
            if len(it.recorder.of("heartbeat")) >= 2:
                break
            deadline.wait(0.01)
        pulse.stop()
        assert len(it.recorder.of("heartbeat")) >= 2


def test_arguments_go_before_the_environment() -> None:
    environ = {"CHECKREIN_AGENT": "env", "CHECKREIN_ROOM": "r", "HOME": "/home/x"}
    found = configs.read(environ, agent="given")
    assert (found.agent, found.room) == ("given", "r")
    assert found.recorders == "/home/x/.local/state/checkrein/recorders"
    assert configs.read({**environ, "XDG_STATE_HOME": "/s"}).recorders == "/s/checkrein/recorders"


def test_a_local_server_is_found_with_its_token(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert configs.endpoint(configs.read(environ), environ) is None
    token = tmp_path / "operator.token"
    token.write_text("secret\n")
    file = configs.local_file(environ)
    file.parent.mkdir()
    file.write_text(json.dumps({"url": "http://127.0.0.1:4400", "token_file": str(token)}))
    found = configs.endpoint(configs.read(environ), environ)
    assert found == Endpoint("http://127.0.0.1:4400", "secret")
    elsewhere = configs.read({**environ, "CHECKREIN_URL": "http://other:1"})
    assert configs.endpoint(elsewhere, environ) == Endpoint("http://other:1", "")
    file.write_text("not json")
    assert configs.endpoint(configs.read(environ), environ) is None


@contextmanager
def web(status: int, body: bytes) -> Iterator[tuple[str, list[dict[str, str]]]]:
    asked: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            asked.append({**dict(self.headers), "body": text, "path": self.path})
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:9/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


REQUEST = SessionRequest(kind="sdk", agents=["bot"])


def test_a_session_is_asked_for_with_the_token() -> None:
    grant = SessionGrant(
        session="s", bus_urls=["nats://a"], control_urls=["nats://b"], jwt="j", seed="x",
        control_key="k", expires_at=1,
    )  # fmt: skip
    with web(201, msgspec.json.encode(grant)) as (url, asked):
        assert ask(Endpoint(url, "tok"), REQUEST) == grant
    assert asked[0]["path"] == "/api/v1/sessions"
    assert asked[0]["Authorization"] == "Bearer tok"
    assert json.loads(asked[0]["body"])["agents"] == ["bot"]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b'{"detail": "unknown token"}', "unknown token.*CHECKREIN_TOKEN"),
        (500, b"oops", "answered 500"),
        (200, b"{}", "missing required field"),
        (302, b"", "answered 302"),
    ],
)
def test_a_session_not_granted_says_why(status: int, body: bytes, said: str) -> None:
    with web(status, body) as (url, _), pytest.raises(NoSession, match=said):
        ask(Endpoint(url, "tok"), REQUEST)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "file:///etc/passwd", "nonsense"])
def test_a_server_that_cannot_be_asked_says_why(url: str) -> None:
    with pytest.raises(NoSession, match=url.split(":", maxsplit=1)[0]):
        ask(Endpoint(url), REQUEST)
