"""How fast recorded runs go through a candidate pact, on one core and on two."""

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benches.harness import Row

from checkrein.analysis import sharing
from checkrein.analysis.judging import Judge
from checkrein.analysis.sharing import Job
from checkrein.detect.recorded import lines_of, numbered_events_of
from checkrein.policy.pact import load
from checkrein.policy.types import Pact

QUESTION = "How long does it take to judge a million recorded events by a proposed pact?"
LINES = 1_000_000
WORKERS = 2
TARGET_S = 60.0
ALONE_LINES = 60_000
CORPUS = Path(__file__).resolve().parents[1] / "../shared/corpora/tau2/events.jsonl.gz"
_ID = re.compile(rb'^\{"run_id":\s*"')
TEXT = """\
pact: candidate
job: a proposal
tools:
  book_*: {kind: irreversible, ask: spent.tool_calls > 10}
  cancel_*: {kind: irreversible, once_per: args}
  update_*: {kind: irreversible, allow: step < 60}
  get_*: {kind: read}
  "*": {}
sequence:
  - deny cancel_* unless formerly get_* within 30m
  - ask update_* if count update_* > 5
budgets: {steps: 100, tool_calls: 60, tokens: 2000000, usd: 5, wall: 1h}
unclear: allow
"""


def run() -> list[Row]:
    pact = load(TEXT)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        source = _write(path)
        begun = time.perf_counter()
        answer = sharing.run(Job(paths=[str(path)], pact=pact), WORKERS)
        whole_s = time.perf_counter() - begun
        assert answer.report is not None
        assert answer.lines == LINES
        begun = time.perf_counter()
        _each(path, lambda: None)
        parsed_s = time.perf_counter() - begun
        alone_s = _alone(path, pact, detecting=False)
        detecting_s = _alone(path, pact, detecting=True)
    report = answer.report
    parsing_rate = ALONE_LINES / parsed_s
    return [
        Row(
            name=f"{LINES:,} events, {WORKERS} processes", measured=whole_s, target=TARGET_S,
            limit=LINES / parsing_rate / WORKERS, unit="s",
            note=f"{source}; {report.runs:,} runs, {report.calls:,} tool calls, "
            f"{report.denied:,} denied, {report.asked:,} asked. Limit: reading the lines and doing "
            "nothing else, on as many cores",
        ),
        Row(name="one judge", measured=ALONE_LINES / alone_s, limit=parsing_rate, unit="events/s",
            note="one core; limit: the same loop without a judge"),
        Row(name="one judge, detectors on", measured=ALONE_LINES / detecting_s, target=15_000,
            limit=parsing_rate, unit="events/s"),
    ]  # fmt: skip


def _alone(path: Path, pact: Pact, *, detecting: bool) -> float:
    judge = Judge(lambda agent: pact, detecting=detecting)
    begun = time.perf_counter()
    for key, event in numbered_events_of(_first(path)):
        judge.see(key, event)
    return time.perf_counter() - begun


def _each(path: Path, then: Callable[[], None]) -> None:
    for _ in numbered_events_of(_first(path)):
        then()


def _first(path: Path) -> Iterator[bytes]:
    for number, line in enumerate(lines_of(path)):
        if number >= ALONE_LINES:
            return
        yield line


def _write(path: Path) -> str:
    """A million lines: the corpus again and again under new run ids, else runs made here."""
    there = CORPUS.is_file()
    whole = list(lines_of(CORPUS) if there else _made())
    with path.open("wb") as file:
        left, turn = LINES, 0
        while left:
            for line in whole[:left]:
                file.write(_ID.sub(b'{"run_id": "t%d-' % turn, line))
            left -= min(left, len(whole))
            turn += 1
    return f"{CORPUS.parent.name}, {turn} times over" if there else f"made runs, {turn} times over"


def _made() -> Iterator[bytes]:
    """Two hundred runs of forty calls."""
    for run_number in range(200):
        said: list[dict[str, object]] = [{"type": "run.start", "task": "made", "agent": "made"}]
        for step in range(1, 41):
            tool = ("get_order", "book_seat", "cancel_order", "update_order")[step % 4]
            call = {"step": step, "tool": tool, "call_id": f"c{step}"}
            said += [
                {"type": "step.start", "step": step},
                {"type": "model.call", "step": step, "model": "m", "input_tokens": 900,
                 "output_tokens": 80, "content": "next " * 20, "cost_usd": 0.01},
                {"type": "tool.call", "arguments": {"order": f"A{step}"}, **call},
                {"type": "tool.result", "result": f"order {step} " * 30, "status": "ok", **call},
            ]  # fmt: skip
        said.append({"type": "run.end", "status": "completed"})
        for seq, one in enumerate(said):
            yield json.dumps({"run_id": f"run-{run_number}", "seq": seq, **one}).encode() + b"\n"


if __name__ == "__main__":
    from benches.harness import answer, show
    from rich.console import Console

    found = answer("backtest")
    if found is not None:
        show(found, Console())
