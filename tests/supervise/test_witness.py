"""What is seen of a program's ways past the gateway, and what of it is told."""

import os
import socket
import time
from pathlib import Path

import pytest
from tests.supervise.held import python

from checkrein.bus.messages import RunRecord
from checkrein.supervise.confine.addresses import Address
from checkrein.supervise.confine.door import Seen
from checkrein.supervise.holding import Limits
from checkrein.supervise.journal import Journal, ListRecording
from checkrein.supervise.ladder import Ladder
from checkrein.supervise.sight import Sight, rows_of
from checkrein.supervise.tree import Tree
from checkrein.supervise.unit import Unit
from checkrein.supervise.witness import DIFFERENT_MAX, Witness, is_meant, resolvers, usual
from checkrein.world.sim import SimWorld

ENVIRON = {"CHECKREIN_GATEWAY": "http://localhost:4401", "CHECKREIN_URL": "http://127.0.0.1:4400"}


def unit_of(tree: Tree) -> Unit:
    record = RunRecord(
        run_id="r", task_id="t", agent="a", room="", environment="", session="",
        holder="supervisor", started_at=0,
    )  # fmt: skip
    unit = Unit(tree.unit, tree, "r", Ladder(Limits()))
    unit.began(record, 0)
    return unit


@pytest.fixture
def recording() -> ListRecording:
    return ListRecording(SimWorld(1))


@pytest.fixture
def witness(recording: ListRecording) -> Witness:
    unit = unit_of(Tree("u", os.getpid(), -1))
    return Witness(Journal(SimWorld(1), recording), lambda: unit, ENVIRON, True)


def to(host: str, port: int, kind: str = "connection", refused: bool = False) -> Seen:
    address = Address("inet", host, port)
    return Seen(kind, str(address), os.getpid(), refused, address)


def told(recording: ListRecording) -> list[tuple[str, str, str]]:
    return [
        (e.verdict, e.action["kind"], e.action["name"])  # type: ignore[attr-defined] # all of one type
        for e in recording.events
    ]


def test_the_gateway_and_the_server_are_usual(witness: Witness, recording: ListRecording) -> None:
    for port in (4400, 4401):
        witness.tell(to("127.0.0.1", port))
    assert recording.events == []
    witness.tell(to("127.0.0.1", 4402))
    witness.tell(to("127.0.0.1", 4402))
    witness.tell(to("127.0.0.1", 4402, refused=True))
    assert told(recording) == [
        ("allow", "connection", "127.0.0.1:4402"), ("deny", "connection", "127.0.0.1:4402"),
    ]  # fmt: skip


def test_without_a_gateway_only_refusals_are_told(recording: ListRecording) -> None:
    unit = unit_of(Tree("u", os.getpid(), -1))
    free = Witness(Journal(SimWorld(1), recording), lambda: unit, {}, False)
    free.tell(to("192.0.2.1", 443))
    assert not free.interested("192.0.2.1", 443)
    free.tell(to("192.0.2.1", 443, refused=True))
    assert [one[0] for one in told(recording)] == ["deny"]


def test_a_base_url_of_the_users_own_is_no_way_around() -> None:
    assert is_meant(ENVIRON)
    assert is_meant({**ENVIRON, "OPENAI_BASE_URL": "http://localhost:4401/openai/v1"})
    assert not is_meant({**ENVIRON, "ANTHROPIC_BASE_URL": "https://models.example"})
    assert not is_meant({})


def test_sockets_that_lead_out_are_told_and_others_are_not(
    witness: Witness, recording: ListRecording
) -> None:
    for path in ("/tmp/own.sock", "/run/docker.sock", "/run/dbus/system_bus_socket"):
        witness.tell(Seen("connection", path, 1, False, Address("unix", path=path)))
    assert [one[2] for one in told(recording)] == ["/run/docker.sock",
                                                   "/run/dbus/system_bus_socket"]  # fmt: skip


def test_a_program_that_tries_for_ever_fills_no_record(
    witness: Witness, recording: ListRecording
) -> None:
    for port in range(1000):
        witness.tell(to("192.0.2.1", 5000 + port))
    assert len(recording.events) == DIFFERENT_MAX + 1
    assert told(recording)[-1][1] == "more"


def test_where_names_are_asked(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# none\nnameserver 192.0.2.53\nsearch example\nnameserver\n")
    assert resolvers(path) == {"192.0.2.53"}
    assert resolvers(tmp_path / "none") == frozenset()
    assert ("::1", 4401) in usual(ENVIRON)


def test_a_connection_that_nobody_told_of_is_found_in_the_tables() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        code = (
            "import socket, sys, time\n"
            "link = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
            "time.sleep(60)\n"
        )
        with python(code, str(port)) as tree:
            seen: list[Seen] = []
            sight = Sight(seen.append, lambda host, number: number in (0, port), set(tree.without))
            link, _ = listening.accept()
            for _ in range(500):
                sight.look(unit_of(tree))
                if seen:
                    break
                time.sleep(0.01)
            link.close()
        assert {(one.kind, one.to, one.pid) for one in seen if one.kind == "connection"} == {
            ("connection", f"127.0.0.1:{port}", tree.main)
        }


def test_the_tables_are_read_as_the_kernel_writes_them() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        address = listening.getsockname()[:2]
        with socket.create_connection(address) as link:
            inode = os.fstat(link.fileno()).st_ino
            row = next(row for row in rows_of(os.getpid()) if row.inode == inode)
    assert (row.table, row.host, row.port) == ("tcp6", "::1", address[1])
