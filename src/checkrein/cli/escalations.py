"""`checkrein escalations` and `acknowledge`: what somebody must take note of, and who did."""

import sys
import time
from typing import Any

import click

from checkrein.cli import out, words
from checkrein.cli.clean import clean
from checkrein.cli.client import Refused, segment
from checkrein.cli.out import ALARM, CALM, CAUTION, PLAIN, Cell

HEADS = ("ESCALATION", "STATUS", "DUE", "AGENT", "TO", "WHY")


@click.command()
@click.option("--all", "every", is_flag=True, help="Those that are acknowledged, too.")
@out.server_options
def escalations(every: bool, url: str, token: str, as_json: bool) -> None:
    """What somebody must take note of, and until when."""
    with out.asking(url, token) as client:
        query = {"all": "true"} if every else {}
        found = client.get("/api/v1/escalations", limit=1000, **query)
        if as_json:
            out.say_json(found)
            return
        if not found:
            out.say("nothing waits for anybody")
            return
        now = time.time_ns()  # noqa: TID251 # a person's clock
        out.table(HEADS, [_row(one, now) for one in found])


def _row(one: dict[str, Any], now: int) -> list[Cell]:
    status = one["status"]
    style = {"overdue": ALARM, "open": CAUTION}.get(status, CALM)
    note = f" (acknowledged by {one['acknowledged_by']}: {one['note']})" if one["note"] else ""
    return [
        Cell(clean(one["escalation_id"], 80)),
        Cell(clean(status, 14), style),
        Cell(_due(one, now), style, right=True),
        Cell(clean(one["agent"], 28)),
        Cell(clean(one["to"], 28)),
        Cell(clean(f"{one['why']}{note}", 300), PLAIN if status != "acknowledged" else CALM),
    ]


def _due(one: dict[str, Any], now: int) -> str:
    if not one["due_at"] or one["status"] == "acknowledged":
        return ""
    left_s = (one["due_at"] - now) / 1e9
    return words.duration(left_s) if left_s >= 0 else f"{words.duration(-left_s)} ago"


@click.command()
@click.argument("ids", nargs=-1, required=True)
@click.option("--note", default="", help="What is done about it.")
@click.option("--by", default="", help="Who takes note.")
@out.server_options
def acknowledge(
    ids: tuple[str, ...], note: str, by: str, url: str, token: str, as_json: bool
) -> None:
    """Says that somebody has taken note of an escalation, which stops its clock.

    Exits 0 only if every one was acknowledged."""
    done: list[dict[str, Any]] = []
    with out.asking(url, token) as client:
        for ident in ids:
            path = f"/api/v1/escalations/{segment(ident)}/acknowledge"
            try:
                line = client.post(path, {"note": note, "by": by})
            except Refused as error:
                if error.status not in (404, 409):
                    raise
                done.append({"id": ident, "ok": False, "error": error.detail})
            else:
                done.append({"id": line["escalation_id"], "ok": True, "error": ""})
    if as_json:
        out.say_json(done)
    for one in done if not as_json else ():
        said = "acknowledged" if one["ok"] else one["error"]
        out.styled([Cell(clean(f"{one['id']}  {said}", 600), PLAIN if one["ok"] else ALARM)])
    sys.exit(0 if all(one["ok"] for one in done) else 1)
