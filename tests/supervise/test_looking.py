"""A look that fails has not seen that all stand still, nor that nobody is left."""

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.supervise.held import METHODS, nobody_left, python, until

from checkrein.supervise import happenings as h
from checkrein.supervise import proc
from checkrein.supervise.holding import Limits
from checkrein.supervise.ladder import Ladder
from checkrein.supervise.looking import Looking
from checkrein.supervise.tree import Tree
from checkrein.supervise.unit import Unit
from checkrein.world import REAL

SLEEP = "import time; time.sleep(600)"


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    taken: list[int] = []
    try:
        while True:  # below the bound there may be free ones
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_without_descriptors_nobody_is_said_to_stand_still_or_to_be_dead(
    method: str, alone: bool
) -> None:
    with python(SLEEP, method=method) as tree:
        tree.alone = alone
        with no_descriptor_left():
            with pytest.raises(proc.CannotLook):
                proc.look(tree.main)
            assert tree.survivors() != []
            assert not tree.frozen()
            tree.kill()
            assert tree.survivors() != []
        until(lambda: nobody_left(tree))


async def looked(unit: Unit, end: Any) -> h.Happened:
    """What a watcher says of a unit once it has been looked at, or the time for it has passed."""
    said: asyncio.Queue[h.Happened] = asyncio.Queue()
    looking = Looking(REAL, lambda _unit, happened: said.put_nowait(happened), lambda: None)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(looking.run())
        end(looking)(unit, 50)
        async with asyncio.timeout(10):
            happened = await said.get()
        running.cancel()
    return happened


@pytest.mark.parametrize("error", [OSError(5, "broken"), RuntimeError("wrong")])
async def test_a_look_that_fails_confirms_nothing(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    with python(SLEEP, method="subreaper") as tree:
        unit = Unit("unit", tree, "run", Ladder(Limits()), ["python"])
        with monkeypatch.context() as broken:
            broken.setattr(Tree, "survivors", fails)
            broken.setattr(Tree, "frozen", fails)
            killed = await looked(unit, lambda looking: looking.killing)
            froze = await looked(unit, lambda looking: looking.freezing)
        assert killed == h.Killed((tree.main,))
        assert froze == h.Froze(False)


async def test_a_watcher_without_descriptors_confirms_nothing() -> None:
    with python(SLEEP, method="subreaper") as tree:
        unit = Unit("unit", tree, "run", Ladder(Limits()), ["python"])
        with no_descriptor_left():
            killed = await looked(unit, lambda looking: looking.killing)
            froze = await looked(unit, lambda looking: looking.freezing)
        assert killed == h.Killed((tree.main,))
        assert froze == h.Froze(False)
