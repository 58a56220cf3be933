"""A program that is over before anything was shipped: nothing is lost, and nothing is printed."""

import subprocess
import sys
from pathlib import Path

from tests.system import eventually, system

PROGRAM = """
import checkrein

checkrein.init(agent="brief")
with checkrein.run(goal="say hello"):
    checkrein.output("hello")
"""


def test_the_end_of_a_short_program_is_quiet_and_its_events_arrive(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=running.environment, capture_output=True,
            text=True, timeout=30, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        events = eventually(lambda: running.get("/api/v1/events?agent=brief&types=output"))
        assert [event["content"] for event in events] == ["hello"]
