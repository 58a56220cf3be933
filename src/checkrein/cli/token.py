"""`checkrein token`: who else may ask this server, and for what."""

import time

import click

from checkrein.cli import out, words
from checkrein.cli.clean import clean
from checkrein.cli.client import segment
from checkrein.cli.out import CALM, Cell

HEADS = ("NAME", "ROLE", "MADE", "BY")
ROLES = ("viewer", "auditor", "author", "approver", "operator", "admin")


@click.group()
def token() -> None:
    """Who else may ask this server, and for what.

    viewer: read. auditor: read, the audit log too. author: write pacts, not promote them. approver:
    promote pacts, decide on approvals. operator: both of these, and command. admin: everything,
    tokens and agents too, as the token in the server's data folder.
    """


@token.command()
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What it may do.")
@out.server_options
def create(name: str, role: str, url: str, token: str, as_json: bool) -> None:
    """Make a token for NAME. It is shown once; the server keeps only its hash."""
    with out.asking(url, token) as client:
        made = client.post("/api/v1/tokens", {"name": name, "role": role})
    if as_json:
        out.say_json(made)
        return
    out.say(made["token"])
    out.warn(f"this is the token of {name}, {role}: it cannot be shown again")


@token.command("list")
@out.server_options
def list_tokens(url: str, token: str, as_json: bool) -> None:
    """The tokens that were made. What they are is not known to the server."""
    with out.asking(url, token) as client:
        found = client.get("/api/v1/tokens")
    if as_json:
        out.say_json(found)
        return
    if not found:
        out.say("no tokens but the one in the server's data folder")
        return
    rows = []
    for line in found:
        ago = max(0.0, (time.time_ns() - line["created_at"]) / 1e9)  # noqa: TID251 # a person's clock
        rows.append(
            [
                Cell(clean(line["name"], 60)), Cell(line["role"]),
                Cell(f"{words.duration(ago)} ago", CALM, right=True),
                Cell(clean(line["created_by"], 40), CALM),
            ]
        )  # fmt: skip
    out.table(HEADS, rows)


@token.command()
@click.argument("name")
@out.server_options
def revoke(name: str, url: str, token: str, as_json: bool) -> None:
    """End NAME's token at once."""
    with out.asking(url, token) as client:
        left = client.delete(f"/api/v1/tokens/{segment(name)}")
    if as_json:
        out.say_json(left)
        return
    out.say(f"the token of {clean(name, 100)} opens nothing any more")
