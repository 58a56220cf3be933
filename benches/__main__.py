"""`python -m benches [NAME …] [--json FILE]`: all benchmarks, or those named, as tables."""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benches.harness import Answer, answer, found, machine, show, write
from rich.console import Console


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(found()))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    unknown = set(options.names) - set(found())
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(found())}")
    console = Console()
    console.print("[dim]" + ", ".join(f"{k} {v}" for k, v in machine().items()) + "[/dim]\n")
    answers = []
    for name in options.names or found():
        given = _alone(name)
        if given is None:
            console.print(f"{name}: runs alone, [bold]python -m benches.bench_{name}[/bold]\n")
            continue
        show(given, console)
        answers.append(given)
    if options.json:
        write(options.json, answers)
    missed = [row for given in answers for row in given.rows if row.met is False]
    if missed:
        console.print(f"{len(missed)} missed: " + "; ".join(row.name for row in missed))
    return 0


def _alone(name: str) -> Answer | None:
    """In a process of its own: none inherits another's engine, memory or niceness."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(answer, name).result()


if __name__ == "__main__":
    sys.exit(main())
