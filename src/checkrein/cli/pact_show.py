"""`checkrein pact show` and `log`: one agent's pact, and what was done to it."""

import time
from typing import Any

import click

from checkrein.cli import out, words
from checkrein.cli.clean import clean
from checkrein.cli.client import segment
from checkrein.cli.out import CALM, CAUTION, PLAIN, Cell

LOG_HEADS = ("WHEN", "BY", "WHAT", "ENVIRONMENT", "STAGE", "VERSION", "BEFORE", "WHY")


@click.command()
@click.argument("agent")
@click.option("--environment", default="development", show_default=True, help="Where it holds.")
@click.option("--version", default="", help="Another version than the one in force.")
@out.server_options
def show(agent: str, environment: str, version: str, url: str, token: str, as_json: bool) -> None:
    """The text of AGENT's pact: the one enforced, or a version of it."""
    with out.asking(url, token) as client:
        line = client.get(
            f"/api/v1/pacts/{segment(agent)}", environment=environment, version=version
        )
    if as_json:
        out.say_json(line)
        return
    stage = line["stage"] or "replaced"
    out.say(f"# {clean(agent, 200)} in {clean(environment)}: version {line['version']}, {stage}")
    for text in line["text"].splitlines():
        out.say(clean(text))


@click.command()
@click.argument("agent")
@out.server_options
def log(agent: str, url: str, token: str, as_json: bool) -> None:
    """Who pushed, promoted and tested AGENT's pacts, and why: the newest first."""
    with out.asking(url, token) as client:
        found = client.get(f"/api/v1/pacts/{segment(agent)}/log")
    if as_json:
        out.say_json(found)
        return
    if not found:
        out.say(f"nothing was done to a pact of {clean(agent, 200)} yet")
        return
    out.table(LOG_HEADS, [_row(line) for line in found])


def _row(line: dict[str, Any]) -> list[Cell]:
    ago = max(0.0, (time.time_ns() - line["at"]) / 1e9)  # noqa: TID251 # a person's clock
    forced = line["verb"] == "force"
    return [
        Cell(f"{words.duration(ago)} ago", CALM, right=True),
        Cell(clean(line["by"], 30) or "-"),
        Cell(line["verb"], CAUTION if forced else PLAIN),
        Cell(clean(line["environment"], 20)),
        Cell(line["stage"]),
        Cell(line["version"]),
        Cell(line["before"], CALM),
        Cell(clean(line["reason"], 200)),
    ]
