"""`checkrein agents`: who there is."""

import time

import click

from checkrein.cli import out, words
from checkrein.cli.clean import clean
from checkrein.cli.out import CALM, CAUTION, Cell

HEADS = ("AGENT", "ROOMS", "RUNS", "LIVE", "CAN HALT", "TOKENS", "USD", "LAST SEEN")


@click.command()
@out.server_options
def agents(url: str, token: str, as_json: bool) -> None:
    """The agents of the latest runs, and how many of their live runs could be halted now."""
    with out.asking(url, token) as client:
        found = client.get("/api/v1/agents")
        if as_json:
            out.say_json(found)
            return
        if not found:
            out.say("no agents yet: start one with `checkrein run --agent NAME -- COMMAND`")
            return
        rows = []
        for agent in found:
            short_of = agent["can_halt"] < agent["live"]
            rows.append(
                [
                    Cell(clean(agent["agent"], 40)),
                    Cell(clean(", ".join(agent["rooms"]), 40), CALM),
                    Cell(str(agent["runs"]), right=True),
                    Cell(str(agent["live"]), right=True),
                    Cell(str(agent["can_halt"]), CAUTION if short_of else "", right=True),
                    Cell(words.count(agent["tokens"]), right=True),
                    Cell(words.money(agent["usd"]), right=True),
                    Cell(_seen(agent["last_seen"]), CALM, right=True),
                ]
            )
        out.table(HEADS, rows)


def _seen(at_ns: int) -> str:
    if not at_ns:
        return "never"
    ago_s = (time.time_ns() - at_ns) / 1e9  # noqa: TID251 # a person's clock
    return f"{words.duration(max(0.0, ago_s))} ago"
