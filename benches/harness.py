"""What a benchmark is: a file `bench_NAME.py` with a question and a `run` that answers it in rows.

    QUESTION: str
    def run() -> list[Row]

Every row stands beside the limit it is held against (the bare engine, or a peer), measured in the
same run, since only ratios travel from one machine to another.
"""

import importlib
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table


class Row(msgspec.Struct, kw_only=True):
    """One figure. More is better for rates (`…/s`) and counts of what came through (`ok`), less for
    everything else."""

    name: str
    measured: float
    limit: float | None = None
    target: float | None = None
    unit: str = ""
    note: str = ""

    @property
    def more_is_better(self) -> bool:
        return self.unit.endswith("/s") or self.unit == "ok"

    @property
    def met(self) -> bool | None:
        """None: there is nothing to reach."""
        if self.target is None:
            return None
        if self.more_is_better:
            return self.measured >= self.target
        return self.measured <= self.target

    @property
    def ratio(self) -> float | None:
        """Measured over limit."""
        return self.measured / self.limit if self.limit else None


class Answer(msgspec.Struct, kw_only=True):
    """One benchmark's rows, and how long it took."""

    name: str
    question: str
    rows: list[Row]
    seconds: float


def found() -> list[str]:
    """The names of all benchmarks here."""
    paths = sorted(Path(__file__).parent.glob("bench_*.py"))
    return [path.stem.removeprefix("bench_") for path in paths]


def answer(name: str) -> Answer | None:
    """Runs one benchmark. None: that file has no `run`."""
    module = importlib.import_module(f"benches.bench_{name}")
    run: Callable[[], list[Row]] | None = getattr(module, "run", None)
    if run is None:
        return None
    question = getattr(module, "QUESTION", None) or (module.__doc__ or name).strip().splitlines()[0]
    began = time.perf_counter()
    rows = run()
    return Answer(name=name, question=question, rows=rows, seconds=time.perf_counter() - began)


def show(given: Answer, console: Console) -> None:
    console.print(f"[bold]{given.name}[/bold]: {given.question}")
    table = Table(box=None, pad_edge=False)
    table.add_column("what", overflow="fold")
    for column in ("measured", "limit", "ratio", "to reach", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for row in given.rows:
        table.add_row(
            row.name,
            f"{_number(row.measured)} {row.unit}",
            "" if row.limit is None else _number(row.limit),
            "" if row.ratio is None else f"{row.ratio:.2f} x",
            ""
            if row.target is None
            else f"{'≥' if row.more_is_better else '≤'} {_number(row.target)}",
            {None: "", True: "met", False: "[red]missed[/red]"}[row.met],
        )
    console.print(table)
    for row in given.rows:
        if row.note:
            console.print(f"[dim]{row.name}: {row.note}[/dim]", highlight=False)
    console.print(f"[dim]{given.seconds:.1f} s[/dim]\n")


def machine() -> dict[str, str | int]:
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processors": os.cpu_count() or 0,
        "load": f"{os.getloadavg()[0]:.2f}",
    }


def write(path: Path, answers: list[Answer]) -> None:
    whole = {"machine": machine(), "benches": msgspec.to_builtins(answers)}
    path.write_text(json.dumps(whole, indent=2) + "\n")


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"
