"""`checkrein ps`: the status board."""

import time
from collections import Counter
from typing import Any

import click

from checkrein.cli import out, words
from checkrein.cli.clean import clean
from checkrein.cli.client import Client
from checkrein.cli.out import ALARM, CALM, CAUTION, PLAIN, Cell
from checkrein.cli.pact_list import troubles

REFRESH_S = 1.0
ENDED_SHOWN_MAX = 20
ENDED_SHOWN_S = 3600.0
ROWS_MAX = 1000
HEADS = ("STATUS", "AGENT", "RUN", "ROOM", "STEP", "TOKENS", "USD", "AGE", "QUIET", "HALT")
STYLES = {
    "halted": ALARM, "failed": ALARM, "lost": ALARM, "stuck": ALARM, "unfinished": ALARM,
    "paused": CAUTION, "escalated": CAUTION, "waiting_human": CAUTION, "completed": CALM,
}  # fmt: skip


@click.command()
@click.option("--watch", "keep", is_flag=True, help="Draw it anew each second.")
@click.option("--all", "everything", is_flag=True, help="Also runs that ended long ago.")
@click.option("--agent", default="", help="Only this agent.")
@click.option("--room", default="", help="Only this room.")
@click.option("--status", default="", help="Only these, separated by commas.")
@out.server_options
def ps(
    keep: bool, everything: bool, agent: str, room: str, status: str,
    url: str, token: str, as_json: bool,
) -> None:  # fmt: skip
    """The status board: what runs, how far it is, and whether it could be halted now.

    STATUS is of running, waiting_model, waiting_tool, waiting_human, paused, escalated, completed,
    failed, halted, lost, stuck and unfinished. HALT is what a probe outside the agent has shown,
    with how far the agent is fenced in (L0: watched and stopped, but free on the network).
    """
    filters = {"agent": agent, "room": room, "status": status}
    with out.asking(url, token) as client:
        if not keep:
            _once(client, filters, as_json, everything)
        elif as_json or not out.is_terminal():
            _repeat(client, filters, as_json, everything)
        else:
            _live(client, filters, everything)


def _ask(client: Client, filters: dict[str, str]) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = client.get("/api/v1/runs", limit=ROWS_MAX, **filters)
    return runs


def _once(client: Client, filters: dict[str, str], as_json: bool, everything: bool) -> None:
    runs = _ask(client, filters)
    if as_json:
        out.say_json(runs)
        return
    shown = chosen(runs, everything or bool(filters["status"]))
    if not runs:
        out.say("no runs yet: start one with `checkrein run -- COMMAND`")
        return
    out.table(HEADS, rows_of(shown))
    for line in notes(runs, len(runs) - len(shown)):
        out.styled([line])
    for pact in client.get("/api/v1/pacts"):
        for text in troubles(pact):
            out.styled([Cell(clean(text, 500), ALARM)])


def _repeat(client: Client, filters: dict[str, str], as_json: bool, everything: bool) -> None:
    while True:
        runs = _ask(client, filters)
        if as_json:
            out.say_json(runs, indent=None)
        else:
            out.table(HEADS, rows_of(chosen(runs, everything)))
            out.say()
        time.sleep(REFRESH_S)


def _live(client: Client, filters: dict[str, str], everything: bool) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(console=out.console(), auto_refresh=False, screen=False) as live:
        try:
            while True:
                runs = _ask(client, filters)
                shown = chosen(runs, everything)
                room = max(3, out.console().height - 6)
                lines = notes(runs, len(runs) - len(shown[:room]))
                live.update(
                    Group(
                        out.rich_table(HEADS, rows_of(shown[:room])),
                        *(Text(cell.text, style=cell.style) for cell in lines),
                    ),
                    refresh=True,
                )
                time.sleep(REFRESH_S)
        except KeyboardInterrupt:
            return


def chosen(runs: list[dict[str, Any]], everything: bool) -> list[dict[str, Any]]:
    """All live runs, and of the ended ones those of the last hour, at most ENDED_SHOWN_MAX; when
    that leaves nothing, the latest."""
    if everything:
        return runs
    live = [run for run in runs if run["live"]]
    ended = [run for run in runs if not run["live"]]
    late = [run for run in ended if (run["last_event_age_s"] or 0) <= ENDED_SHOWN_S]
    return live + (late if live or late else ended)[:ENDED_SHOWN_MAX]


def rows_of(runs: list[dict[str, Any]]) -> list[list[Cell]]:
    ids = words.short_ids(run["run_id"] for run in runs)
    return [_row(run, ids[run["run_id"]]) for run in runs]


def _row(run: dict[str, Any], short: str) -> list[Cell]:
    calm = PLAIN if run["live"] else CALM
    age = run.get("age_s", run["last_event_age_s"])
    started = run["started_at"]
    ended = run.get("ended_at")
    lasted = (ended - started) / 1e9 if ended else max(0.0, (time.time_ns() - started) / 1e9)  # noqa: TID251 # a person's clock
    return [
        Cell(clean(run["status"], 14), STYLES.get(run["status"], calm)),
        Cell(clean(run["agent"], 28), calm),
        Cell(clean(short, 36), CALM),
        Cell(clean(run["room"], 20), calm),
        Cell(str(run["step"]), calm, right=True),
        Cell(words.count(run["tokens"]), calm, right=True),
        Cell(words.money(run["usd"]), calm, right=True),
        Cell(words.duration(lasted), calm, right=True),
        Cell(words.duration(age) if age is not None else "?", calm, right=True),
        _halt(run),
    ]


def _halt(run: dict[str, Any]) -> Cell:
    level = f" {clean(run['level'], 4)}" if run["level"] else ""
    if run["can_halt"]:
        return Cell(f"yes{level}")
    return Cell(f"NO{level}", CAUTION) if run["live"] else Cell("-", CALM)


def notes(runs: list[dict[str, Any]], hidden: int) -> list[Cell]:
    """What the table cannot say: why live runs cannot be halted, and what is not shown."""
    whys = Counter(
        clean(run["can_halt_why"], 120) for run in runs if run["live"] and not run["can_halt"]
    )
    lines = [
        Cell(f"cannot halt {number} run{'s' * (number > 1)}: {why}", CAUTION)
        for why, number in whys.most_common(5)
    ]
    if hidden > 0:
        are = "is" if hidden == 1 else "are"
        lines.append(Cell(f"{hidden} that ended {are} not shown; --all shows them", CALM))
    return lines
