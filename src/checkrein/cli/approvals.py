"""`checkrein approvals`, `approve`, `deny`: what people are asked, and their answers.

What is shown comes in the order in which it can be trusted: the call itself, whole, then the rule,
and the agent's own words last and marked as such.
"""

import json
import sys
import time
from typing import Any

import click

from checkrein.cli import out, words
from checkrein.cli.clean import clean
from checkrein.cli.client import Client, Refused, segment
from checkrein.cli.out import ALARM, CALM, CAUTION, PLAIN, STRONG, Cell
from checkrein.policy.units import UnitError, duration_s

HASTE_S = 60.0
"""What expires so soon is marked."""
VALUE_CHARS_MAX = 4_000
SIMILAR_SHOWN = 3


@click.command()
@click.option("--all", "every", is_flag=True, help="Those that are decided, too.")
@click.option("--agent", default="", help="Only this agent.")
@out.server_options
def approvals(every: bool, agent: str, url: str, token: str, as_json: bool) -> None:
    """What waits for somebody's answer. No answer is a no when the time is up."""
    with out.asking(url, token) as client:
        query = {"all": "true"} if every else {}
        found = client.get("/api/v1/approvals", agent=agent, limit=1000, **query)
        if as_json:
            out.say_json(found)
            return
        if not found:
            out.say("nothing waits for an answer" if not every else "no approvals")
            return
        now = time.time_ns()  # noqa: TID251 # a person's clock
        for approval in found:
            show(approval, now)


def show(approval: dict[str, Any], now: int) -> None:
    """One approval: the call first, the agent's own words last."""
    left_s = (approval["expires_at"] - now) / 1e9
    status = approval["status"]
    style = {"open": STRONG, "approved": PLAIN, "used": CALM}.get(status, CALM)
    when = [Cell(f"  {status}", CALM)]
    if status == "open":
        text = f"  expires in {words.duration(max(0.0, left_s))}"
        when = [Cell(text, ALARM if left_s < HASTE_S else CAUTION)]
    undo = approval["undo"]
    out.styled(
        [Cell(clean(approval["approval_id"], 60), STRONG), Cell("  "),
         Cell(clean(f"{approval['agent']}  {approval['tool']}", 120), style), *when]
    )  # fmt: skip
    _line("arguments", json.dumps(approval["arguments"], ensure_ascii=False))
    if approval["edited"]:
        _line("changed to", json.dumps(approval["edited_arguments"], ensure_ascii=False))
    _line("rule", f"{approval['rule']}: {approval['reason']}")
    if approval["inputs"]:
        _line("because", json.dumps(approval["inputs"], ensure_ascii=False))
    kind = undo.get("kind") or "unknown kind"
    _line("undo", f"{kind}{', undone by ' + undo['undo'] if undo.get('undo') else ''}")
    place = f"run {approval['run_id']}  step {approval['step']}"
    _line("where", f"{place}{'  room ' + approval['room'] if approval['room'] else ''}")
    _line(
        "pact", f"{approval['pact']} {approval['pact_version']}  digest {approval['digest'][:16]}"
    )
    for before in approval["similar"][:SIMILAR_SHOWN]:
        same = "  the same call" if before.get("digest") == approval["digest"] else ""
        by = f" by {before['by']}" if before.get("by") else ""
        _line("before", f"{before['decision']}{by}: {before.get('reason', '')}{same}")
    if approval["decided_by"] or status not in ("open",):
        by = f" by {approval['decided_by']}" if approval["decided_by"] else ""
        _line("decided", f"{status}{by}: {approval['decision_reason']}")
    if approval["words"]:
        _line("the agent says", approval["words"])


def _line(name: str, text: str) -> None:
    out.styled([Cell(f"  {name:<15}", CALM), Cell(clean(text, VALUE_CHARS_MAX))])


_BATCH = "All open ones of an agent or a rule: agent:NAME or rule:NAME."


