"""Calls of tools that do not exist, and arguments that a tool refuses: how many of them are refused
before they are made.

The labels of recorded runs name the results in which the tool was missing or refused its arguments;
a result is led back to its call by the call's id. The schemas are those of the corpora.
"""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from benches.harness import Row

from checkrein.analysis.judging import Judge
from checkrein.analysis.schemas import by_schema, schema_lookup
from checkrein.detect.recorded import lines_of, numbered_events_of
from checkrein.events.types import RunEnd, ToolReturned
from checkrein.policy.pact import load

QUESTION = "Of calls that failed for want of a tool or for their arguments, how many are refused?"
SHARED = Path(__file__).resolve().parents[1] / "../shared/corpora"
CORPORA = ("agentdojo", "agentdyn")
PACT = """\
pact: any
loops: {same_call: 15, similar_call: 15, no_progress: 15}
unclear: allow
"""
"""Nothing but what the tools themselves say."""


class Found(NamedTuple):
    """By kind (`unknown`, `schema`): how many labels there are, and how many of their calls were
    refused. `others`: calls that succeeded, and those of them that were refused."""

    wanted: Counter[str]
    caught: Counter[str]
    others: int
    refused: int


def available(corpus: str) -> bool:
    return (SHARED / corpus / "labels.jsonl.gz").is_file()


def measured(corpus: str) -> Found:
    labels = _labels(SHARED / corpus / "labels.jsonl.gz")
    schemas = by_schema(msgspec.json.decode((SHARED / corpus / "tools.json").read_bytes()))
    pact = load(PACT)
    judge = Judge(lambda agent: pact, schemas_of=schema_lookup(schemas), detecting=False)
    wanted: Counter[str] = Counter()
    caught: Counter[str] = Counter()
    others = refused = 0
    denied: dict[str, set[str]] = {}
    for key, event in numbered_events_of(lines_of(SHARED / corpus / "events.jsonl.gz")):
        for line in judge.see(key, event):
            if line.verdict == "deny" and line.detector in ("tools", "arguments"):
                denied.setdefault(key[0], set()).add(line.call_id)
        if isinstance(event, ToolReturned):
            was_refused = event.call_id in denied.get(key[0], ())
            kind = labels.get(key)
            if kind is not None:
                wanted[kind] += 1
                caught[kind] += was_refused
            elif event.status == "ok":
                others += 1
                refused += was_refused
        elif isinstance(event, RunEnd):
            denied.pop(key[0], None)
    return Found(wanted, caught, others, refused)


def _labels(path: Path) -> dict[tuple[str, int], str]:
    found: dict[tuple[str, int], str] = {}
    with gzip.open(path) as file:
        for line in file:
            label: dict[str, Any] = json.loads(line)
            for name, kind in (("invalid_tool_call_seqs", "unknown"),
                               ("schema_error_seqs", "schema")):  # fmt: skip
                for seq in label.get(name) or ():
                    found[label["run_id"], seq] = kind
    return found


def run() -> list[Row]:
    rows = []
    for corpus in CORPORA:
        if not available(corpus):
            continue
        found = measured(corpus)
        for kind, what in (("unknown", "calls of tools that do not exist"),
                           ("schema", "arguments that the tool refused")):  # fmt: skip
            if found.wanted[kind]:
                rows.append(Row(
                    name=f"{corpus}: {what}", measured=found.caught[kind],
                    limit=found.wanted[kind], unit="ok",
                    note="refused before the call; beside it all that are labelled",
                ))  # fmt: skip
        rows.append(Row(
            name=f"{corpus}: refused calls that the tool took", measured=found.refused,
            unit="calls", note=f"of {found.others:,}: the tool took what its schema does not allow",
        ))  # fmt: skip
    return rows


if __name__ == "__main__":
    from benches.harness import answer, show
    from rich.console import Console

    given = answer("calls")
    if given is not None:
        show(given, Console())
