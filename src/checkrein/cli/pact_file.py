"""Pacts in files, for commands that read one: errors end the program and name the place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkrein.cli import out
from checkrein.policy.pact import PactError, load
from checkrein.policy.types import Pact
from checkrein.sdk.config import pact_text


def read_pact(
    path: Path, known: Mapping[str, Pact] | None = None,
    schemas: Mapping[str, Mapping[str, Any]] | None = None,
) -> Pact:  # fmt: skip
    """The pact of a file."""
    try:
        return load(pact_text(str(path)), str(path), known, schemas)
    except PactError as error:
        out.fail(str(error))
    except (OSError, ValueError) as error:
        out.fail(f"cannot read {path}: {error}")
