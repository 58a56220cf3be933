"""`checkrein coverage`: who sees what of each agent, and what is not covered."""

import time
from typing import Any

import click

from checkrein.cli import out, words
from checkrein.cli.clean import clean
from checkrein.cli.client import segment
from checkrein.cli.out import CALM, CAUTION, PLAIN, STRONG, Cell

HEADS = ("", "BOTH", "SDK ONLY", "GATEWAY ONLY", "REFUSED")
HOUR_NS = 3_600 * 10**9


@click.command()
@click.option("--agent", default="", help="Only this agent, with its latest runs.")
@click.option("--hours", default=24.0, show_default=True, help="So far back.")
@out.server_options
def coverage(agent: str, hours: float, url: str, token: str, as_json: bool) -> None:
    """Which calls of each agent its SDK saw, a gateway, or both; and what is not covered."""
    since = max(0, time.time_ns() - round(hours * HOUR_NS))  # noqa: TID251 # a person's clock
    with out.asking(url, token) as client:
        path = f"/api/v1/agents/{segment(agent)}/coverage" if agent else "/api/v1/coverage"
        found = client.get(path, since=since)
        if as_json:
            out.say_json(found)
            return
        if not found:
            out.say(f"no model or tool call is stored of the last {hours:g} hours")
            return
        for index, line in enumerate(found):
            if index:
                out.say()
            _agent(line)


def _agent(line: dict[str, Any]) -> None:
    out.styled([Cell(clean(line["agent"], 60), STRONG),
                Cell(f"  {clean(line['environment'], 40)}", CALM)])  # fmt: skip
    rows = [_counts(name, line[name]) for name in ("models", "tools")]
    ids = words.short_ids(run["run_id"] for run in line["runs"])
    for run in line["runs"]:
        rows += [
            _counts(f"{clean(ids[run['run_id']], 36)} {name}", run[name])
            for name in ("models", "tools")
            if any(run[name].values())
        ]
    out.table(HEADS, rows)
    for path in line["paths"]:
        out.styled([Cell(f"  {clean(path['path'], 20):<10}", PLAIN), Cell(_path(path), CALM)])
    for said in line["not_covered"]:
        out.styled([Cell(f"  not covered: {clean(said, 1000)}", CAUTION)])


def _counts(name: str, seen: dict[str, int]) -> list[Cell]:
    alone = CAUTION if seen["sdk"] else ""
    return [
        Cell(name), Cell(str(seen["both"]), right=True), Cell(str(seen["sdk"]), alone, right=True),
        Cell(str(seen["gateway"]), right=True), Cell(str(seen["denied"]), right=True),
    ]  # fmt: skip


def _path(path: dict[str, Any]) -> str:
    counted = [f"{path['calls']} call{'s' if path['calls'] != 1 else ''}"]
    counted += [
        f"{path[name]} {said}"
        for name, said in (("streamed", "streamed"), ("refused", "refused"), ("cut", "cut off"),
                           ("redacted", "values redacted"))
        if path[name]
    ]  # fmt: skip
    guards = clean(", ".join(path["guards"]), 300) or "no guard"
    return f"{', '.join(counted)}; judged by {guards}"
