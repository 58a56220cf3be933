"""Programs that each try one trick to get around the gateway: behind walls none gets out, and
without walls those that touch the network are seen."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.supervise.test_command import recorded

from checkrein.detect.catalogue import detectors
from checkrein.detect.engine import Engine
from checkrein.events import codec
from checkrein.events.refusals import BYPASS
from checkrein.events.types import Signal
from checkrein.policy.pact import default_pact
from checkrein.supervise.confine import able

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, "-m", "checkrein", "run"]
SECONDS_MAX = 60
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
EVADERS = sorted(
    path.stem for path in (ROOT / "tests" / "evaders").glob("*.py")
    if path.stem not in ("__init__", "canary", "driver")
)  # fmt: skip
BY_ADDRESS = frozenset({
    "plain_tcp", "other_base_url", "urllib_direct", "child_process", "double_fork",
    "memfd_program", "patched_away", "bare_environment", "many_forks", "bare_syscall", "ipv6",
    "mapped_address", "fast_open", "swapped_address", "other_interpreter", "udp",
})  # fmt: skip
BY_CALL = {"raw_socket": "socket", "packet_socket": "socket", "read_supervisor": "process_vm_readv",
           "io_uring": "io_uring_setup", "new_namespace": "unshare"}  # fmt: skip
NOT_THE_NETWORK = frozenset({
    "unix_path", "unix_link", "unix_abstract", "signal_supervisor", "memory_of_supervisor",
    "operator_token", "write_outside", "old_convention",
})  # fmt: skip
"""Not seen without walls: they use files and rights that an ordinary program uses, too."""

ABLE = able.look()


def levels() -> list[Any]:
    return [
        pytest.param(
            level,
            marks=pytest.mark.skipif(
                level not in ABLE.levels, reason=f"{level} is out of reach here: {ABLE.missing}"
            ),
        )
        for level in ("L2", "L3")
    ]


@dataclass
class Canaries:
    """Listens on ports and sockets of each evader's own, and counts who comes."""

    folder: Path
    given: dict[str, dict[str, object]] = field(default_factory=dict)
    came: list[str] = field(default_factory=list)
    _open: ExitStack = field(default_factory=ExitStack)

    def add(self, name: str, gateway: int) -> None:
        inet, unix = socket.AF_INET, socket.AF_UNIX
        path = str(self.folder / f"{name}.sock")
        abstract = f"canary-{os.getpid()}-{name}"
        self.given[name] = {
            "tcp": self._listen(name, inet, ("127.0.0.1", 0))[1],
            "tcp6": self._listen(name, socket.AF_INET6, ("::1", 0))[1],
            "udp": self._listen(name, inet, ("127.0.0.1", 0), socket.SOCK_DGRAM)[1],
            "unix": self._listen(name, unix, path),
            "abstract": self._listen(name, unix, b"\0" + abstract.encode()) and abstract,
            "secret": str(self.folder / "operator.token"),
            "outside": str(self.folder / f"{name}.stolen"),
            "gateway": gateway,
        }

    def gateway(self) -> int:
        """Something that may be reached; counted under its own name."""
        return int(self._listen("gateway", socket.AF_INET, ("127.0.0.1", 0))[1])

    def close(self) -> None:
        self._open.close()

    def _listen(self, name: str, family: int, address: Any, kind: int = socket.SOCK_STREAM) -> Any:
        made = self._open.enter_context(socket.socket(family, kind))
        made.bind(address)
        serve = self._hear
        if kind == socket.SOCK_STREAM:
            made.listen(64)
            serve = self._accept
        threading.Thread(target=serve, args=(name, made), daemon=True).start()
        self._open.callback(made.shutdown, socket.SHUT_RDWR) if family != socket.AF_INET else None
        return made.getsockname()

    def _accept(self, name: str, listening: socket.socket) -> None:
        while True:
            try:
                link, _ = listening.accept()
            except OSError:
                return
            self.came.append(name)
            with link:
                link.settimeout(5)
                try:
                    link.recv(4096)
                    link.sendall(ANSWER)
                except OSError:
                    continue

    def _hear(self, name: str, listening: socket.socket) -> None:
        while True:
            try:
                listening.recv(4096)
            except OSError:
                return
            self.came.append(name)


