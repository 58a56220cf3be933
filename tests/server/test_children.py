"""Kept processes: started again when they die, stopped when told, never left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from checkrein.server.children import Child, ChildSpec
from tests.conftest import within


def _spec(tmp_path: Path, code: str, **more: object) -> ChildSpec:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return ChildSpec("worker", lambda: command, tmp_path / "worker.log", **more)  # type: ignore[arg-type]


READY_THEN_WAIT = """
    import os, signal
    os.write(int(os.environ["CHECKREIN_READY_FD"]), b"ready\\n")
    signal.pause()
"""


async def test_a_killed_child_is_started_again_and_said_so(tmp_path: Path) -> None:
    said: list[str] = []
    child = Child(
        _spec(tmp_path, READY_THEN_WAIT, says_ready=True), lambda name, what: said.append(what)
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(child.keep())
        await within(20, child.ready.is_set)
        first = child.pid
        os.kill(first, signal.SIGKILL)
        await within(20, lambda: child.ready.is_set() and child.pid != first)
        await child.stop()
    assert child.restarts == 1
    assert "died by SIGKILL" in said[0]


async def test_a_child_that_keeps_failing_shows_its_last_words(tmp_path: Path) -> None:
    said: list[str] = []
    child = Child(
        _spec(tmp_path, "raise SystemExit('no such table')"),
        lambda name, what: said.append(what),
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(child.keep())
        await within(20, lambda: any("no such table" in line for line in said))
        await child.stop()
    assert "ended with exit code 1" in said[0]


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    code = """
        import os, signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(int(os.environ["CHECKREIN_READY_FD"]), b"ready\\n")
        while True:
            signal.pause()
    """
    child = Child(_spec(tmp_path, code, says_ready=True, stop_s=0.2), lambda name, what: None)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(child.keep())
        await within(20, child.ready.is_set)
        await child.stop()
    assert f"{child.pid}" not in os.listdir("/proc")


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    parent = f"""
        import asyncio, pathlib, sys
        from checkrein.server.children import Child, ChildSpec
        spec = ChildSpec("worker", lambda: [sys.executable, "-c", "import signal; signal.pause()"],
                         pathlib.Path({str(tmp_path / "w.log")!r}))
        child = Child(spec, lambda name, what: None)
        async def main():
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(child.keep())
                while not child.pid:
                    await asyncio.sleep(0.01)
                print(child.pid, flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(parent)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        handle = os.pidfd_open(pid)
        process.kill()
        import select

        poller = select.poll()
        poller.register(handle, select.POLLIN)
        assert poller.poll(10_000), "the child outlived its parent"
        os.close(handle)
