"""`checkrein run` as a user types it, without a server: exit codes, signals, terminal, deaths."""

import ast
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.supervise.held import until

from checkrein.events import codec
from checkrein.sdk.reader import RingReader
from checkrein.supervise import proc

RUN = [sys.executable, "-c", "import sys; from checkrein.cli.run import main; "
       "sys.exit(main(sys.argv[1:]))"]  # fmt: skip


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHECKREIN_")}
    return {
        **kept,
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }


@contextmanager
def started(environment: dict[str, str], *args: str, **more: Any) -> Iterator[Any]:
    process = subprocess.Popen(
        [*RUN, *args], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        **more,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        process.kill()
        process.communicate()


def run(environment: dict[str, str], *args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *args], env=environment, capture_output=True, text=True, timeout=30, check=False,
        **more,
    )  # fmt: skip


def manifests(environment: dict[str, str]) -> list[dict[str, Any]]:
    folder = Path(environment["XDG_STATE_HOME"]) / "checkrein" / "runs"
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/manifest"))]


def recorded(environment: dict[str, str]) -> list[dict[str, Any]]:
    """All events of all recorders left on disk."""
    found: list[dict[str, Any]] = []
    folder = Path(environment["XDG_STATE_HOME"]) / "checkrein" / "runs"
    for meta in sorted(folder.glob("*/recorders/*/meta")):
        reader = RingReader(meta.parent)
        try:
            after = 0
            while records := reader.read(after):
                found += [codec.fields_of(data) for _, data in records]
                after = records[-1][0]
        finally:
            reader.close()
    return sorted(found, key=lambda event: int(event["ts"]))


def child_named(parent: int, name: str) -> int:
    for row in proc.Table().rows.values():
        if row.parent == parent and row.name == name and proc.alive(row):
            return row.pid
    return 0


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
def test_the_exit_code_is_the_programs(environment: dict[str, str], script: str, code: int) -> None:
    done = run(environment, "--", "sh", "-c", f"echo said; {script}")
    assert done.returncode == code
    assert done.stdout == "said\n"
    assert done.stderr.count("\n") == 1  # no server: one line
    events = recorded(environment)
    assert [e["type"] for e in events] == ["run.start", "run.end"]
    assert events[0]["argv"] == ["sh", "-c", f"echo said; {script}"]
    assert events[1]["status"] == ("completed" if code == 0 else "failed")


def test_what_cannot_be_run_is_said_as_a_shell_would(environment: dict[str, str]) -> None:
    done = run(environment, "--", "/nonexistent/program")
    assert done.returncode == 127
    assert "cannot run /nonexistent/program" in done.stderr
    assert run(environment, "--", "/etc/passwd").returncode == 126
    assert run(environment).returncode == 2


@pytest.mark.parametrize("name", ["new\nline", "q" * 201])
def test_a_name_that_no_server_takes_is_refused_before_anything_starts(
    environment: dict[str, str], name: str
) -> None:
    done = run(environment, "--agent", name, "--", "echo", "started")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot name an agent" in done.stderr


def test_input_and_arguments_pass_through(environment: dict[str, str]) -> None:
    done = run(environment, "--agent", "cat", "--", "cat", "-", input="through\n")
    assert done.stdout == "through\n"
    assert {e["agent"] for e in recorded(environment)} == {"cat"}


def test_a_wrong_pact_is_refused_with_its_place(
    environment: dict[str, str], tmp_path: Path
) -> None:
    pact = tmp_path / "pact.yaml"
    pact.write_text("pact: bot\nnonsense: 1\n")
    done = run(environment, "--pact", str(pact), "--", "true")
    assert done.returncode == 2
    assert f"{pact}:2:" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_reach_the_program(environment: dict[str, str], number: signal.Signals) -> None:
    code = (
        "import signal, sys, time\n"
        "came = []\n"
        f"signal.signal({int(number)}, lambda n, f: came.append(n))\n"
        "print('ready', flush=True)\n"
        "while not came: time.sleep(0.005)\n"
        "time.sleep(0.1)\nsys.exit(40 + sum(came))"  # once, not twice
    )
    before = signal.signal(number, signal.SIG_DFL)  # what is ignored here would be ignored there
    try:
        with started(environment, "--", sys.executable, "-c", code) as process:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            assert process.wait(10) == 40 + int(number)
    finally:
        signal.signal(number, before)


