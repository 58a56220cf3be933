"""A program that names itself otherwise than `checkrein run` named it: its events arrive too."""

import subprocess
import sys
from pathlib import Path

from tests.system import eventually, system

PROGRAM = """
import checkrein

checkrein.init(agent="second")


@checkrein.tool(kind="read")
def look(at: str) -> str:
    return "seen"


with checkrein.run(goal="look") as run:
    look("here")
"""


def test_events_under_another_name_are_shipped(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with system(tmp_path) as running:
        agent = running.start(
            "run", "--agent", "first", "--", sys.executable, str(tmp_path / "program.py"),
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        assert agent.wait(40) == 0
        events = eventually(
            lambda: running.get("/api/v1/events?agent=second&types=tool.returned"),
            what="what the second agent recorded is there",
        )
        assert [event["result"] for event in events] == ["seen"]
