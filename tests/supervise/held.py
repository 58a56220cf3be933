"""A program under control in a test: started, held, and gone at the end whatever happens."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from checkrein.supervise import proc
from checkrein.supervise.cgroup import NoCgroup
from checkrein.supervise.launch import Go, fork_held
from checkrein.supervise.tree import MARKER, Tree, hold, make_leaf


def cgroups() -> bool:
    try:
        make_leaf(f"probe{os.getpid()}", "cgroup")[0].remove()  # type: ignore[union-attr] # raises instead
    except NoCgroup:
        return False
    return True


METHODS = [
    pytest.param("cgroup", marks=pytest.mark.skipif(not cgroups(), reason="no cgroup v2 here")),
    "subreaper",
]


def until(true: Callable[[], object], seconds: float = 10.0, what: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or true}"
        time.sleep(0.002)


@contextmanager
def python(
    code: str, *args: str, method: str = "strongest", environment: dict[str, str] | None = None
) -> Iterator[Tree]:
    """Python running `code` under control. The test process is the subreaper."""
    proc.become_subreaper()
    unit = f"test{os.getpid()}-{time.monotonic_ns()}"
    leaf, _ = make_leaf(unit, method)
    others = frozenset(proc.children_of(os.getpid()) or ())  # of earlier tests: not the tree's
    held = fork_held(leaf)
    tree = replace(hold(unit, held.pid, leaf=leaf), without=others)
    try:
        full = {**os.environ, **(environment or {}), MARKER: unit}
        held.release(Go([sys.executable, "-c", code, *args], full))
        yield tree
    finally:
        tree.kill()
        with suppress(ChildProcessError):
            os.waitpid(tree.main, 0)
        tree.exited = True
        until(lambda: nobody_left(tree))
        bury(tree)
        tree.close()


def nobody_left(tree: Tree) -> bool:
    """Looks once, and kills again whoever is seen."""
    if not tree.survivors():
        return True
    tree.kill()
    return False


def bury(tree: Tree) -> None:
    """Orphans of the tree that came to us."""
    for row in proc.Table().rows.values():
        if row.parent == os.getpid() and row.state == "Z" and row.group != os.getpgrp():
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, row.pid, os.WEXITED | os.WNOHANG)


def kill_pid(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
