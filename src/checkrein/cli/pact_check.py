"""`checkrein pact check`: reads pacts here; a server only tells which rules lie idle."""

import sys
from collections import Counter
from typing import Any

import click

from checkrein.cli import out
from checkrein.cli.clean import clean
from checkrein.cli.out import ALARM, CALM, CAUTION, Cell
from checkrein.cli.pact_history import History, since_s
from checkrein.events.types import ScopeDecision
from checkrein.policy.lint import DAYS, lint
from checkrein.policy.pact import PactError, load
from checkrein.policy.types import Pact
from checkrein.sdk.config import pact_text


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option("--agent", default="", help="Say which rules have decided nothing for this agent.")
@click.option(
    "--since", default="30d", show_default=True, callback=since_s, help="With --agent: since when."
)
@out.server_options
def check(
    files: tuple[str, ...], agent: str, since: int, url: str, token: str, as_json: bool
) -> None:
    """Read pact files, and say what is wrong with them, with file, line and column.

    Files may extend one another by the names that they give themselves (`pact: NAME`). Ends with 1
    if one is wrong. No server is needed, but for --agent.
    """
    counts = fired(agent, since, url, token) if agent else None
    days = max(1, round(since / 86_400))
    found = [checked(name, known, counts, days) for name, known in _in_order(files)]
    if as_json:
        out.say_json(found)
    else:
        for line in found:
            _print(line)
    sys.exit(1 if any(line["errors"] for line in found) else 0)


def checked(
    name: str, known: dict[str, Pact], counts: dict[str, int] | None = None, days: int = DAYS
) -> dict[str, Any]:
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
    lints = [str(each) for each in lint(pact, counts, days)]
    return line | {"pact": pact.pact, "version": pact.version, "lints": lints}


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


def fired(agent: str, since: int, url: str, token: str) -> dict[str, int]:
    """How often each rule of an agent's pacts has decided something of late, as the server has it;
    what a pact in shadow would have decided counts as well."""
    counts: Counter[str] = Counter()
    with out.asking(url, token) as client:
        for _, event in History(client, agent, since, False, ("scope.decision",)):
            if isinstance(event, ScopeDecision):
                counts[event.rule] += 1
    return dict(counts)


def _print(line: dict[str, Any]) -> None:
    name = clean(line["file"])
    for error in line["errors"]:
        place = f"{name}:{error['line']}:{error['column']}" if error["line"] else name
        out.styled([Cell(f"{place}: "), Cell(clean(error["problem"], 1000), ALARM)])
    for remark in line["lints"]:
        out.styled([Cell(f"{name}: "), Cell(clean(remark, 1000), CAUTION)])
    if not line["errors"]:
        good = f"{name}: {clean(line['pact'], 200)}, version {line['version']}"
        out.styled([Cell(good, CALM if not line["lints"] else "")])
