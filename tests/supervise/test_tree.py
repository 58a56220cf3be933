"""A tree stands still and dies in every state, with every kind of child, by both methods."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.supervise.held import METHODS, cgroups, nobody_left, python, until
from tests.supervise.programs import CANARY, CHILDREN, STATES

from checkrein.supervise import proc
from checkrein.supervise.cgroup import Leaf, NoCgroup, own_folders
from checkrein.supervise.launch import CannotStart, Go, fork_held
from checkrein.supervise.tree import Tree

BURNING = ("busy", "regex in C")
never = proc.Process(0, 0, 0, 0, "?", 0)


def cpu_ticks(tree: Tree) -> int:
    total = 0
    for process in tree.members():
        fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total


def freeze(tree: Tree) -> None:
    tree.freeze()
    until(tree.frozen)


def kill(tree: Tree) -> None:
    tree.kill()
    until(lambda: nobody_left(tree))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("state", STATES)
def test_every_state_stands_still_goes_on_and_dies(state: str, method: str, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = f"open({str(ready)!r}, 'w').close()\n{STATES[state]}"
    with python(code, method=method) as tree:
        assert tree.method == method
        until(ready.exists)
        expected = "R" if state in BURNING else "S"
        until(lambda: (proc.look(tree.main) or never).state == expected)
        freeze(tree)
        before = cpu_ticks(tree)
        stats = [proc.look(process.pid) for process in tree.members()]
        assert stats
        if method == "subreaper":
            assert all(row is not None and row.state == "T" for row in stats)
        assert cpu_ticks(tree) == before
        tree.thaw()
        if method == "subreaper":
            until(lambda: (proc.look(tree.main) or never).state != "T")
        else:
            until(lambda: not tree.frozen())
        freeze(tree)
        kill(tree)
        assert tree.survivors() == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", CHILDREN)
def test_no_child_survives(kind: str, method: str, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = CHILDREN[kind].format(ready=f"open({str(ready)!r}, 'w').close()")
    with python(code, method=method) as tree:
        until(ready.exists)
        until(lambda: any(p.name == "sleep" for p in tree.members()))
        pids = [process.pid for process in tree.members()]
        assert len(pids) == 2
        freeze(tree)
        kill(tree)
        assert tree.survivors() == []
        alive = [row for row in map(proc.look, pids) if row is not None and row.state != "Z"]
        assert alive == []


@pytest.mark.parametrize("method", METHODS)
def test_a_tree_that_forks_all_the_time_is_caught_whole(method: str) -> None:
    code = (
        "import os, time\n"
        "while True:\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        time.sleep(0.02)\n"
        "        os._exit(0)\n"
        "    time.sleep(0.001)\n"
        "    try:\n"
        "        while os.waitpid(-1, os.WNOHANG)[0]: pass\n"
        "    except ChildProcessError: pass\n"
    )
    with python(code, method=method) as tree:
        until(lambda: len(tree.members()) > 3)
        freeze(tree)
        kill(tree)
        assert tree.survivors() == []


@pytest.mark.parametrize("method", METHODS)
def test_no_effect_after_frozen_is_confirmed(method: str, tmp_path: Path) -> None:
    for attempt in range(10):
        canary = tmp_path / f"canary{attempt}"
        with python(CANARY, str(canary), method=method) as tree:
            until(lambda canary=canary: canary.exists() and canary.stat().st_size > 1000)  # type: ignore[misc] # bound at once
            freeze(tree)
            confirmed_ns = time.monotonic_ns()
            size = canary.stat().st_size
            kill(tree)
            assert canary.stat().st_size == size
            last = int(canary.read_text().splitlines()[-1])
            assert last < confirmed_ns


@pytest.mark.skipif(not cgroups() or os.getuid() != 0, reason="only root leaves a cgroup")
def test_who_moved_out_of_the_cgroup_stands_still_goes_on_and_dies_with_the_others(
    tmp_path: Path,
) -> None:
    canary = tmp_path / "canary"
    outside = own_folders()[-1] / "cgroup.procs"
    code = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    open(sys.argv[1], 'w').write('0')\n"
        "    canary = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)\n"
        "    while True: os.write(canary, b'x')\n"
        "time.sleep(600)\n"
    )
    with python(code, str(outside), str(canary), method="cgroup") as ours:
        tree = replace(ours, alone=True)
        until(lambda: canary.exists() and canary.stat().st_size > 10)
        freeze(tree)
        assert len(tree.strays()) == 1
        size = canary.stat().st_size
        tree.thaw()
        until(lambda: canary.stat().st_size > size)
        freeze(tree)
        size = canary.stat().st_size
        kill(tree)
        assert canary.stat().st_size == size
        assert tree.survivors() == []


def test_a_stopped_pid_is_never_another_process() -> None:
    with python("import time; time.sleep(600)", method="subreaper") as tree:
        row = proc.look(tree.main)
        assert row is not None
        other = proc.Process(row.pid, row.parent, row.group, row.session, "S", row.started - 1)
        assert not proc.send(other, signal.SIGKILL)
        assert tree.survivors() == [tree.main]


def test_a_program_that_is_not_there_is_said_as_a_shell_says_it() -> None:
    for program, code in (("/nonexistent/program", 127), ("/etc/passwd", 126)):
        held = fork_held()
        with pytest.raises(CannotStart) as caught:
            held.release(Go([program], dict(os.environ)))
        assert caught.value.exit_code == code
        os.waitpid(held.pid, 0)


def test_a_held_child_that_nobody_needs_is_gone() -> None:
    held = fork_held()
    held.drop()
    _, status = os.waitpid(held.pid, 0)
    assert os.WIFEXITED(status)


@pytest.mark.skipif(not cgroups(), reason="no cgroup v2 here")
def test_a_leaf_is_made_where_it_may_and_told_why_not_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(NoCgroup, match=str(tmp_path)):
        Leaf.make("x", [tmp_path])
    leaf = Leaf.make(f"probe-again{os.getpid()}", own_folders())
    assert leaf.remove()
    assert not leaf.path.exists()
