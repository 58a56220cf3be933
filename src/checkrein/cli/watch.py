"""`checkrein watch`: the live tail."""

import json
import sys
import time
from datetime import datetime
from typing import Any

import click

from checkrein.cli import out
from checkrein.cli.clean import clean
from checkrein.cli.client import Client, NotReachable, segment
from checkrein.cli.describe import describe
from checkrein.cli.out import CALM, Cell

RETRY_S = 1.0
RETRIES_MAX = 60


@click.command()
@click.option("--agent", default="", help="Only this agent.")
@click.option("--room", default="", help="Only this room.")
@click.option("--run", "run_id", default="", help="Only this run (the beginning of its id).")
@click.option("--task", "task_id", default="", help="Only this task.")
@click.option("--type", "types", multiple=True, help="Only these types; may be given again.")
@click.option("--after", default="", help="From this place in the stream (POSITION:INDEX).")
@out.server_options
def watch(
    agent: str, room: str, run_id: str, task_id: str, types: tuple[str, ...], after: str,
    url: str, token: str, as_json: bool,
) -> None:  # fmt: skip
    """Follow events as they happen, one a line. With --json each line is one event.

    If the server goes away, watching goes on where it was when it is back.
    """
    with out.asking(url, token) as client:
        if run_id:
            run_id = client.get(f"/api/v1/runs/{segment(run_id)}")["run_id"]
        filters = {
            "agent": agent, "room": room, "run_id": run_id, "task_id": task_id,
            "types": ",".join(types), "after": after,
        }  # fmt: skip
        try:
            _follow(client, filters, as_json)
        except KeyboardInterrupt:
            sys.exit(130)


def _follow(client: Client, filters: dict[str, str], as_json: bool) -> None:
    failures = 0
    began = False
    while True:
        try:
            for name, ident, data in client.stream(**filters):
                failures, began = 0, True
                if ident:
                    filters["after"] = ident
                if name == "hello" and not filters["after"]:
                    filters["after"] = f"{json.loads(data)['position']}:999999"
                _tell(name, data, as_json)
        except NotReachable as error:
            failures += 1
            if not began or failures > RETRIES_MAX:
                raise
            if failures == 1:
                out.warn(f"{error} Trying again.")
        time.sleep(RETRY_S)


def _tell(name: str, data: str, as_json: bool) -> None:
    if name == "skipped":
        out.warn(_skipped(json.loads(data)))
    elif name:
        return
    elif as_json:
        out.say_json(json.loads(data), indent=None)
    else:
        out.styled(line_of(json.loads(data)))


def _skipped(about: dict[str, Any]) -> str:
    number = about.get("events") or about.get("messages")
    unit = "events" if about.get("events") else "messages"
    return f"skipped {number or 'some'} {unit}: {clean(about.get('why', ''), 80)}"


def line_of(event: dict[str, Any]) -> list[Cell]:
    """One event on one line: time, agent, run, step, type, what."""
    at = datetime.fromtimestamp(event["ts"] / 1e9)  # noqa: DTZ006 # the reader's own clock
    text, style = describe(event)
    return [
        Cell(f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}  ", CALM),
        Cell(clean(event["agent"], 20).ljust(20) + " "),
        Cell(clean(event["run_id"], 13).ljust(13) + f" {event['step']:>4}  ", CALM),
        Cell(clean(event["type"], 24).ljust(18) + " ", style),
        Cell(clean(text, 400), style),
    ]