def test_a_killed_agent_has_its_end_written(environment: dict[str, str]) -> None:
    code = "import os; print(os.getpid(), flush=True); os.kill(os.getpid(), 9)"
    done = run(environment, "--", sys.executable, "-c", code)
    assert done.returncode == 137
    end = recorded(environment)[-1]
    assert (end["type"], end["signal"], end["status"]) == ("run.end", "SIGKILL", "failed")


def test_orphans_that_ended_are_buried_while_the_program_runs(
    environment: dict[str, str],
) -> None:
    code = (
        "import os, sys, time\n"
        "for _ in range(50):\n"
        "    if os.fork() == 0:\n"
        "        if os.fork() == 0: time.sleep(0.05)\n"  # its parent is gone by then
        "        os._exit(0)\n"
        "    os.wait()\n"
        "above, end = os.getppid(), time.monotonic() + 10\n"
        "def states():\n"
        "    for pid in open(f'/proc/{above}/task/{above}/children').read().split():\n"
        "        try: yield open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[0]\n"
        "        except OSError: yield 'gone'\n"
        "while len(found := list(states())) > 2 and time.monotonic() < end: time.sleep(0.002)\n"
        "print(found)\n"
    )
    done = run(environment, "--", sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert sorted(ast.literal_eval(done.stdout))[0] == "R"  # the program; and shipping
    assert "Z" not in done.stdout


@pytest.mark.parametrize("method", ["strongest", "subreaper"])
def test_a_killed_supervisor_is_replaced_and_nothing_is_lost(
    environment: dict[str, str], method: str
) -> None:
    code = "import sys; print('ready', flush=True); sys.stdin.readline(); sys.exit(5)"
    more = {"stdin": subprocess.PIPE}
    argv = ["--method", method, "--", sys.executable, "-c", code]
    with started(environment, *argv, **more) as process:
        assert process.stdout.readline() == "ready\n"
        first = child_named(process.pid, "checkrein-super")
        until(lambda: manifests(environment)[0]["main"])
        os.kill(first, signal.SIGKILL)
        until(lambda: child_named(process.pid, "checkrein-super") not in (0, first))
        until(lambda: any("taken over" in str(e.get("reason")) for e in recorded_now(environment)))
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(10) == 5
        assert "the supervisor was killed" in process.stderr.read()
    events = recorded(environment)
    assert [e["type"] for e in events] == ["run.start", "status", "run.end"]
    assert events[2]["exit_code"] == 5


def recorded_now(environment: dict[str, str]) -> list[dict[str, Any]]:
    """As `recorded`, while shipping may hold the readers' locks."""
    with suppress(Exception):
        return recorded(environment)
    return []


def test_a_pact_that_says_halt_ends_the_program_with_its_supervisor(
    environment: dict[str, str], tmp_path: Path
) -> None:
    pact = tmp_path / "pact.yaml"
    pact.write_text("pact: bot\nlost_contact: halt\n")
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    argv = ["--pact", str(pact), "--", sys.executable, "-c", code]
    with started(environment, *argv) as process:
        agent = int(process.stdout.readline())
        until(lambda: manifests(environment)[0]["main"] == agent)
        os.kill(child_named(process.pid, "checkrein-super"), signal.SIGKILL)
        until(lambda: not proc.alive(proc.look(agent)))
        assert process.wait(10) == 137
    end = recorded(environment)[-1]
    assert (end["type"], end["status"]) == ("run.end", "halted")
    assert "lost_contact: halt" in end["reason"]


def test_when_the_front_is_killed_the_run_goes_on_supervised(
    environment: dict[str, str], tmp_path: Path
) -> None:
    go = tmp_path / "go"
    code = (
        f"import os, sys, time\nprint('ready', flush=True)\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\nsys.exit(3)"
    )
    with started(environment, "--", sys.executable, "-c", code) as process:
        assert process.stdout.readline() == "ready\n"
        until(lambda: manifests(environment)[0]["main"])
        process.kill()
        process.wait()
        go.touch()
        until(lambda: manifests(environment)[0]["ended"])
    until(lambda: [e for e in recorded_now(environment) if e["type"] == "run.end"])
    assert recorded(environment)[-1]["exit_code"] == 3


def test_what_dead_supervisors_left_is_found_by_the_next_run(
    environment: dict[str, str],
) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with started(environment, "--", sys.executable, "-c", code) as process:
        agent = int(process.stdout.readline())
        until(lambda: manifests(environment)[0]["main"] == agent)
        supervisor = child_named(process.pid, "checkrein-super")
        process.kill()
        os.kill(supervisor, signal.SIGKILL)
        os.kill(agent, signal.SIGKILL)
    left = manifests(environment)[0]["run"]["run_id"]
    cgroup = manifests(environment)[0]["cgroup"]
    until(lambda: not proc.alive(proc.look(agent)))
    assert run(environment, "--", "true").returncode == 0
    ends = {e["run_id"]: e for e in recorded(environment) if e["type"] == "run.end"}
    assert ends[left]["status"] == "lost"
    assert "supervisor was killed" in ends[left]["reason"]
    assert not cgroup or not Path(cgroup).exists()


def read_until(fd: int, text: bytes, seconds: float = 10.0) -> bytes:
    deadline = time.monotonic() + seconds
    data = b""
    while text not in data:
        left = deadline - time.monotonic()
        assert left > 0, data
        if select.select([fd], [], [], left)[0]:
            try:
                data += os.read(fd, 4096)
            except OSError:
                raise AssertionError(data) from None
    return data


def test_the_terminal_stays_usable(environment: dict[str, str]) -> None:
    """Input, Ctrl-C, Ctrl-Z and `fg`, and the window's size, through a shell with job control."""
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, lambda n, f: print('got int', flush=True))\n"
        "signal.signal(signal.SIGWINCH, lambda n, f: print('size', "
        "os.get_terminal_size().columns, flush=True))\n"
        "print('ready', os.isatty(0), flush=True)\n"
        "for line in sys.stdin: print('said', line.strip(), flush=True)\n"
    )
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(environment)
        os.environ["PS1"] = "$ "
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    try:
        script = Path(environment["XDG_STATE_HOME"]).parent / "agent.py"
        script.write_text(code)
        command = f"{RUN[0]} -c '{RUN[2]}' -- {sys.executable} {script}\n"
        os.write(fd, command.encode())
        read_until(fd, b"ready True")
        os.write(fd, b"hello\n")
        read_until(fd, b"said hello")
        os.write(fd, b"\x03")
        read_until(fd, b"got int")
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 77, 0, 0))
        read_until(fd, b"size 77")
        os.write(fd, b"\x1a")
        read_until(fd, b"Stopped")
        os.write(fd, b"fg\n")
        read_until(fd, b"agent.py")
        os.write(fd, b"again\n")
        read_until(fd, b"said again")
        os.write(fd, b"\x04")
        read_until(fd, b"$ ")
        os.write(fd, b"echo code $?\n")
        read_until(fd, b"code 0")
    finally:
        os.write(fd, b"\x04exit\n")
        with suppress(OSError):
            os.kill(pid, signal.SIGHUP)
        os.waitpid(pid, 0)
        os.close(fd)
