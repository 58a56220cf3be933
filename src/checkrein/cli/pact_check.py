"""`checkrein pact check`: reads pacts here, without a server."""

import importlib.util
import sys
from typing import Any

import click

from checkrein.cli import out
from checkrein.cli.clean import clean
from checkrein.cli.out import ALARM, CALM, CAUTION, Cell
from checkrein.policy.pact import PactError, load
from checkrein.policy.types import Pact
from checkrein.sdk.config import pact_text


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")
def check(files: tuple[str, ...], as_json: bool) -> None:
    """Read pact files, and say what is wrong with them, with file, line and column.

    Files may extend one another by the names that they give themselves (`pact: NAME`). Ends with 1
    if one is wrong.
    """
    found = [checked(name, known) for name, known in _in_order(files)]
    if as_json:
        out.say_json(found)
    else:
        for line in found:
            _print(line)
    sys.exit(1 if any(line["errors"] for line in found) else 0)


def checked(name: str, known: dict[str, Pact]) -> dict[str, Any]:
    """One file: `{file, pact, version, errors, lints}`; an error is `{line, column, problem}`."""
    line: dict[str, Any] = {"file": name, "pact": "", "version": "", "errors": [], "lints": []}
    try:
        pact = load(pact_text(name), name, known)
    except PactError as error:
        place = {"line": error.line, "column": error.column, "problem": error.problem}
        return line | {"errors": [place]}
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        return line | {"errors": [{"line": 0, "column": 0, "problem": problem}]}
    return line | {"pact": pact.pact, "version": pact.version, "lints": _lints(pact)}


def _in_order(files: tuple[str, ...]) -> list[tuple[str, dict[str, Pact]]]:
    """Each file with what it may extend: all those that can be read without it."""
    known: dict[str, Pact] = {}
    waiting = list(files)
    while waiting:
        before = len(known)
        for name in list(waiting):
            try:
                pact = load(pact_text(name), name, known)
            except (PactError, OSError, ValueError):
                continue
            known[pact.pact] = pact
            waiting.remove(name)
        if len(known) == before:
            break
    return [(name, known) for name in files]


def _lints(pact: Pact) -> list[str]:
    """What is allowed and yet unwise, in words."""
    if importlib.util.find_spec("checkrein.policy.lint") is None:
        return []
    lint = getattr(importlib.import_module("checkrein.policy.lint"), "lint", None)
    return [str(each) for each in lint(pact)] if lint is not None else []


def _print(line: dict[str, Any]) -> None:
    name = clean(line["file"])
    for error in line["errors"]:
        place = f"{name}:{error['line']}:{error['column']}" if error["line"] else name
        out.styled([Cell(f"{place}: "), Cell(clean(error["problem"], 1000), ALARM)])
    for lint in line["lints"]:
        out.styled([Cell(f"{name}: "), Cell(clean(lint, 1000), CAUTION)])
    if not line["errors"]:
        good = f"{name}: {clean(line['pact'], 200)}, version {line['version']}"
        out.styled([Cell(good, CALM if not line["lints"] else "")])
