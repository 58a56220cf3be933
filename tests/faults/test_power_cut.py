"""A power cut of the data folder: what the bus had acknowledged is there afterwards, once.

The folder lies on an ext4 image behind a loop device. At some moment every process is stopped, the
image is copied (that is what had reached the disk; what was only in memory is not in the copy), and
a new system starts on the copy. The method drops what was not synced; it does not tear writes.
"""

import asyncio
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.system import System, eventually

from checkrein.bus import nats, subjects
from checkrein.bus.credentials import Keys
from checkrein.events.envelope import (
    CHAIN_START,
    Envelope,
    advance,
    as_raw,
    lane_message_id,
    pack,
)
from checkrein.world import REAL

IMAGE_MIB = 768
RUN = "01890000-0000-7000-8000-00000000c0de"
TASK = "c" * 32


def loop_mounts_work() -> bool:
    return (
        os.geteuid() == 0 and bool(shutil.which("mkfs.ext4")) and Path("/dev/loop-control").exists()
    )


pytestmark = pytest.mark.skipif(
    not loop_mounts_work(), reason="needs root, mkfs.ext4 and loop devices"
)


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[None]:
    at.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", "loop", image, at], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"loop mounts are not possible here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


def event(number: int) -> dict[str, object]:
    return {
        "recorder": "power", "seq": number, "ts": REAL.now_ns(), "environment": "test",
        "room": "lab", "agent": "bot", "run_id": RUN, "task_id": TASK, "step": 1,
        "type": "tool.selected", "call_id": f"c{number}", "tool": "look", "why": "x" * 200,
    }  # fmt: skip


async def publish_until(system: System, enough: asyncio.Event, acked: list[int]) -> None:
    """Envelopes of 20 events, one after the other; `acked` gets the numbers that were confirmed."""
    bus = await nats.connect(
        [f"nats://127.0.0.1:{(system.data / 'bus/events/port').read_text()}"],
        Keys.load_or_create(system.data / "keys").role("publisher"),
        name="publisher",
    )
    try:
        chain, last = CHAIN_START, 0
        while not enough.is_set():
            numbers = list(range(last + 1, last + 21))
            events = [as_raw(event(number)) for number in numbers]
            for raw in events:
                chain = advance(chain, raw)
            envelope = Envelope("power", "bot", 12, last, chain, numbers, events)
            await bus.append(
                subjects.events("bot", 12), pack(envelope), lane_message_id(envelope), timeout_s=20
            )
            acked += numbers
            last = numbers[-1]
    finally:
        await bus.close()


def stop_everything(system: System) -> None:
    assert system.process is not None
    for pid in (system.process.pid, *system.children().values()):
        os.kill(pid, signal.SIGSTOP)


def kill_everything(system: System) -> None:
    assert system.process is not None
    pids = list(system.children().values())
    for pid in (system.process.pid, *pids):
        os.kill(pid, signal.SIGKILL)
    system.process.wait()
    system.process = None
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 20)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("after_events", [400, 3000])
async def test_what_was_acknowledged_survives_a_power_cut(
    tmp_path: Path, after_events: int
) -> None:
    image, copy = tmp_path / "disk.img", tmp_path / "after.img"
    with open(image, "wb") as file:
        file.truncate(IMAGE_MIB * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    acked: list[int] = []
    with mounted(image, tmp_path / "disk"):
        before = System(tmp_path, data=tmp_path / "disk" / "data")
        await asyncio.to_thread(before.up)
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publish_until(before, enough, acked))
            while len(acked) < after_events:
                await asyncio.sleep(0.005)
            stop_everything(before)
            subprocess.run(["cp", "--sparse=always", image, copy], check=True)
            promised = list(acked)
            for pid in before.children().values():
                os.kill(pid, signal.SIGCONT)
            enough.set()
        kill_everything(before)
    with mounted(copy, tmp_path / "after"):
        after = System(tmp_path, data=tmp_path / "after" / "data")
        try:
            await asyncio.to_thread(after.up)
            counted = await asyncio.to_thread(_counted, after, promised)
            assert set(promised) <= set(counted)
            assert set(counted.values()) == {1}
        finally:
            await asyncio.to_thread(after.down)


def _counted(system: System, promised: list[int]) -> Counter[int]:
    def stored() -> Counter[int] | None:
        rows = system.json("show", RUN)
        numbers = Counter(row["seq"] for row in rows if row["recorder"] == "power")
        return numbers if set(promised) <= set(numbers) else None

    return eventually(stored, 60, "every acknowledged event is in the history")  # type: ignore[no-any-return]