@contextmanager
def canaries(tmp_path: Path) -> Iterator[tuple[Canaries, dict[str, str]]]:
    """With the environment of somebody whose server's data lies beside them."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "operator.token").write_text("op-secret")
    config = tmp_path / "config" / "checkrein"
    config.mkdir(parents=True)
    local = {"url": "", "data": str(data), "token_file": str(data / "operator.token")}
    (config / "local.json").write_text(json.dumps(local))
    (tmp_path / "work").mkdir()
    made = Canaries(data)
    try:
        gateway = made.gateway()
        for name in EVADERS:
            made.add(name, gateway)
        kept = {name: text for name, text in os.environ.items() if not name.startswith("CHECK")}
        yield (
            made,
            {
                **kept,
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
                "XDG_STATE_HOME": str(tmp_path / "state"),
                "XDG_CONFIG_HOME": str(tmp_path / "config"),
                "CHECKREIN_GATEWAY": f"http://127.0.0.1:{gateway}",
                "CHECKREIN_URL": "http://127.0.0.1:1",
                "CANARIES": json.dumps(made.given),
            },
        )
    finally:
        made.close()


def drive(environment: dict[str, str], folder: Path, *options: str) -> dict[str, str]:
    """What each evader says became of it."""
    done = subprocess.run(
        [*RUN, *options, "--agent", "evader", "--", sys.executable, "-m", "tests.evaders.driver"],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=SECONDS_MAX,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert sorted(said) == EVADERS, done.stderr
    return said


def test_every_evader_is_expected_to_be_seen_or_not() -> None:
    assert len(EVADERS) >= 20
    assert set(EVADERS) == BY_ADDRESS | set(BY_CALL) | NOT_THE_NETWORK


@pytest.mark.parametrize("level", levels())
def test_behind_walls_none_gets_out(tmp_path: Path, level: str) -> None:
    with canaries(tmp_path) as (canary, environment):
        said = drive(environment, tmp_path / "work", f"--confine={level}")
        assert [name for name in canary.came if name != "gateway"] == []
        assert {name: word for name, word in said.items() if word == "reached"} == {}
        assert not list(canary.folder.glob("*.stolen"))
    refused = [event for event in recorded(environment) if event.get("rule") == BYPASS]
    assert refused
    assert {event["verdict"] for event in refused} == {"deny"}


def test_without_walls_the_tricks_work_and_those_on_the_network_are_seen(tmp_path: Path) -> None:
    with canaries(tmp_path) as (canary, environment):
        said = drive(environment, tmp_path / "work")
        reached = {name for name, word in said.items() if word == "reached"}
        # Otherwise the walls would have been tried with tricks that do not work anyway.
        assert reached >= BY_ADDRESS - {"fast_open"} | {"unix_path", "unix_link", "unix_abstract",
                                        "operator_token", "write_outside"}  # fmt: skip
        addresses = {
            name: {f"127.0.0.1:{given['tcp']}", f"[::1]:{given['tcp6']}",
                   f"127.0.0.1:{given['udp']}"}
            for name, given in canary.given.items()
        }  # fmt: skip
    events = recorded(environment)
    seen = [event["action"] for event in events if event.get("rule") == BYPASS]
    assert {
        name for name in BY_ADDRESS if not addresses[name] & {one["name"] for one in seen}
    } == set()
    rights = {name for name, word in said.items() if word == "reached"}
    kinds = {one["kind"] for one in seen}
    assert {name for name, kind in BY_CALL.items() if name in rights and kind not in kinds} == set()
    signals = breaches(events)
    assert all(any(address in why for why in signals) for address in
               (f"127.0.0.1:{canary.given['plain_tcp']['tcp']}",))  # fmt: skip


def breaches(events: list[dict[str, Any]]) -> list[str]:
    engine = Engine(detectors(), lambda *about: default_pact())
    found = (each for event in events for each in engine.observe(codec.from_fields(event)))
    return [
        each.why for each in found
        if isinstance(each, Signal) and (each.detector, each.level) == ("bypass", "breach")
    ]  # fmt: skip
