"""Walls around a program: what they let through, and that nothing starts behind walls that do not
hold."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.supervise.held import until
from tests.supervise.test_command import child_named, recorded
from tests.supervise.test_evaders import ABLE, levels

from checkrein.supervise.confine import keeping, kernel, seccomp
from checkrein.supervise.confine.able import Able
from checkrein.supervise.confine.addresses import Address, Allowed, address_of, way
from checkrein.supervise.confine.landlock import Grant
from checkrein.supervise.confine.plan import CannotPlan, gateway_of, grants_of

RUN = [sys.executable, "-m", "checkrein", "run"]
WITHOUT_RIGHTS = (
    "import os, sys; from checkrein.supervise.confine import kernel; "
    "kernel.drop_capabilities(); os.execv(sys.argv[1], sys.argv[1:])"
)

# -- pure ------------------------------------------------------------------------------------------

INET = Allowed(inet=frozenset({("127.0.0.1", 4401)}), socket="/run/a/agent.sock", tmp="/run/a/tmp")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (Address("inet", "127.0.0.1", 4401), "inet"),
        (Address("inet", "127.0.0.1", 4402), "no"),
        (Address("inet", "93.184.216.34", 4401), "no"),
        (Address("inet", "::1", 4401), "no"),
        (Address("unix", path="/run/a/agent.sock"), "supervisor"),
        (Address("unix", path="agent.sock"), "supervisor"),
        (Address("unix", path="/run/a/tmp/x"), "own"),
        (Address("unix", path="/run/a/tmp/../../docker.sock"), "no"),
        (Address("unix", path="/run/docker.sock"), "no"),
        (Address("abstract", path="name"), "no"),
        (Address("none", path="address family 0"), "disconnect"),
        (Address("none", path="address family 40"), "no"),
    ],
)
def test_which_addresses_a_program_may_use(address: Address, expected: str) -> None:
    assert way(INET, address, "/run/a") == expected


def test_in_a_network_of_its_own_it_may_reach_itself() -> None:
    own = Allowed(loopback=True)
    assert way(own, Address("inet", "127.0.0.1", 9), "/") == "inet"
    assert way(own, Address("inet", "::1", 9), "/") == "inet"
    assert way(own, Address("inet", "10.0.0.1", 9), "/") == "no"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("0200 1131 7f000001 0000000000000000", Address("inet", "127.0.0.1", 4401)),
        ("0a00 1131 00000000 00000000000000000000ffff7f000001 00000000",
         Address("inet", "127.0.0.1", 4401)),
        ("0100 2f61 00", Address("unix", path="/a")),
        ("0100 00 61", Address("abstract", path="a")),
        ("0000", Address("none", path="address family 0")),
        ("02", Address("none", path="address family 0")),
        ("", Address("none", path="address family 0")),
    ],
)  # fmt: skip
def test_addresses_are_read_as_the_kernel_reads_them(data: str, expected: Address) -> None:
    assert address_of(bytes.fromhex(data.replace(" ", ""))) == expected


REFUSED = seccomp.refuse(errno.EPERM)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("socket", (2, 1, 0), seccomp.ALLOW),
        ("socket", (10, 1 | 0o2004000, 6), seccomp.ALLOW),
        ("socket", (2, 1, 262), seccomp.refuse(errno.EACCES)),  # MPTCP
        ("socket", (2, 2, 0), seccomp.refuse(errno.EACCES)),
        ("socket", (2, 3, 1), seccomp.refuse(errno.EACCES)),
        ("socket", (1, 1, 0), seccomp.ALLOW),
        ("socket", (1, 2, 0), seccomp.refuse(errno.EACCES)),
        ("socket", (1, 3, 0), seccomp.refuse(errno.EACCES)),  # becomes a datagram socket
        ("socket", (16, 3, 0), seccomp.refuse(errno.EAFNOSUPPORT)),
        ("socket", (40, 1, 0), seccomp.refuse(errno.EAFNOSUPPORT)),  # to a hypervisor
        ("socketpair", (1, 2, 0), seccomp.refuse(errno.EACCES)),
        ("socketpair", (1, 1 | 0o2000000, 0), seccomp.ALLOW),
        ("connect", (3, 0, 16), seccomp.NOTIFY),
        ("sendto", (3, 0, 5, 0x20000000), seccomp.refuse(errno.EOPNOTSUPP)),
        ("sendto", (3, 0, 5, 0x4000), seccomp.ALLOW),
        ("sendmsg", (3, 0, 0x20004000), seccomp.refuse(errno.EOPNOTSUPP)),
        ("clone", (0x10000000 | 17,), REFUSED),
        ("clone", (0x003D0F00,), seccomp.ALLOW),  # a thread
        ("clone3", (0, 88), seccomp.refuse(errno.ENOSYS)),
        ("ioctl", (0, 0x5412), REFUSED),  # typing for the user
        ("ioctl", (0, 0x5401), seccomp.ALLOW),
        ("ptrace", (0,), REFUSED),
        ("io_uring_setup", (1, 0), REFUSED),
        ("mount", (), REFUSED),
    ],
)
def test_what_the_filter_answers(
    machine: str, name: str, arguments: tuple[int, ...], expected: int
) -> None:
    numbers = {"x86_64": kernel.X86_64, "aarch64": kernel.AARCH64}[machine]
    program = seccomp.fence(machine, numbers, own_network=False)
    arch = kernel.AUDIT_ARCH[machine]
    assert seccomp.run(program, numbers[name], arch, arguments) == expected


def test_unknown_calls_and_other_conventions_are_no_way_around() -> None:
    program = seccomp.fence("x86_64", kernel.X86_64, own_network=False)
    arch = kernel.AUDIT_ARCH["x86_64"]
    assert seccomp.run(program, 0, arch, ()) == seccomp.ALLOW
    assert seccomp.run(program, 9999, arch, ()) == seccomp.refuse(errno.ENOSYS)
    assert seccomp.run(program, 0x40000000 | 42, arch, ()) == seccomp.refuse(errno.ENOSYS)
    assert seccomp.run(program, 102, 0x40000003, ()) == seccomp.KILL  # 32 bit
    assert seccomp.run(program, kernel.X86_64["listen"], arch, (3, 1)) == seccomp.NOTIFY
    own = seccomp.fence("x86_64", kernel.X86_64, own_network=True)
    assert seccomp.run(own, kernel.X86_64["listen"], arch, (3, 1)) == seccomp.ALLOW


def test_watching_refuses_nothing() -> None:
    program = seccomp.watch("x86_64", kernel.X86_64)
    arch = kernel.AUDIT_ARCH["x86_64"]
    for number in range(500):
        answers = {seccomp.run(program, number, arch, each) for each in ((2, 3, 0, 0, 1), (17,))}
        assert answers <= {seccomp.ALLOW, seccomp.NOTIFY}
    assert seccomp.run(program, kernel.X86_64["sendto"], arch, (3, 0, 1, 0, 0)) == seccomp.ALLOW


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A project with the server's data in it."""
    (tmp_path / "home").mkdir()
    project = tmp_path / "project"
    for name in ("src/deep", "checkrein-data/keys", "src/data"):
        (project / name).mkdir(parents=True)
    return project


