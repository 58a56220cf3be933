"""A run's folder, and when another supervisor may take it for abandoned."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from checkrein.bus.messages import RunRecord
from checkrein.supervise.place import Manifest, Place, abandoned, runs_folder
from checkrein.world import REAL

AT_ONCE = 6


def manifest() -> Manifest:
    run = RunRecord(
        run_id=REAL.uuid7(), task_id=REAL.trace_id(), agent="a", room="r", environment="test",
        session="", holder="supervisor", started_at=REAL.now_ns(),
    )  # fmt: skip
    return Manifest(run=run)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(tmp_path)}


def test_a_folder_is_nobody_elses_from_the_moment_it_can_be_read(environ: dict[str, str]) -> None:
    place = Place.make(manifest(), environ)
    assert abandoned(environ) == []
    place.release()
    found = abandoned(environ)
    assert [left.folder for left, _ in found] == [place.folder]
    for left, _ in found:
        left.release()


def test_a_folder_without_a_manifest_is_let_go(environ: dict[str, str]) -> None:
    folder = runs_folder(environ) / "half"
    folder.mkdir(parents=True)
    assert abandoned(environ) == []
    place = Place(folder)
    assert place.take()
    place.release()


def test_programs_that_start_at_the_same_moment_all_run(tmp_path: Path) -> None:
    """None is taken for what a killed supervisor left."""
    environment = {
        **os.environ, "XDG_STATE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path),
        "CHECKREIN_URL": "http://127.0.0.1:9",
    }  # fmt: skip
    command = [sys.executable, "-m", "checkrein", "run", "--", sys.executable, "-c", "print(42)"]
    started = [
        subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(AT_ONCE)
    ]
    told = [program.communicate(timeout=50) for program in started]
    assert [(p.returncode, out) for p, (out, _) in zip(started, told, strict=True)] == [
        (0, "42\n")
    ] * AT_ONCE, [errors for _, errors in told]
