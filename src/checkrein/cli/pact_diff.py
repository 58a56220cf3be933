"""`checkrein pact diff`: what one pact lets through and another does not."""

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from checkrein.cli import out
from checkrein.cli.clean import clean
from checkrein.cli.client import segment
from checkrein.cli.out import ALARM, CALM, CAUTION, PLAIN, Cell
from checkrein.policy.pact import PactError, load
from checkrein.policy.pact_diff import Difference, diff_digest, differences
from checkrein.sdk.config import pact_text

STYLES = {"allows": CAUTION, "refuses": PLAIN, "asks": PLAIN, "changes": CALM}
SIGNS = {"allows": "+ allows ", "refuses": "- refuses", "asks": "? asks   ", "changes": "~ changes"}


@click.command()
@click.argument("before")
@click.argument("after")
@click.option("--agent", default="", help="Compare versions of this agent's pact on the server.")
@click.option("--environment", default="development", show_default=True, help="Whose versions.")
@out.server_options
def diff(
    before: str, after: str, agent: str, environment: str, url: str, token: str, as_json: bool
) -> None:
    """What becomes allowed or refused when BEFORE is replaced by AFTER.

    Two files; or, with --agent, two of its versions: a version, `enforced`, `shadow`, `draft` or
    `default`, of another environment as `ENVIRONMENT:VERSION`. Ends with 1 if they differ.
    """
    if agent:
        with out.asking(url, token) as client:
            found = client.get(
                f"/api/v1/pacts/{segment(agent)}/diff", before=before, after=after,
                environment=environment,
            )  # fmt: skip
    else:
        found = _files(before, after)
    if as_json:
        out.say_json(found)
    else:
        print_compared(found)
    sys.exit(1 if found["differences"] else 0)


def print_compared(found: dict[str, Any]) -> None:
    """As the API tells it, in lines."""
    out.say(f"{found['before']} -> {found['after']}")
    if not found["differences"]:
        out.say("they say the same")
    for line in found["differences"]:
        effect = line["effect"]
        style = ALARM if effect == "allows" and line["key"] == "tools" else STYLES[effect]
        text = str(msgspec.convert(line, Difference))
        out.styled([Cell(f"{SIGNS[effect]}  ", style), Cell(clean(text, 500), style)])


def _files(before: str, after: str) -> dict[str, Any]:
    pacts = []
    for name in (before, after):
        if not Path(name).exists():
            out.fail(f"{name}: no such file (for versions on the server, name --agent)")
        try:
            pacts.append(load(pact_text(name), name))
        except PactError as error:
            out.fail(str(error))
        except (OSError, ValueError) as error:
            out.fail(f"{name}: {getattr(error, 'strerror', None) or error}")
    old, new = pacts
    return {
        "before": old.version, "after": new.version, "digest": diff_digest(old, new),
        "differences": msgspec.to_builtins(differences(old, new)),
    }  # fmt: skip