def written(grants: list[Grant]) -> set[str]:
    return {grant.path for grant in grants if grant.how == "write"}


def test_what_is_protected_is_left_out_of_what_is_granted(house: Path) -> None:
    environ = {"HOME": str(house.parent / "home"), "PATH": "/usr/bin"}
    keys, data = house / "checkrein-data", house / "src" / "data"
    grants = grants_of(["sh"], environ, house, protected=[keys, data])
    assert written(grants) == {str(house / "src" / "deep")}
    hidden = grants_of(["sh"], environ, house, protected=[keys, data], hides=True)
    assert written(hidden) == {str(house / "src"), "/dev/shm"}  # the first is not hidden there
    assert str(house) in written(grants_of(["sh"], environ, house))


def test_a_working_folder_that_holds_too_much_is_refused(house: Path) -> None:
    environ = {"HOME": str(house.parent / "home"), "PATH": "/usr/bin"}
    with pytest.raises(CannotPlan, match="home folder"):
        grants_of(["sh"], environ, house.parent)
    with pytest.raises(CannotPlan, match="must not reach"):
        grants_of(["sh"], environ, house, protected=[house])


def test_only_a_gateway_of_this_machine_will_do() -> None:
    assert gateway_of("http://127.0.0.1:4401").port == 4401
    assert gateway_of("http://[::1]:4401").host == "::1"
    for url in ("http://192.0.2.1:4401", "http://127.0.0.1:nonsense", ""):
        with pytest.raises(CannotPlan):
            gateway_of(url)


def test_a_machine_that_cannot_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Able(landlock=4, filters="", namespaces="")
    monkeypatch.setattr(keeping.able, "look", lambda: old)
    with pytest.raises(CannotPlan, match="Landlock is at version 4"):
        keeping.settle(keeping.Wish(level="auto"))
    closed = Able(landlock=6, filters="", namespaces="Operation not permitted")
    monkeypatch.setattr(keeping.able, "look", lambda: closed)
    assert keeping.settle(keeping.Wish(level="auto")).level == "L2"
    with pytest.raises(CannotPlan, match="no network namespace"):
        keeping.settle(keeping.Wish(level="L3"))
    assert keeping.settle(keeping.Wish()).level == ""


# -- real ------------------------------------------------------------------------------------------

needs_levels = pytest.mark.skipif(not ABLE.levels, reason=ABLE.missing)


@pytest.fixture
def gateway() -> Iterator[int]:
    """Answers one line to everybody who connects."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:

        def serve() -> None:
            while True:
                try:
                    link, _ = listening.accept()
                except OSError:
                    return
                with link:
                    link.sendall(b"welcome\n")

        threading.Thread(target=serve, daemon=True).start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def environment(tmp_path: Path, gateway: int) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("CHECKREIN_")}
    (tmp_path / "work").mkdir()
    return {
        **kept,
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "CHECKREIN_GATEWAY": f"http://127.0.0.1:{gateway}",
        "OPENAI_API_KEY": "",
    }


def run(
    environment: dict[str, str], folder: Path, code: str, *options: str,
    before: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    return subprocess.run(
        [*before, *RUN, *options, "--", sys.executable, "-c", code], env=environment, cwd=folder,
        capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip


HELLO = """
import os, socket
def welcome():
    port = int(os.environ["CHECKREIN_GATEWAY"].rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), 5) as link:
        return link.recv(100).decode().strip()