@click.command()
@click.argument("ids", nargs=-1)
@click.option("--reason", default="", help="Why; kept with the decision.")
@click.option("--edit", default="", help="Approve with these arguments instead (JSON).")
@click.option("--for", "duration", default="", help="And all calls like it for so long (30m).")
@click.option("--raise", "raises", multiple=True, help="Raise a budget: usd=2, wall=10m.")
@click.option("--batch", default="", help=_BATCH)
@click.option("--by", default="", help="Who decides.")
@out.server_options
def approve(
    ids: tuple[str, ...], reason: str, edit: str, duration: str, raises: tuple[str, ...],
    batch: str, by: str, url: str, token: str, as_json: bool,
) -> None:  # fmt: skip
    """Lets a call be made that waits for an answer: once, with exactly its arguments.

    IDS are approvals (the beginning of an id will do). Exits 0 only if every one was approved."""
    body: dict[str, Any] = {"decision": "approve", "reason": reason, "by": by}
    if duration:
        body["for_s"] = _seconds(duration)
    if edit or raises:
        if len(ids) != 1 or batch:
            out.fail("--edit and --raise are for one approval, named by its id")
        if edit:
            body["arguments"] = _json(edit)
        if raises:
            body["raise"] = dict(_amount(text) for text in raises)
    _decide(ids, batch, body, url, token, as_json)


@click.command()
@click.argument("ids", nargs=-1)
@click.option("--reason", required=True, help="Why; the agent reads it.")
@click.option("--batch", default="", help=_BATCH)
@click.option("--by", default="", help="Who decides.")
@out.server_options
def deny(
    ids: tuple[str, ...], reason: str, batch: str, by: str, url: str, token: str, as_json: bool
) -> None:
    """Refuses a call that waits for an answer, or takes back what was approved and not used yet.

    IDS are approvals (the beginning of an id will do). Exits 0 only if every one was denied."""
    _decide(ids, batch, {"decision": "deny", "reason": reason, "by": by}, url, token, as_json)


def _decide(
    ids: tuple[str, ...], batch: str, body: dict[str, Any], url: str, token: str, as_json: bool
) -> None:
    if bool(ids) == bool(batch):
        out.fail("name approvals by their ids, or several with --batch; `checkrein approvals`")
    with out.asking(url, token) as client:
        done = _batch(client, batch, body) if batch else [_one(client, i, body) for i in ids]
    if as_json:
        out.say_json(done)
    for one in done if not as_json else ():
        said = one["status"] if one["ok"] else one["error"]
        out.styled([Cell(clean(f"{one['id']}  {said}", 600), PLAIN if one["ok"] else ALARM)])
    if not done and not as_json:
        out.say("nothing fits")
    sys.exit(0 if done and all(one["ok"] for one in done) else 1)


def _one(client: Client, ident: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        line = client.post(f"/api/v1/approvals/{segment(ident)}/decision", body)
    except Refused as error:
        if error.status not in (404, 409):
            raise
        return {"id": ident, "ok": False, "status": error.error, "error": error.detail}
    return {"id": line["approval_id"], "ok": True, "status": line["status"], "error": ""}


def _batch(client: Client, batch: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    kind, _, name = batch.partition(":")
    if kind not in ("agent", "rule", "tool") or not name:
        out.fail(f"--batch {batch!r}: agent:NAME, rule:NAME or tool:NAME")
    found: list[dict[str, Any]] = client.post("/api/v1/approvals/decisions", {**body, kind: name})
    return found


def _seconds(text: str) -> float:
    try:
        return duration_s(text)
    except UnitError as error:
        out.fail(f"--for: {error}")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        out.fail(f"--edit is not JSON: {error}")


def _amount(text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        return name, duration_s(amount) if name == "wall" else float(amount)
    except UnitError as error:
        out.fail(f"--raise {text}: {error}")
    except ValueError:
        out.fail(f"--raise {text!r}: write it like usd=2, steps=10 or wall=10m")
