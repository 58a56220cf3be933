"""Finds the scenarios and runs them over seeds."""

import importlib
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

Run = Callable[[int], None]


@dataclass(frozen=True)
class Failure:
    """A broken promise and how to see it again."""

    scenario: str
    seed: int
    text: str

    def __str__(self) -> str:
        again = f"python -m tests.sim --scenario {self.scenario} --seed {self.seed}"
        return f"{self.scenario} broke with seed {self.seed}. Again: {again}\n{self.text}"


def scenarios() -> dict[str, Run]:
    """Every `scenario_NAME.py` of this folder, by name."""
    found: dict[str, Run] = {}
    for path in sorted(Path(__file__).parent.glob("scenario_*.py")):
        name = path.stem.removeprefix("scenario_")
        found[name] = importlib.import_module(f"tests.sim.{path.stem}").run
    return found


def explore(name: str, run: Run, seeds: Iterable[int]) -> tuple[int, list[Failure]]:
    """Runs a scenario over seeds; returns how many ran, and at most three failures, after which it
    stops."""
    failures: list[Failure] = []
    count = 0
    logging.disable(logging.CRITICAL)  # troubles are what scenarios are made of
    try:
        for seed in seeds:
            count += 1
            try:
                run(seed)
            except Exception:
                failures.append(Failure(name, seed, traceback.format_exc()))
                if len(failures) >= 3:
                    break
    finally:
        logging.disable(logging.NOTSET)
    return count, failures


def report(name: str, run: Run, seeds: Iterable[int]) -> list[Failure]:
    """`explore`, printing one line and every failure."""
    began = time.monotonic()
    count, failures = explore(name, run, seeds)
    seconds = time.monotonic() - began
    lines = [f"{name}: {count} seeds in {seconds:.1f} s, {len(failures)} failed"]
    sys.stdout.write("\n".join([*lines, *map(str, failures), ""]))
    sys.stdout.flush()
    return failures
