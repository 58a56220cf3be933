"""A relay: every process forks one successor and ends. It is caught, and never said to be caught
while it goes on. Bounds are counted in looks, not in seconds: a slow machine is slow for both."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.supervise.held import METHODS, nobody_left, python, until
from tests.supervise.programs import RELAY, UNDERTAKER

from checkrein.supervise import proc
from checkrein.supervise.chase import Chase
from checkrein.supervise.tree import Tree
from checkrein.supervise.walk import unsettled

LOOKS_MAX = 1_000
LOOKS_IN_VAIN = 200
IN_VAIN_S = 8.0
"""A relay ends by itself at last."""
DEAD = 400
THREADS = 300


@contextmanager
def relay(canary: Path, method: str = "subreaper") -> Iterator[Tree]:
    """A relay that runs, held as what `checkrein run` starts is held."""
    proc.become_subreaper()
    others = frozenset(proc.children_of(os.getpid()) or ())
    with python(RELAY, str(canary), method=method) as tree:
        tree.alone, tree.without = True, others
        until(lambda: canary.exists() and canary.stat().st_size > 1000)
        yield tree


def goes_on(file: Path) -> None:
    """Returns when another byte has come, however long the relay has to wait for a processor."""
    size = file.stat().st_size
    until(lambda: file.stat().st_size > size)


def grows(file: Path) -> bool:
    """Whether a byte comes within many turns of a relay."""
    size, until_s = file.stat().st_size, time.monotonic() + 0.1
    while time.monotonic() < until_s:
        if file.stat().st_size != size:
            return True
        time.sleep(0.002)
    return False


def seen(true: Callable[[], object]) -> bool:
    """Whether a bounded number of looks sees it."""
    for _ in range(LOOKS_MAX):
        if true():
            return True
        time.sleep(0.002)
    return False


def looks_in_vain() -> Iterator[int]:
    until_s = time.monotonic() + IN_VAIN_S
    for look in range(LOOKS_IN_VAIN):
        if time.monotonic() > until_s:
            return
        yield look


def freeze(tree: Tree) -> None:
    tree.freeze()
    assert seen(tree.frozen)


def kill(tree: Tree) -> None:
    tree.kill()
    assert seen(lambda: nobody_left(tree))


def dead_children(tree: Tree) -> set[int]:
    rows = proc.Table().children.get(os.getpid(), ())
    return {row.pid for row in rows if row.state == "Z"} - {tree.main, *tree.without}


@contextmanager
def idle_threads(count: int) -> Iterator[None]:
    end = threading.Event()
    threads = [threading.Thread(target=end.wait) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()


@pytest.fixture(params=["lists", "no lists"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that tells the children of a process, and one that does not."""
    if request.param == "no lists":
        tell_no_children(monkeypatch)


def tell_no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "_children_of_thread", lambda _pid, _thread: None)


@pytest.mark.parametrize("frozen_first", [True, False])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", ["plain", "many dead", "many threads", "no lists"])
def test_a_relay_is_caught(
    place: str, method: str, frozen_first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "no lists":
        tell_no_children(monkeypatch)
    for attempt in range(5 if place == "plain" else 2):
        canary = tmp_path / f"canary{attempt}"
        with ExitStack() as stack:
            if place == "many threads":
                stack.enter_context(idle_threads(THREADS))
            held = stack.enter_context(relay(canary, method))
            if place == "many dead":
                until(lambda held=held: len(dead_children(held)) > DEAD, 30)  # type: ignore[misc] # bound at once
            goes_on(canary)
            if frozen_first:
                freeze(held)
                size = canary.stat().st_size
                assert not grows(canary)
                kill(held)
                assert canary.stat().st_size == size
            else:
                kill(held)
            assert not grows(canary)
            assert held.survivors() == []
            assert dead_children(held) == set()


@pytest.mark.usefixtures("kernel")
def test_a_relay_that_goes_on_is_never_said_to_stand_still_or_to_be_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    with relay(canary) as held:
        with monkeypatch.context() as nobody_is_signalled:
            nobody_is_signalled.setattr(Chase, "run", lambda _self: None)
            for _ in looks_in_vain():
                assert held.survivors()
                assert not held.frozen()
            goes_on(canary)
        kill(held)


@pytest.mark.usefixtures("kernel")
def test_nor_where_another_process_buries_its_dead_at_once(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with python(UNDERTAKER, RELAY, str(canary), method="subreaper") as held:
        until(lambda: canary.exists() and canary.stat().st_size > 1000)
        roots = (held.main,)
        for _ in looks_in_vain():
            assert unsettled(roots, frozenset())
            assert unsettled(roots, frozenset(), dead=True)
        goes_on(canary)
        others = frozenset(proc.children_of(os.getpid()) or [held.main])
        below = Tree("relay", 0, -1, roots=roots, without=others, alone=True, exited=True)
        assert seen(below.frozen)
        size = canary.stat().st_size
        assert not grows(canary)
        kill(below)
        assert canary.stat().st_size == size
