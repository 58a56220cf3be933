"""The link to a supervisor: what is said, what is obeyed, and what happens when it goes away."""

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

import checkrein
from checkrein.sdk.links.supervisor import FrameReader, SupervisorLink, frame
from checkrein.sdk.links.types import Process
from checkrein.sdk.local import (
    FRAME_BYTES_MAX,
    Began,
    Did,
    Ended,
    FromAgent,
    FromSupervisor,
    Hello,
    Instruct,
    Need,
    State,
    Welcome,
)
from tests.sdk.fakes import halted, house

RUN = "01890000-0000-7000-8000-00000000000a"


def wait_for(condition: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.002)


class Supervisor:
    """The other end of the socket, one connection at a time."""

    def __init__(self, path: Path, welcome: Welcome | None = None) -> None:
        self.path = path
        self.heard: list[Any] = []
        self.connections = 0
        self._welcome = welcome or Welcome()
        self._peer: socket.socket | None = None
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(path))
        self._listening.listen(4)
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        decoder = msgspec.msgpack.Decoder(FromAgent)
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            self._peer = peer
            self.connections += 1
            buffer = b""
            while True:
                try:
                    data = peer.recv(65536)
                except OSError:
                    break
                if not data:
                    break
                buffer += data
                while len(buffer) >= 4 and len(buffer) >= 4 + int.from_bytes(buffer[:4], "big"):
                    size = int.from_bytes(buffer[:4], "big")
                    message = decoder.decode(buffer[4 : 4 + size])
                    buffer = buffer[4 + size :]
                    self.heard.append(message)
                    if isinstance(message, Hello):
                        peer.sendall(frame(self._welcome))
            peer.close()

    def send(self, message: Any) -> None:
        assert self._peer is not None
        self._peer.sendall(frame(message))

    def hang_up(self) -> None:
        assert self._peer is not None
        self._peer.shutdown(socket.SHUT_RDWR)

    def of(self, kind: type) -> list[Any]:
        return [message for message in list(self.heard) if isinstance(message, kind)]

    def stages(self, command_id: str) -> list[str]:
        return [did.stage for did in self.of(Did) if did.command_id == command_id]

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        if self._peer is not None:
            self._peer.close()
        self._thread.join(10)


class Supervised:
    def __init__(self, folder: Path, welcome: Welcome | None = None, **config: str) -> None:
        self.supervisor = Supervisor(folder / "agent.sock", welcome)
        self._config = {"run_id": RUN, "task_id": "ab" * 16, **config}

    def __enter__(self) -> "Supervised":
        def make(process: Process) -> SupervisorLink:
            self.link = SupervisorLink(str(self.supervisor.path), process)
            return self.link

        self._house = house(make_link=make, **self._config)
        self.house = self._house.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._house.__exit__(*error)
        self.supervisor.close()


def instruct(verb: str, run_id: str, epoch: int, **arguments: Any) -> Instruct:
    return Instruct(
        command_id=f"c{epoch}", verb=verb, run_id=run_id, epoch=epoch, reason="because",
        issued_by="ann", arguments=arguments,
    )  # fmt: skip


@checkrein.tool
def act(n: int = 0) -> int:
    return n


def test_a_process_says_who_it_is_and_what_it_runs(tmp_path: Path) -> None:
    with Supervised(tmp_path) as it:
        with checkrein.run(goal="g") as run:
            act()
            wait_for(lambda: it.supervisor.of(State))
        wait_for(lambda: it.supervisor.of(Ended))
    hello, began = it.supervisor.of(Hello)[0], it.supervisor.of(Began)[0]
    assert hello.pid == os.getpid()
    assert (began.run.run_id, began.adopted, began.run.goal) == (RUN, True, "g")
    assert it.supervisor.of(Need)[0].agents == ["bot"]
    assert it.supervisor.of(State)[0].run_id == run.run_id
    ended = it.supervisor.of(Ended)[0]
    assert (ended.run_id, ended.status) == (RUN, "completed")


def test_pause_resume_and_halt(tmp_path: Path) -> None:
    with Supervised(tmp_path) as it:
        with halted("because"), checkrein.run() as run:
            wait_for(lambda: it.supervisor.of(Began))
            it.supervisor.send(instruct("pause", RUN, 1))
            wait_for(lambda: it.supervisor.stages("c1") == ["delivered", "held"])
            wait_for(lambda: it.supervisor.of(State)[-1].status == "paused")
            it.supervisor.send(instruct("resume", RUN, 2))
            wait_for(lambda: it.supervisor.stages("c2") == ["delivered", "resumed"])
            assert act() == 0
            it.supervisor.send(instruct("halt", RUN, 3))
            wait_for(lambda: run.hold.halted)
            act()
        wait_for(lambda: it.supervisor.stages("c3") == ["delivered", "fence", "unwind", "obeyed"])
        assert it.supervisor.of(Ended)[0].status == "halted"


def test_the_supervisors_pact_and_standing_orders_hold_from_the_first_call(tmp_path: Path) -> None:
    welcome = Welcome(
        pacts={"bot": "pact: bot\ntools: {other: {kind: read}}\n"}, room="refunds",
        environment="production",
    )  # fmt: skip
    with Supervised(tmp_path, welcome) as it, checkrein.run():
        with pytest.raises(checkrein.Denied):
            act()
        refused = it.house.recorder.of("tool.selected")[0]
        assert (refused["room"], refused["environment"]) == ("refunds", "production")


def test_a_run_ordered_to_halt_before_it_connected_is_halted(tmp_path: Path) -> None:
    welcome = Welcome(standing=[instruct("halt", RUN, 5)])
    with Supervised(tmp_path, welcome) as it:
        with halted(), checkrein.run() as run:
            assert run.run_id == RUN
            act()
        assert it.house.recorder.of("tool.selected") == []


def test_when_the_supervisor_goes_and_comes_back_everything_is_said_again(tmp_path: Path) -> None:
    with Supervised(tmp_path) as it, checkrein.run():
        wait_for(lambda: it.supervisor.of(State))
        it.supervisor.hang_up()
        assert act() == 0
        wait_for(lambda: it.supervisor.connections == 2)
        wait_for(lambda: len(it.supervisor.of(Began)) == 2)
        it.supervisor.send(instruct("pause", RUN, 1))
        wait_for(lambda: "held" in it.supervisor.stages("c1"))
        it.supervisor.send(instruct("resume", RUN, 2))
        wait_for(lambda: "resumed" in it.supervisor.stages("c2"))


def test_without_a_supervisor_at_the_address_the_agent_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make(process: Process) -> SupervisorLink:
        return SupervisorLink(str(tmp_path / "nobody.sock"), process)

    with house(make_link=make), checkrein.run():
        assert act() == 0
        wait_for(lambda: "no contact with the supervisor" in caplog.text)


def test_frames_come_whole_however_they_are_cut() -> None:
    messages = [Welcome(room="a"), Instruct(command_id="c", verb="halt", run_id="r", epoch=1)]
    data = b"".join(frame(message) for message in messages)
    reader = FrameReader()
    found = [message for byte in data for message in reader.feed(bytes([byte]))]
    assert found == messages
    assert msgspec.msgpack.Decoder(FromSupervisor).decode(data[4 : 4 + data[3]]) == messages[0]


def test_a_frame_over_the_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        FrameReader().feed((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
