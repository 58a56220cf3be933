"""`checkrein show RUN`: one run's ordered trace."""

from datetime import datetime
from typing import Any

import click

from checkrein.cli import out, trace, words
from checkrein.cli.clean import clean
from checkrein.cli.client import Client, segment
from checkrein.cli.out import ALARM, CALM, CAUTION, PLAIN, STRONG, Cell
from checkrein.cli.ps import STYLES

BAR_CHARS = 24
PAGE = 5000


@click.command()
@click.argument("run")
@out.server_options
def show(run: str, url: str, token: str, as_json: bool) -> None:
    """One run's ordered trace. RUN is its id, or the beginning of it.

    With --json: the list of its events in order.
    """
    with out.asking(url, token) as client:
        line = client.get(f"/api/v1/runs/{segment(run.removeprefix('run:'))}")
        events = events_of(client, line["run_id"])
        if as_json:
            out.say_json(events)
            return
        _header(line)
        _waterfall(events)
        _commands(events)
        _ending(line)


def events_of(client: Client, run_id: str) -> list[dict[str, Any]]:
    """All of a run's events, each once, in order."""
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for page in client.pages(f"/api/v1/runs/{segment(run_id)}/events", limit=PAGE):
        for event in page:
            found.setdefault((event["agent"], event["recorder"], event["seq"]), event)
    return list(found.values())


def _header(line: dict[str, Any]) -> None:
    started = datetime.fromtimestamp(line["started_at"] / 1e9)  # noqa: DTZ006 # the reader's clock
    status = Cell(clean(line["status"]), STYLES.get(line["status"], STRONG))
    out.styled([Cell(clean(line["agent"], 60), STRONG), Cell("  "), status])
    facts = [
        ("run", line["run_id"]),
        ("task", line["task_id"]),
        ("room", f"{line['room']}  ({line['environment']})"),
        ("goal", line["goal"]),
        ("started", f"{started:%Y-%m-%d %H:%M:%S}{_lasted(line)}"),
        ("spent", f"{line['step']} steps  {line['tool_calls']} tool calls  "
                  f"{words.count(line['tokens'])} tokens  {words.money(line['usd'])} USD"),
        ("halt", _halt(line)),
    ]  # fmt: skip
    for name, value in facts:
        if value:
            out.styled([Cell(f"  {name:<9}", CALM), Cell(clean(value, 300))])
    out.say()


def _lasted(line: dict[str, Any]) -> str:
    if not line["ended_at"]:
        return ""
    return f"  for {words.duration((line['ended_at'] - line['started_at']) / 1e9)}"


def _halt(line: dict[str, Any]) -> str:
    if line["ended_at"] or line["can_halt_why"] == "it has ended":
        return ""
    can = "can be halted" if line["can_halt"] else "CANNOT be halted for sure"
    return f"{can} {line['level']}: {line['can_halt_why']}"


def _waterfall(events: list[dict[str, Any]]) -> None:
    rows = trace.rows_of(events)
    whole = trace.span_ns(events)
    for row in rows:
        took = words.duration((row.end - row.start) / 1e9) if row.end is not None else ""
        kind = clean("  " * row.depth + row.kind, 18)
        out.styled(
            [
                Cell(f"{words.duration(row.start / 1e9):>9} ", CALM),
                Cell(trace.bar(row, whole, BAR_CHARS) + " ", row.style or CALM),
                Cell(f"{took:>9}  ", PLAIN),
                Cell(f"{kind:<18} ", row.style),
                Cell(clean(row.text, 400), row.style),
            ]
        )


def _commands(events: list[dict[str, Any]]) -> None:
    """The rungs of each command's latest receipt, each on a line."""
    latest = {str(event.get("command_id")): event for event in events if event["type"] == "receipt"}
    for event in latest.values():
        out.say()
        seen = event.get("confirmed") or ""
        if seen:
            sure = Cell(f"confirmed by {clean(seen, 40)}")
        elif event.get("verb") != "halt" and event.get("obeyed_ms") is not None:
            sure = Cell("obeyed, as the agent says", CALM)
        else:
            sure = Cell("NOT CONFIRMED", CAUTION)
        out.styled([Cell(f"{clean(event.get('verb'), 20)}  ", STRONG), sure])
        for name, ms in _rungs(event.get("how")):
            out.styled([Cell(f"  {name:<10}", CALM), Cell(f"{ms:>9.1f} ms")])
        if event.get("note"):
            out.styled([Cell(f"  {clean(event['note'], 300)}", CAUTION)])


def _rungs(how: Any) -> list[tuple[str, float]]:
    """What a receipt says it climbed, as far as it has the form of it."""
    return [
        (clean(rung.get("rung", ""), 20), float(rung["ms"]))
        for rung in (how if isinstance(how, list) else [])
        if isinstance(rung, dict) and isinstance(rung.get("ms"), int | float)
    ]


def _ending(line: dict[str, Any]) -> None:
    if line["reason"]:
        style = ALARM if STYLES.get(line["status"]) == ALARM else PLAIN
        out.say()
        out.styled([Cell(f"{clean(line['status'])}: {clean(line['reason'], 1000)}", style)])