"""
AT_HOME = (
    HELLO
    + """
import asyncio, json, multiprocessing.connection as connection, subprocess, sys, tempfile, threading
import checkrein
checkrein.init()
with checkrein.run(goal="be at home"):
    pass
open("here.txt", "w").write("written")
family = tempfile.mkdtemp() + "/own"
with connection.Listener(family, "AF_UNIX") as listener:
    def greet():
        with listener.accept() as link:
            link.send("own")
    thread = threading.Thread(target=greet)
    thread.start()
    with connection.Client(family, "AF_UNIX") as link:
        own = link.recv()
    thread.join()
async def asked():
    port = int(os.environ["CHECKREIN_GATEWAY"].rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    line = await reader.readline()
    writer.close()
    return line.decode().strip()
child = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True)
print(json.dumps([welcome(), asyncio.run(asked()), own, child.stdout.strip()]))
"""
)


@pytest.mark.parametrize("level", levels())
def test_a_confined_program_is_at_home(
    environment: dict[str, str], tmp_path: Path, level: str
) -> None:
    done = run(environment, tmp_path / "work", AT_HOME, f"--confine={level}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["welcome", "welcome", "own", "42"]
    assert (tmp_path / "work" / "here.txt").read_text() == "written"
    events = recorded(environment)
    assert [e["detail"]["level"] for e in events if "level" in e.get("detail", {})] == [level]
    assert "be at home" in {e.get("goal") for e in events}  # its SDK has spoken with the supervisor
    assert "adopting" not in done.stderr


@needs_levels
def test_without_roots_rights_too(environment: dict[str, str], tmp_path: Path) -> None:
    """In a user namespace, where there may be one; else as far as the machine goes."""
    before = (sys.executable, "-c", WITHOUT_RIGHTS)
    done = run(environment, tmp_path / "work", f"{HELLO}\nprint(welcome())", "--confine",
               "--verbose", before=before)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "welcome\n"), done.stderr
    assert "confined to L" in done.stderr


@needs_levels
def test_the_servers_keys_are_out_of_reach_where_they_lie_beside_the_program(
    environment: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    (folder / "checkrein-data").mkdir()
    (folder / "checkrein-data" / "operator.token").write_text("op-secret")
    (folder / "mine").mkdir()
    code = "open('mine/a', 'w').write('x'); print(open('checkrein-data/operator.token').read())"
    for level in ABLE.levels:
        done = run(environment, folder, code, f"--confine={level}")
        assert done.returncode == 1, done.stderr
        assert "op-secret" not in done.stdout + done.stderr
        assert (folder / "mine" / "a").read_text() == "x"


@needs_levels
def test_nothing_starts_behind_walls_that_do_not_hold(
    environment: dict[str, str], tmp_path: Path
) -> None:
    broken = (
        "import sys; from checkrein.supervise.confine import seccomp; "
        "seccomp.fence = lambda *about, **more: [(6, 0, 0, seccomp.ALLOW)]; "
        "from checkrein.cli.run import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", broken, "--confine=L2", "--", "echo", "started"], env=environment,
        cwd=tmp_path / "work", capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (125, "")
    assert "L2 does not hold here: " in done.stderr
    assert "UDP" in done.stderr
    assert "Unix sockets by path" in done.stderr


@needs_levels
def test_without_a_gateway_nothing_starts(environment: dict[str, str], tmp_path: Path) -> None:
    del environment["CHECKREIN_GATEWAY"]
    done = run(environment, tmp_path / "work", "print('started')", "--confine")
    assert (done.returncode, done.stdout) == (125, "")
    assert "needs a gateway" in done.stderr


LOOPS = (
    HELLO
    + """
import sys, time
while True:
    try:
        print(welcome(), flush=True)
    except OSError as error:
        print("no", error, flush=True)
    time.sleep(0.05)
"""
)


@pytest.mark.parametrize("level", levels())
def test_the_door_is_opened_again_when_the_supervisor_was_killed(
    environment: dict[str, str], tmp_path: Path, level: str
) -> None:
    said = tmp_path / "said"
    with said.open("w") as out:
        process = subprocess.Popen(
            [*RUN, f"--confine={level}", "--", sys.executable, "-c", LOOPS], env=environment,
            cwd=tmp_path / "work", stdout=out, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        until(lambda: "welcome" in said.read_text(), 20)
        supervisor = child_named(process.pid, "checkrein-super")
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: child_named(process.pid, "checkrein-super") not in (0, supervisor), 20)
        before = len(said.read_text())
        until(lambda: "welcome" in said.read_text()[before:], 20)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
