"""`checkrein detect`: guards and detectors over recorded runs, offline, with no server."""

import time
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from checkrein.cli import out
from checkrein.cli.clean import clean
from checkrein.cli.pact_file import read_pact
from checkrein.cli.recorded import Files, schemas_beside

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
PACT = """\
pact: recorded
job: whatever was recorded
flow: [directive, learned]
unclear: allow
"""
"""What recorded runs are judged by when nothing else is said: any tool, no budget, loops, and where
values come from."""
UNTAUGHT = PACT.replace("[directive, learned]", "[directive]")
"""The same for agents of which --train has told nothing: what is usual for them is not known."""


@click.group()
def detect() -> None:
    """Guards and detectors over recorded runs, offline: no server is needed."""


@detect.command()
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--train", multiple=True, type=_FILE, help="Runs to learn what is usual from first.")
@click.option("--pact", "pact_path", type=_FILE, help="The pact to judge by.")
@click.option("--tools", "tools_path", type=_FILE, help="The schemas of the tools' arguments.")
@click.option(
    "--out", "out_path", required=True, type=click.Path(dir_okay=False, path_type=Path),
    help="Where the lines go: JSON, one for every signal and every verdict other than allow.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")
def run(
    files: tuple[Path, ...], train: tuple[Path, ...], pact_path: Path | None,
    tools_path: Path | None, out_path: Path, as_json: bool,
) -> None:  # fmt: skip
    """Judge recorded runs (JSON lines, .gz too) by guards and detectors.

    Each line of --out carries the run_id and the seq of the recorded event it is about. Without
    --pact any tool may be called, and only loops, unknown tools, refused arguments and the flow of
    values are judged. Schemas of tools are taken from a tools.json beside the recorded files when
    --tools names no other.
    """
    from checkrein.analysis.judging import Judge
    from checkrein.analysis.profiles import ProfileLearner
    from checkrein.analysis.schemas import schema_lookup
    from checkrein.policy.pact import load

    begun = time.monotonic()
    pact, untaught = load(PACT, "recorded"), load(UNTAUGHT, "recorded")
    if pact_path is not None:
        pact = untaught = read_pact(pact_path)
    schemas = schema_lookup(schemas_beside(files, tools_path))
    learner = ProfileLearner(pact)
    for _, event in Files(train, "learning from", as_json):
        learner.see(event)
    judge = Judge(
        lambda agent: pact, profile_of=learner.profiles.get, schemas_of=schemas, untaught=untaught,
        report=lambda detector, error: out.warn(f"detector {detector}: {error}"),
    )  # fmt: skip
    recorded = Files(files, "judging", as_json)
    counts: Counter[str] = Counter()
    runs: set[str] = set()
    try:
        with out_path.open("wb") as target:
            for key, event in recorded:
                runs.add(key[0])
                for line in judge.see(key, event):
                    _write(target, line)
                    counts[f"{line.kind} {line.detector} {line.level or line.verdict}"] += 1
    except OSError as error:
        out.fail(f"cannot write {out_path}: {error.strerror or error}")
    seconds = time.monotonic() - begun
    report = {
        "files": len(files), "runs": len(runs), "events": recorded.events,
        "rejected": recorded.rejected, "learned_from": learner.runs, "pact": pact.pact,
        "pact_version": pact.version, "lines": sum(counts.values()),
        "counts": dict(sorted(counts.items())), "seconds": round(seconds, 3), "out": str(out_path),
    }  # fmt: skip
    if as_json:
        out.say_json(report)
    else:
        _print(report)


def _write(target: BinaryIO, line: Any) -> None:
    target.write(msgspec.json.encode(line))
    target.write(b"\n")


def _print(report: dict[str, Any]) -> None:
    out.say(
        f"{report['runs']:,} runs, {report['events']:,} events judged by {clean(report['pact'])} "
        f"({report['pact_version']}) in {report['seconds']:.1f} s"
        + (f"; learned from {report['learned_from']:,} runs" if report["learned_from"] else "")
    )
    for what, count in report["counts"].items():
        out.say(f"  {count:>8,}  {clean(what)}")
    out.say(f"{report['lines']:,} lines in {clean(report['out'])}")
