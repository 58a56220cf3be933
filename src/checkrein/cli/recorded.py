"""Recorded files for commands that read them: opened, followed with progress, what is bad told."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from checkrein.cli import out
from checkrein.events.types import Base

REJECTED_SHOWN_MAX = 10
_EVERY = 4096

Key = tuple[str, int]


class Files:
    """Recorded runs of several files, in order. `rejected` counts the lines that were none."""

    def __init__(self, files: tuple[Path, ...], what: str, quiet: bool) -> None:
        self.files = files
        self.rejected = 0
        self.events = 0
        self._what = what
        self._quiet = quiet or not sys.stderr.isatty()

    def __iter__(self) -> Iterator[tuple[Key, Base]]:
        """Ends the program with 2 when a file cannot be read."""
        from checkrein.detect.recorded import lines_of, numbered_events_of

        for path in self.files:
            try:
                lines = lines_of(path)
                for key, event in numbered_events_of(lines, rejected=self._note(path)):
                    self.events += 1
                    if not self._quiet and self.events % _EVERY == 0:
                        self._show(path)
                    yield key, event
            except (OSError, EOFError) as error:
                out.fail(f"cannot read {path}: {error}")
        if not self._quiet and self.events >= _EVERY:
            sys.stderr.write("\r\x1b[K")

    def _show(self, path: Path) -> None:
        sys.stderr.write(f"\r\x1b[K{self._what} {path.name}: {self.events:,} events")
        sys.stderr.flush()

    def _note(self, path: Path) -> Any:
        def note(line: int, why: str) -> None:
            self.rejected += 1
            if self.rejected <= REJECTED_SHOWN_MAX:
                out.warn(f"rejected {path}:{line}: {why}")

        return note


def schemas_beside(files: tuple[Path, ...], named: Path | None) -> dict[str, dict[str, Any]]:
    """By the name of a tool schema (`""` when there is just one), the JSON schemas of tools'
    arguments: from the file that was named, else from a `tools.json` beside the recorded files."""
    from checkrein.analysis.schemas import by_schema

    paths = [named] if named is not None else [
        one for one in dict.fromkeys(file.parent / "tools.json" for file in files) if one.is_file()
    ]  # fmt: skip
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        try:
            found.update(by_schema(msgspec.json.decode(path.read_bytes())))
        except (OSError, ValueError) as error:
            out.fail(f"cannot read the tools of {path}: {error}")
    return found
