"""A pushed pact in a whole running system: agents under way, supervised and not, servers killed."""

import os
import signal
import subprocess
import sys
import threading
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from checkrein.cli.client import Client, ClientError
from checkrein.cli.discover import Place
from tests.system import System, eventually, system

AGENT = """
import sys
import checkrein
from checkrein.sdk.errors import Denied

@checkrein.tool
def refund(n):
    return n

with checkrein.run("x") as run:
    n = 0
    for line in sys.stdin:
        n += 1
        try:
            refund(n)
            said = "ok"
        except Denied:
            said = "denied"
        print(said, run.seat.pact.pact, flush=True)
"""
OPEN = "pact: open\ntools: {refund: {kind: read}, other: {kind: read}}\n"
CLOSED = "pact: closed\ntools: {other: {kind: read}}\n"


class Agent:
    """A process with an agent that makes one call a line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.answers: list[str] = []

    def call(self) -> tuple[str, str]:
        """What became of one call, and the pact it was decided by."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        said, _, pact = self.process.stdout.readline().strip().partition(" ")
        return said, pact

    def becomes(self, *answer: str, seconds: float = 10) -> None:
        eventually(lambda: self.call() == answer, seconds, f"{answer}")


@contextmanager
def agent(it: System, folder: Path, *, supervised: bool, name: str = "bot") -> Iterator[Agent]:
    program = folder / "agent.py"
    program.write_text(AGENT)
    command = [sys.executable, str(program)]
    if supervised:
        command = [sys.executable, "-m", "checkrein", "run", "--agent", name, "--", *command]
    token = it.token if (it.data / "operator.token").exists() else ""
    process = subprocess.Popen(
        command, env={**it.environment, "CHECKREIN_AGENT": name, "CHECKREIN_TOKEN": token},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield Agent(process)
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()  # type: ignore[union-attr] # a pipe, as asked for
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        process.stdout.close()  # type: ignore[union-attr] # as above


def push(it: System, text: str, name: str = "bot") -> dict[str, Any]:
    client = Client(Place(it.url, it.token))
    try:
        found: dict[str, Any] = client.put(f"/api/v1/pacts/{name}", {"text": text})
        return found
    finally:
        client.close()


def in_force(it: System, name: str = "bot") -> tuple[int, int]:
    try:
        line = it.get(f"/api/v1/pacts/{name}")
    except (OSError, urllib.error.URLError):
        return 0, -1
    return line["current"], line["processes"]


@pytest.mark.parametrize("supervised", [False, True])
def test_an_agent_under_way_decides_by_what_was_pushed(tmp_path: Path, supervised: bool) -> None:
    with system(tmp_path) as it, agent(it, tmp_path, supervised=supervised) as bot:
        assert bot.call() == ("ok", "default")
        eventually(lambda: in_force_of_list(it) == (1, 1), 10, "the process is known")
        file = tmp_path / "closed.yaml"
        file.write_text(CLOSED)
        done = it.run("pact", "push", str(file), "--agent", "bot", "--reason", "tighter")
        assert done.returncode == 0, done.stderr
        bot.becomes("denied", "closed", seconds=2)
        eventually(lambda: in_force(it) == (1, 1), 10, "acknowledged")
        broken = tmp_path / "broken.yaml"
        broken.write_text("pact: bot\nbudgets:\n  stepz: 3\n")
        refused = it.run("pact", "push", str(broken))
        assert refused.returncode == 2
        assert f"{broken}:3:3" in refused.stderr
        assert bot.call()[1] == "closed"
        push(it, OPEN)
        bot.becomes("ok", "open", seconds=2)
        listed = it.run("pact", "list")
        log = it.run("pact", "log", "bot")
        shown = it.run("pact", "show", "bot")
    assert "1 of 1" in listed.stdout
    assert "tighter" in log.stdout
    assert OPEN in shown.stdout


def in_force_of_list(it: System) -> tuple[int, int]:
    lines = [line for line in it.get("/api/v1/pacts") if line["agent"] == "bot"]
    return (lines[0]["current"], lines[0]["processes"]) if lines else (0, 0)


def test_pushes_one_after_the_other_arrive_in_order(tmp_path: Path) -> None:
    with system(tmp_path) as it, agent(it, tmp_path, supervised=False) as bot:
        bot.call()
        seen: list[str] = []
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                seen.append(bot.call()[1])

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            for number in range(1, 21):
                text = OPEN.replace("open", f"open-{number:02d}")
                push(it, text)
            eventually(lambda: seen[-1] == "open-20", 10, "the last one")
        finally:
            done.set()
            watching.join(20)
    assert seen == sorted(seen, key=lambda name: "" if name == "default" else name)


@pytest.mark.parametrize("supervised", [False, True])
def test_what_was_pushed_while_the_api_is_killed_is_in_force_in_the_end(
    tmp_path: Path, supervised: bool
) -> None:
    """Whatever it had done when it died: the agent enforces what the record says."""
    with system(tmp_path) as it, agent(it, tmp_path, supervised=supervised) as bot:
        push(it, OPEN)
        bot.becomes("ok", "open")
        for number in range(3):
            api = it.children()["api"]
            pushing = threading.Thread(target=_push_anyhow, args=(it, f"pact: kill-{number}\n"))
            pushing.start()
            os.kill(api, signal.SIGKILL)
            pushing.join(20)
            eventually(it.healthy, 30, "the api is back")
        last = it.get("/api/v1/pacts/bot")
        name = last["text"].split()[1]
        bot.becomes("ok", name, seconds=15)
        push(it, OPEN)
        bot.becomes("ok", "open")


def _push_anyhow(it: System, text: str) -> None:
    with suppress(ClientError, OSError):
        push(it, text)


@pytest.mark.parametrize("supervised", [False, True])
def test_an_agent_outlives_its_server_and_hears_what_came_meanwhile(
    tmp_path: Path, supervised: bool
) -> None:
    with system(tmp_path) as it, agent(it, tmp_path, supervised=supervised) as bot:
        push(it, OPEN)
        bot.becomes("ok", "open")
        it.kill()
        assert bot.call() == ("ok", "open")
        it.up()
        push(it, CLOSED)
        bot.becomes("denied", "closed", seconds=20)


@pytest.mark.parametrize("supervised", [False, True])
def test_an_agent_that_begins_without_its_server_lives_by_its_last_pact(
    tmp_path: Path, supervised: bool
) -> None:
    with system(tmp_path) as it:
        push(it, CLOSED)
        with agent(it, tmp_path, supervised=supervised) as bot:
            bot.becomes("denied", "closed")
        it.down()
        with agent(it, tmp_path, supervised=supervised) as bot:
            assert bot.call() == ("denied", "closed")
        it.up()


def test_a_pact_of_a_file_does_not_come_back_over_a_push(tmp_path: Path) -> None:
    """`--pact` is told to the server once, not with every renewal."""
    file = tmp_path / "open.yaml"
    file.write_text(OPEN)
    with system(tmp_path) as it:
        program = tmp_path / "agent.py"
        program.write_text(AGENT)
        command = ["run", "--agent", "bot", "--pact", str(file), "--", sys.executable, str(program)]
        process = it.start(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        bot = Agent(process)
        try:
            assert bot.call() == ("ok", "open")
            push(it, CLOSED)
            bot.becomes("denied", "closed", seconds=5)
            it.kill()
            it.up()
            eventually(lambda: in_force(it) == (1, 1), 30, "a session again")
            assert it.get("/api/v1/pacts/bot")["text"] == CLOSED
            assert bot.call()[1] == "closed"
        finally:
            process.stdin.close()  # type: ignore[union-attr] # a pipe, as asked for
            process.wait(20)
            process.stdout.close()  # type: ignore[union-attr] # as above
