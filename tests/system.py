"""A whole Checkrein as a user starts it, for tests that need one: real processes, real ports."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import free_port

START_S = 30.0


class System:
    """`checkrein up` on a folder and a free port, with the environment of its clients."""

    def __init__(self, folder: Path, port: int = 0, data: Path | None = None) -> None:
        self.folder = folder
        self.data = data or folder / "data"
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.gateway_port = free_port()
        self.gateway = f"http://127.0.0.1:{self.gateway_port}"
        self.process: subprocess.Popen[str] | None = None
        self.environment = {
            **os.environ,
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "state"),
            "CHECKREIN_URL": self.url,
        }

    @property
    def token(self) -> str:
        return (self.data / "operator.token").read_text().strip()

    def up(self, *more: str, wait: bool = True) -> None:
        """Starts it; returns when /healthz answers 200."""
        log = open(self.folder / "up.log", "a")  # noqa: SIM115 # closed below, kept by the child
        command = [sys.executable, "-m", "checkrein", "up", "--data", str(self.data)]
        addresses = ["--http", self.url[7:], "--gateway", self.gateway[7:]]
        self.process = subprocess.Popen(
            [*command, *addresses, *more],
            stdout=log,
            stderr=log,
            env=self.environment,
            text=True,
        )
        log.close()
        if wait:
            self.wait_healthy()

    def wait_healthy(self, seconds: float = START_S) -> None:
        deadline = time.monotonic() + seconds
        while not self.healthy():
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"up ended with {self.process.returncode}:\n{self.log()}")
            assert time.monotonic() < deadline, f"not healthy in {seconds} s:\n{self.log()}"
            time.sleep(0.02)

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def down(self, seconds: float = 30.0) -> int:
        """SIGTERM, and the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(seconds)
        self.process = None
        return code

    def kill(self) -> None:
        """SIGKILL to `up` itself; its children follow."""
        assert self.process is not None
        children = self.children()
        self.process.kill()
        self.process.wait()
        self.process = None
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in children.values()):
            assert time.monotonic() < deadline, "children outlived `up`"
            time.sleep(0.02)

    def children(self) -> dict[str, int]:
        """Pids of the roles and bus servers by name."""
        assert self.process is not None
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, IndexError):
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if int(stat[1]) != self.process.pid:
                    continue
                command = (entry / "cmdline").read_bytes().split(b"\0")
                if b"serve" in command:
                    found[command[command.index(b"serve") + 1].decode()] = int(entry.name)
                elif b"nats-server" in command[0]:
                    found["nats-" + Path(command[2].decode()).parent.name] = int(entry.name)
        return found

    def run(self, *arguments: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """One `checkrein` command, as a user types it."""
        return subprocess.run(
            [sys.executable, "-m", "checkrein", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def json(self, *arguments: str, seconds: float = 60.0) -> Any:
        """The `--json` of a command. Fails with its error when there is none."""
        done = self.run(*arguments, "--json", seconds=seconds)
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError:
            said = f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
            raise AssertionError(f"checkrein {' '.join(arguments)}: {said}") from None

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """A `checkrein` command that goes on, such as `run -- …`."""
        return subprocess.Popen(
            [sys.executable, "-m", "checkrein", *arguments],
            env={**self.environment, **more.pop("env", {})},
            text=True,
            **more,
        )

    def get(self, path: str) -> Any:
        request = urllib.request.Request(
            self.url + path, headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def log(self) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / "up.log").read_text()
        return ""


@contextlib.contextmanager
def system(folder: Path, **environment: str) -> Iterator[System]:
    """A running system, stopped at the end however the test ends."""
    running = System(folder)
    running.environment |= environment
    running.up()
    try:
        yield running
    finally:
        if running.process is not None:
            try:
                running.down()
            except subprocess.TimeoutExpired:
                running.kill()
                raise


def eventually(condition: Any, seconds: float = 20.0, what: str = "") -> Any:
    """The first true answer of `condition()`, or a failure after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.02)
