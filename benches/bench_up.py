"""What does a system at rest take, and how long do its start and its stop?"""

import re
import tempfile
import threading
from pathlib import Path

from benches.harness import Row
from tests.system import System, system

from checkrein.world import REAL

QUESTION = "What does `up` take at rest, how soon is it ready, how soon has it stopped?"

REST_S = 8.0
"""Long enough for what only the start needs to be given back, or not."""


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, system(Path(folder)) as running:
        ready_s = _ready_s(running)
        threading.Event().wait(REST_S)
        taken = _memory_mib(running)
        spent = _processor_share(running)
        again_s = _started_again_s(running)
        began = REAL.monotonic_ns()
        code = running.down()
        stop_s = (REAL.monotonic_ns() - began) / 1e9
    parts = ", ".join(f"{name} {pss:.0f}" for name, (pss, _) in sorted(taken.items()))
    return [
        Row(
            name="start to ready, an empty folder", measured=ready_s, target=5.0, unit="s",
            note="as `up` says it",
        ),
        Row(
            name="start to ready, the same folder again", measured=again_s, target=5.0, unit="s",
            note="from the command to /healthz answering 200",
        ),
        Row(
            name="memory at rest, all processes (PSS)",
            measured=sum(pss for pss, _ in taken.values()), target=900.0, unit="MiB", note=parts,
        ),
        Row(
            name="the same counted as RSS", measured=sum(rss for _, rss in taken.values()),
            unit="MiB", note="shared pages counted once for each process",
        ),
        Row(name="processor at rest", measured=spent, unit="% of one"),
        Row(name="SIGTERM to ended", measured=stop_s, unit="s", note=f"exit code {code}"),
    ]  # fmt: skip


def _ready_s(running: System) -> float:
    found = re.search(r"ready after ([0-9.]+) s", running.log())
    if found is None:
        raise RuntimeError(f"`up` never said that it is ready:\n{running.log()}")
    return float(found[1])


def _pids(running: System) -> dict[str, int]:
    assert running.process is not None
    return {"up": running.process.pid, **running.children()}


def _memory_mib(running: System) -> dict[str, tuple[float, float]]:
    """PSS and RSS of each process."""
    found = {}
    for name, pid in _pids(running).items():
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        pss, rss = (
            int(re.findall(rf"^{key}:\s+(\d+) kB", text, re.M)[0]) for key in ("Pss", "Rss")
        )
        found[name] = (pss / 1024, rss / 1024)
    return found


def _processor_share(running: System, seconds: float = 5.0) -> float:
    """Percent of one processor that all of it takes, doing nothing."""

    def ticks() -> int:
        stats = (Path(f"/proc/{pid}/stat").read_text() for pid in _pids(running).values())
        parts = [text.rsplit(")", 1)[1].split() for text in stats]
        return sum(int(part[11]) + int(part[12]) for part in parts)

    before = ticks()
    threading.Event().wait(seconds)
    return (ticks() - before) / seconds  # a tick is 10 ms: ticks a second are percent


def _started_again_s(running: System) -> float:
    running.down()
    began = REAL.monotonic_ns()
    running.up()
    return (REAL.monotonic_ns() - began) / 1e9
