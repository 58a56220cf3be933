"""Recorded runs made for tests, in the form of recorded files."""

import json
from collections.abc import Iterator
from typing import Any

from checkrein.detect.recorded import numbered_events_of
from checkrein.events.types import Base

Call = tuple[str, Any, Any]
"""A tool, its arguments, and its result; an Exception is an error."""


def lines(
    calls: list[Call], run_id: str = "r1", agent: str = "bot", **start: Any
) -> list[dict[str, Any]]:
    """One run, a step for each call."""
    said: list[dict[str, Any]] = [{"type": "run.start", "agent": agent, "task": "go", **start}]
    for number, (tool, arguments, result) in enumerate(calls, 1):
        said += [
            {"type": "step.start", "step": number},
            {"type": "model.call", "step": number, "model": "m-1", "input_tokens": 100,
             "output_tokens": 10, "cost_usd": 0.01},
            {"type": "tool.call", "step": number, "tool": tool, "arguments": arguments,
             "call_id": f"c{number}"},
            {"type": "tool.result", "step": number, "tool": tool, "call_id": f"c{number}",
             **({"status": "error", "error": str(result)} if isinstance(result, Exception)
                else {"status": "ok", "result": result})},
        ]  # fmt: skip
    said.append({"type": "run.end", "status": "completed"})
    return [{"run_id": run_id, "seq": seq, **one} for seq, one in enumerate(said)]


def packed(*runs: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for run in runs for line in run)


def events(*runs: list[dict[str, Any]]) -> Iterator[tuple[tuple[str, int], Base]]:
    return numbered_events_of(packed(*runs).splitlines())
