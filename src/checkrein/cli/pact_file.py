"""Pacts in files, for commands that read one: errors end the program and name the place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkrein.cli import out
from checkrein.policy.pact import PactError, load, pack
from checkrein.policy.types import Pact


def packed_text(path: Path) -> str:
    """The pact's text with the files it names packed into it, so that it can be sent."""
    try:
        text = path.read_text("utf-8")
        return pack(text, lambda name: _beside(path, name), str(path))
    except (OSError, UnicodeDecodeError) as error:
        out.fail(f"cannot read {path}: {error}")
    except PactError as error:
        out.fail(str(error))


def read_pact(
    path: Path, known: Mapping[str, Pact] | None = None,
    schemas: Mapping[str, Mapping[str, Any]] | None = None,
) -> Pact:  # fmt: skip
    """The pact of a file."""
    try:
        return load(packed_text(path), str(path), known, schemas)
    except PactError as error:
        out.fail(str(error))


def _beside(path: Path, name: str) -> str:
    """A file of the pact's own folder, or below it."""
    folder = path.resolve().parent
    wanted = (folder / name).resolve()
    if not wanted.is_relative_to(folder):
        raise ValueError("it lies outside the pact's folder")
    return wanted.read_text("utf-8")
