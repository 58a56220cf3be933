"""`checkrein doctor`: is all well, and what is not covered."""

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from checkrein.cli import checks, out, walls, words
from checkrein.cli.checks import Finding
from checkrein.cli.clean import clean
from checkrein.cli.client import Client, ClientError
from checkrein.cli.discover import CannotFind, find
from checkrein.cli.out import ALARM, CALM, CAUTION, PLAIN, Cell
from checkrein.cli.pact_list import troubles

STYLES = {"ok": PLAIN, "note": CAUTION, "bad": ALARM}
AGENTS_MAX = 20
NOT_COVERED = (
    "A model call that does not go to the gateway, and a tool that an agent runs in its own "
    "process, are judged in that process only; `checkrein coverage` counts them.",
    "A program that is not started with `checkrein run` has no supervisor: its halt is asked of "
    "the SDK and cannot be confirmed from outside.",
    "With bus servers of your own (--bus, --control-bus) their logs are not followed: what they "
    "refuse an agent is refused, but reported only there.",
    "Effects outside this machine that began before a halt (a request already sent) are recorded, "
    "not undone.",
)


@click.command()
@out.server_options
def doctor(url: str, token: str, as_json: bool) -> None:
    """Is all well? What runs, what is durable, what can be halted, and what is not covered.

    Ends with 1 if something is wrong.
    """
    findings = [*checks.machine(), *walls.machine()]
    try:
        place = find(url, token)
        findings += _server(Client(place))
        if place.data is not None:
            findings += checks.local_data(place.data)
    except CannotFind as error:
        findings.append(Finding("bad", "server", str(error)))
    wrong = any(finding.verdict == "bad" for finding in findings)
    if as_json:
        out.say_json({
            "well": not wrong,
            "findings": [finding._asdict() for finding in findings],
            "not_covered": list(NOT_COVERED),
        })  # fmt: skip
    else:
        _print(findings, wrong)
    sys.exit(1 if wrong else 0)


def _server(client: Client) -> list[Finding]:
    try:
        status = client.get("/api/v1/status")
        pacts = client.get("/api/v1/pacts")
        coverage = _coverage(client)
    except ClientError as error:
        return [Finding("bad", "server", str(error))]
    finally:
        client.close()
    return [
        Finding("ok", "server", f"{client.place.url}, version {status['version']}, up "
                                f"{words.duration(status['uptime_s'])}"),
        *_parts(status), *_store(status), *_protection(status), *_pacts(pacts),
        *coverage,
    ]  # fmt: skip


def _parts(status: dict[str, Any]) -> Iterator[Finding]:
    for part in status["parts"]:
        verdict = Finding("ok", part["name"], "answers")
        yield verdict if part["ok"] else Finding("bad", part["name"], part["detail"])
    for line in status["incomplete"]:
        yield Finding("bad", "incomplete", line)


def _store(status: dict[str, Any]) -> Iterator[Finding]:
    store = status["store"]
    if not store:
        return
    runs, events = store.get("runs", 0), store.get("events", 0)
    yield Finding("ok", "store", f"{events:,} events, {runs:,} runs, {words.size(store['bytes'])}")
    archive = store.get("archive", {})
    if archive.get("trouble"):
        yield Finding("bad", "archive", f"cannot write: {archive['trouble']}")
    for name, said in (("lost", "events are known to be missing"), ("refused", "were refused")):
        if archive.get(name):
            yield Finding("note", "archive", f"{archive[name]:,} {said} since it started")
    behind = status["stream_position"] - status["tail_position"]
    if behind > 0:
        yield Finding("note", "live view", f"{behind} messages behind the stream")


def _protection(status: dict[str, Any]) -> Iterator[Finding]:
    live = status["runs_live"]
    if not live:
        yield Finding("ok", "protection", "no run is live")
        return
    said = f"{status['can_halt']} of {live} live runs could be halted now, as just probed"
    yield Finding("ok" if status["can_halt"] == live else "note", "protection", said)
    yield from walls.runs(status["levels"])
    whys = Counter((run["agent"], run["why"]) for run in status["not_haltable"])
    for (agent, why), number in whys.most_common(20):
        yield Finding("note", agent, f"{number} runs cannot be halted for sure: {why}")


def _pacts(pacts: list[dict[str, Any]]) -> Iterator[Finding]:
    """Which agents do not decide by the newest version, and which have none."""
    for line in pacts:
        name = f"{line['agent']} in {line['environment']}"
        wrong = troubles(line)
        for text in wrong:
            yield Finding("bad", "pact", text)
        behind = line["processes"] - line["current"]
        if behind and not wrong:
            said = f"{name}: {behind} of {line['processes']} processes have not said that"
            yield Finding("note", "pact", f"{said} version {line['effective']} holds there")
    bare = sorted({line["agent"] for line in pacts if line["processes"] and not line["effective"]})
    if bare:
        shown = ", ".join(bare[:10])
        yield Finding("note", "pact", f"agents without one on the server: {shown}")
    held = sum(line["current"] for line in pacts if line["effective"])
    yield Finding("ok", "pacts", f"{len(pacts)} known; the newest holds in {held} processes")


def _coverage(client: Client) -> list[Finding]:
    """What is not covered of each agent's calls of the last day, and how to close it."""
    try:
        lines = client.get("/api/v1/coverage")
    except ClientError as error:
        return [Finding("note", "coverage", f"cannot be told now: {error}")]
    found = [
        Finding("note", line["agent"], f"not covered: {said}")
        for line in lines[:AGENTS_MAX] for said in line["not_covered"]
    ]  # fmt: skip
    if lines:
        whole = sum(not line["not_covered"] for line in lines)
        said = f"{whole} of {len(lines)} agents of the last day have nothing that is not covered"
        found.append(Finding("ok", "coverage", f"{said}; `checkrein coverage` counts the calls"))
    return found


def _print(findings: list[Finding], wrong: bool) -> None:
    width = min(24, max(len(clean(finding.what)) for finding in findings))
    for finding in findings:
        style = STYLES[finding.verdict]
        out.styled(
            [
                Cell(f"{finding.verdict:<5}", style or CALM),
                Cell(f"{clean(finding.what, 24):<{width}}  "),
                Cell(clean(finding.said, 500), style),
            ]
        )
    out.say()
    out.say("not covered")
    for line in NOT_COVERED:
        out.styled([Cell(f"  {line}", CALM)])
    out.say()
    out.say("something is wrong" if wrong else "all is well")
