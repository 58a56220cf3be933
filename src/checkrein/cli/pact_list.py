"""`checkrein pact list`: what holds, and where."""

import time
from typing import Any

import click

from checkrein.cli import out, words
from checkrein.cli.clean import clean
from checkrein.cli.out import ALARM, CALM, CAUTION, PLAIN, Cell

HEADS = ("AGENT", "ENVIRONMENT", "ENFORCED", "SHADOW", "DRAFTS", "IN FORCE", "CHANGED", "BY")


@click.command("list")
@out.server_options
def list_pacts(url: str, token: str, as_json: bool) -> None:
    """Every agent's versions by environment, and in how many of its processes the newest holds."""
    with out.asking(url, token) as client:
        found = client.get("/api/v1/pacts")
    if as_json:
        out.say_json(found)
        return
    if not found:
        out.say("no pacts yet: `checkrein pact push FILE`")
        return
    out.table(HEADS, [_row(line) for line in found])
    for line in found:
        for text in troubles(line):
            out.styled([Cell(clean(text, 500), ALARM)])


def troubles(line: dict[str, Any]) -> list[str]:
    """What is wrong with a line of the list, in words."""
    said = [line["trouble"]] if line["trouble"] else []
    name = f"{line['agent']} in {line['environment']}"
    for behind in line["behind"]:
        if behind["error"]:
            said.append(
                f"{name}: {behind['processes']} processes stay with "
                f"{behind['enforced'] or 'what they had'}: {behind['error']}"
            )
    return said


def _row(line: dict[str, Any]) -> list[Cell]:
    enforced = line["version"] if line["stage"] == "enforce" else ""
    effective = line["effective"]
    if not enforced:
        enforced = f"default {effective}".rstrip() if effective else "default"
    elif effective and effective != enforced:
        enforced = f"{enforced} as {effective}"
    whole = line["current"] == line["processes"]
    ago = max(0.0, (time.time_ns() - line["changed_at"]) / 1e9)  # noqa: TID251 # a person's clock
    return [
        Cell(clean(line["agent"], 40)),
        Cell(clean(line["environment"], 20)),
        Cell(enforced, CALM if line["stage"] != "enforce" else PLAIN),
        Cell(line["shadow"], CALM),
        Cell(str(len(line["drafts"])) if line["drafts"] else "", CALM, right=True),
        Cell(f"{line['current']} of {line['processes']}", PLAIN if whole else CAUTION, right=True),
        Cell(f"{words.duration(ago)} ago" if line["changed_at"] else "", CALM, right=True),
        Cell(clean(line["author"], 30), CALM),
    ]
