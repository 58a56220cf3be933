"""An agent that records and says how far it has come; then it is killed.

    python -m tests.sdk.killed_agent FOLDER COUNT

Prints the number of its last event right after recording it, and waits to be killed; with COUNT 0
it records and prints without end.
"""

import itertools
import os
import sys
from pathlib import Path

from checkrein.events.types import ToolReturned
from checkrein.sdk.place import Place
from checkrein.sdk.recorder import Recorder
from checkrein.world import REAL

PLACE = Place("production", "refunds", "support-bot", REAL.uuid7(), REAL.trace_id())


def main(folder: str, count: int) -> None:
    recorder = Recorder(Path(folder), REAL, agent="support-bot", segment_bytes=256 * 1024)
    endless = count == 0
    for number in itertools.count(1):
        seq = recorder.record(
            ToolReturned, PLACE, 1, call_id=f"c{number}", tool="search", result="x" * 1200
        )
        if endless or number == count:
            os.write(1, b"%d\n" % seq)
        if number == count:
            sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
