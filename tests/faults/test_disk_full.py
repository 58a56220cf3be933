"""The disk of the data folder is full, and then is not: agents go on, nothing is lost."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from tests.faults.test_killed_parts import AGENT, assert_complete
from tests.faults.test_power_cut import loop_mounts_work, mounted
from tests.system import System, eventually

IMAGE_MIB = 256


def run_agent(system: System, calls: int) -> str:
    done = system.run("run", "--agent", "counter", "--", sys.executable, str(AGENT), str(calls))
    assert done.returncode == 0, "the agent goes on"
    return done.stdout.split()[0]


def fill(path: Path) -> None:
    with suppress(OSError), open(path, "wb", buffering=0) as filler:
        while True:
            filler.write(os.urandom(1024 * 1024))


@pytest.mark.skipif(not loop_mounts_work(), reason="needs root, mkfs.ext4 and loop devices")
@pytest.mark.timeout(180)
def test_a_full_disk_costs_nothing_but_time(tmp_path: Path) -> None:
    image, disk = tmp_path / "disk.img", tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(IMAGE_MIB * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    with mounted(image, disk):
        system = System(tmp_path, data=disk / "data")
        system.up()
        try:
            before = run_agent(system, 20)
            assert_complete(system, before, 20)
            fill(disk / "filler")
            during = run_agent(system, 600)
            eventually(
                lambda: "make room there" in system.log(), 30, "up says that the disk is full"
            )
            (disk / "filler").unlink()
            eventually(lambda: "there is room again" in system.log(), 30)
            system.wait_healthy()
            after = run_agent(system, 20)
            for run_id, calls in ((during, 600), (after, 20)):
                assert_complete(system, run_id, calls)
        finally:
            system.down()
