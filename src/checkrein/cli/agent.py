"""`checkrein agent`: agents by name, their keys, and taking them back."""

import time
from typing import Any

import click

from checkrein.cli import out, words
from checkrein.cli.clean import clean
from checkrein.cli.client import segment
from checkrein.cli.out import ALARM, CALM, CAUTION, Cell

HEADS = ("AGENT", "OWNER", "BOUND TO", "KEYS", "ADDED", "LAST SEEN", "")
_ONCE = "this is the key of {}: it cannot be shown again"


@click.group()
def agent() -> None:
    """Agents by name, each with keys of its own.

    An agent's key opens sessions of that agent and calls at the gateway, nothing else. A new agent
    lives by the pact `default` and is recorded in full, without anything more being done.
    """


@agent.command()
@click.argument("name")
@click.option("--owner", default="", help="Who answers for it.")
@click.option("--room", default="", help="The only room that its key opens.")
@click.option("--environment", default="", help="The only environment that its key opens.")
@click.option(
    "--subject", "subjects", multiple=True, metavar='"ISSUER SUBJECT"',
    help="Whom an identity provider calls so is this agent. May be given several times.",
)  # fmt: skip
@click.option("--label", default="", help="A word for the key.")
@out.server_options
def add(
    name: str, owner: str, room: str, environment: str, subjects: tuple[str, ...], label: str,
    url: str, token: str, as_json: bool,
) -> None:  # fmt: skip
    """Give NAME a key. It is shown once; the server keeps only its hash."""
    body = {
        "agent": name, "owner": owner, "room": room, "environment": environment,
        "subjects": list(subjects), "label": label,
    }  # fmt: skip
    with out.asking(url, token) as client:
        made = client.post("/api/v1/agents", body)
    _say_key(made, as_json)


@agent.command()
@click.argument("name")
@click.option("--label", default="", help="A word for the key.")
@out.server_options
def key(name: str, label: str, url: str, token: str, as_json: bool) -> None:
    """Give NAME another key, to change keys one after the other."""
    with out.asking(url, token) as client:
        made = client.post(f"/api/v1/agents/{segment(name)}/keys", {"label": label})
    _say_key(made, as_json)


@agent.command("list")
@out.server_options
def list_agents(url: str, token: str, as_json: bool) -> None:
    """The agents that were added by name. (`checkrein agents` shows who runs.)"""
    with out.asking(url, token) as client:
        found = [line for line in client.get("/api/v1/agents") if line["identity"]]
    if as_json:
        out.say_json([line["identity"] | {"last_seen": line["last_seen"]} for line in found])
        return
    if not found:
        out.say("no agent was added by name yet: `checkrein agent add NAME` does")
        return
    out.table(HEADS, [_row(line) for line in found])


@agent.command()
@click.argument("name")
@click.option("--key", "prefix", default="", metavar="PREFIX", help="Only the key of this name.")
@out.server_options
def revoke(name: str, prefix: str, url: str, token: str, as_json: bool) -> None:
    """Let NAME in nowhere any more, at once; or take back one of its keys."""
    path = f"/api/v1/agents/{segment(name)}"
    with out.asking(url, token) as client:
        done = client.delete(f"{path}/keys/{segment(prefix)}" if prefix else path)
    if as_json:
        out.say_json(done)
    else:
        what = f"the key {clean(prefix, 64)} of" if prefix else "agent"
        sessions = "session" if done["cut"] == 1 else "sessions"
        out.say(f"{what} {clean(name, 100)} is let in nowhere; {done['cut']} {sessions} ended")
    if done["pending"]:
        out.warn(
            f"not confirmed yet by the bus servers for {' and '.join(done['pending'])}: they are "
            "told until they do, and a session ends by itself within the hour"
        )


def _say_key(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        out.say_json(made)
        return
    out.say(made["key"])
    out.warn(_ONCE.format(clean(made["agent"], 100)))


def _row(line: dict[str, Any]) -> list[Cell]:
    identity = line["identity"]
    bound = ", ".join(name for name in (identity["room"], identity["environment"]) if name)
    seen = f"{_ago(line['last_seen'])} ago" if line["last_seen"] else "never"
    keys = ", ".join(
        each["prefix"] + (f" ({clean(each['label'], 20)})" if each["label"] else "")
        for each in identity["keys"]
    )
    return [
        Cell(clean(identity["agent"], 40)),
        Cell(clean(identity["owner"], 30), CALM),
        Cell(clean(bound, 40), CALM),
        Cell(keys or "none", CALM if keys else CAUTION),
        Cell(f"{_ago(identity['created_at'])} ago", CALM, right=True),
        Cell(seen, CALM, right=True),
        Cell("revoked" if identity["revoked_at"] else "", ALARM),
    ]


def _ago(at_ns: int) -> str:
    return words.duration(max(0.0, (time.time_ns() - at_ns) / 1e9))  # noqa: TID251 # a person's clock
