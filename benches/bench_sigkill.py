"""An agent is killed right after its last event, again and again: how many events are lost?"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from benches.harness import Row

from checkrein.events import codec
from checkrein.sdk.reader import RingReader, find_recorders

QUESTION = "Of 100 agents killed with SIGKILL right after their last event, how many lost any?"
KILLS = 100
AT_ONCE = 4


def run() -> list[Row]:
    chance = random.Random(20261121)
    folder = Path(tempfile.mkdtemp(prefix="checkrein-bench-"))
    lost = whole = events = 0
    try:
        for first in range(0, KILLS, AT_ONCE):
            counts = [chance.randint(1, 3000) for _ in range(min(AT_ONCE, KILLS - first))]
            for told, kept in _kill(folder, counts):
                events += told
                lost += max(0, told - kept)
                whole += told == kept
    finally:
        shutil.rmtree(folder)
    return [
        Row(name="events lost", measured=lost, target=0, unit="events",
            note=f"of {events:,} whose numbers `record` had returned"),
        Row(name="kills after which everything was found", measured=whole, target=KILLS,
            limit=KILLS, unit="ok"),
    ]  # fmt: skip


def _kill(folder: Path, counts: list[int]) -> list[tuple[int, int]]:
    """(events told, events found whole and in order) of some agents killed together."""
    agents = []
    for number, count in enumerate(counts):
        root = folder / f"{number}"
        root.mkdir()
        command = [sys.executable, "-m", "tests.sdk.killed_agent", str(root), str(count)]
        agents.append((root, subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )))  # fmt: skip
    results = []
    for root, process in agents:
        if process.stdout is None:
            raise RuntimeError("no pipe")
        told = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        results.append((told, _found(root)))
        shutil.rmtree(root)
    return results


def _found(root: Path) -> int:
    (dead,) = find_recorders(root)
    reader = RingReader(dead.directory)
    reader.recover()
    last = 0
    while records := reader.read(last):
        for seq, raw in records:
            event = codec.fields_of(raw)
            if seq != last + 1 or event["call_id"] != f"c{seq}":
                return last
            last = seq
    reader.close()
    return last
