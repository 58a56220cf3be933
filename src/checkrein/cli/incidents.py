"""`checkrein incidents`: the queue."""

import time

import click

from checkrein.cli import out, words
from checkrein.cli.clean import clean
from checkrein.cli.out import ALARM, CALM, CAUTION, PLAIN, Cell

HEADS = ("SEVERITY", "STATUS", "AGENT", "RUN", "DETECTOR", "TIMES", "AGE", "WHY")
STYLES = {"critical": ALARM, "high": ALARM, "medium": CAUTION}


@click.command()
@click.option("--status", default="", help="open, acknowledged or closed; several by commas.")
@click.option("--agent", default="", help="Only this agent.")
@click.option("--room", default="", help="Only this room.")
@out.server_options
def incidents(status: str, agent: str, room: str, url: str, token: str, as_json: bool) -> None:
    """The queue of what needs looking at: open first, then by severity, newest first."""
    with out.asking(url, token) as client:
        found = client.get("/api/v1/incidents", status=status, agent=agent, room=room, limit=1000)
        if as_json:
            out.say_json(found)
            return
        if not found:
            out.say("no incidents")
            return
        ids = words.short_ids(incident["run_id"] for incident in found)
        rows = []
        for incident in found:
            closed = incident["status"] == "closed"
            style = CALM if closed else STYLES.get(incident["severity"], PLAIN)
            age = max(0.0, (time.time_ns() - incident["opened_at"]) / 1e9)  # noqa: TID251 # a person's clock
            outcome = f" → {incident['outcome']}" if incident["outcome"] else ""
            rows.append(
                [
                    Cell(clean(incident["severity"], 12), style),
                    Cell(clean(incident["status"], 14), CALM if closed else PLAIN),
                    Cell(clean(incident["agent"], 28)),
                    Cell(clean(ids[incident["run_id"]], 36), CALM),
                    Cell(clean(incident["detector"], 28)),
                    Cell(str(incident["count"]), right=True),
                    Cell(words.duration(age), right=True),
                    Cell(clean(f"{incident['why']}{outcome}", 300), style),
                ]
            )
        out.table(HEADS, rows)
