"""`checkrein pact promote`: one step on, with the evidence for it."""

import sys
from typing import Any

import click

from checkrein.cli import out
from checkrein.cli.clean import clean
from checkrein.cli.client import segment
from checkrein.cli.out import CALM, CAUTION, Cell
from checkrein.cli.pact_diff import print_compared

TARGETS = ("shadow", "enforce", "staging", "production")


@click.command()
@click.argument("agent")
@click.option("--to", type=click.Choice(TARGETS), required=True, help="Where it goes.")
@click.option("--reason", default="", help="Why, for those who read the log.")
@click.option(
    "--environment",
    default="development",
    show_default=True,
    help="For --to shadow and --to enforce: where.",
)
@click.option("--version", default="", help="Which draft (default: the newest).")
@click.option("--force", is_flag=True, help="Without the evidence; in development only.")
@click.option("--dry-run", is_flag=True, help="Only show what it would do, and what it lacks.")
@out.server_options
def promote(
    agent: str, to: str, reason: str, environment: str, version: str, force: bool, dry_run: bool,
    url: str, token: str, as_json: bool,
) -> None:  # fmt: skip
    """Move a version of AGENT's pact on: from draft to shadow to enforce, and what is enforced in
    development to staging and to production.

    It shows the difference, and needs a backtest of exactly this version, what it did in shadow, a
    reason, and in production another approver than its author. Ends with 1 if something is lacking.
    """
    path = f"/api/v1/pacts/{segment(agent)}"
    asked = {"to": to, "environment": environment, "version": version, "reason": reason}
    with out.asking(url, token) as client:
        plan = client.get(f"{path}/promotion", **asked, force="true" if force else "")
        shown = plan["compared"]["digest"]
        plan = client.get(f"{path}/promotion", **asked, force="true" if force else "", diff=shown)
        if not as_json:
            _print(plan)
        if dry_run or plan["lacks"]:
            if as_json:
                out.say_json(plan)
            sys.exit(1 if plan["lacks"] else 0)
        done = client.post(f"{path}/promote", {**asked, "diff": shown, "force": force})
    if as_json:
        out.say_json(done)
        return
    move = plan["move"]
    out.say(
        f"version {move['version']['version']} is now at stage {move['stage']} for "
        f"{clean(agent, 200)} in {clean(move['environment'])}"
    )


def _print(plan: dict[str, Any]) -> None:
    move = plan["move"]
    out.say(
        f"{clean(move['source'])} -> {clean(move['environment'])}, stage {move['stage']}: version "
        f"{move['version']['version']} by {clean(move['version']['author'], 100) or 'nobody named'}"
    )
    print_compared(plan["compared"])
    if plan["backtest"] is not None:
        summary = ", ".join(f"{key} {value}" for key, value in plan["backtest"]["summary"].items())
        out.styled([Cell(f"backtest: {clean(summary, 300) or 'stored'}", CALM)])
    if plan["shadow"] is not None:
        verdicts = plan["shadow"]["verdicts"]
        said = ", ".join(f"{count} of `{rule}`" for rule, count in verdicts.items()) or "nothing"
        runs = plan["shadow"]["runs"]
        out.styled([Cell(f"in shadow, {runs} runs: {clean(said, 500)} let pass", CALM)])
    for lack in plan["lacks"]:
        out.styled([Cell(f"lacks: {clean(lack, 300)}", CAUTION)])
