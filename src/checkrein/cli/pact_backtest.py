"""`checkrein pact backtest`: what a pact would have done to runs that were recorded."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from checkrein.cli import out
from checkrein.cli.client import Client, ClientError, segment
from checkrein.cli.pact_file import read_pact
from checkrein.cli.pact_history import since_s
from checkrein.cli.recorded import Files, schemas_beside

if TYPE_CHECKING:
    from checkrein.analysis.sharing import Answer, Job
    from checkrein.policy.types import Pact

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
WORKERS_MAX = 16
_ALONE_BYTES = 1 << 20
"""Less than this is judged before other processes have started."""


@click.command()
@click.argument("pact", type=_FILE)
@click.argument("files", nargs=-1, type=_FILE)
@click.option("--agent", default="", help="Only this agent's runs.")
@click.option(
    "--since", callback=since_s, default="30d", help="How far back in the server's history.",
)  # fmt: skip
@click.option("--against", default="", help="Compare with this pact: a file, or `current`.")
@click.option("--train", multiple=True, type=_FILE, help="Runs to learn usual flows from first.")
@click.option("--tools", type=_FILE, help="The schemas of the tools' arguments.")
@click.option(
    "--workers", type=click.IntRange(1, WORKERS_MAX), default=None,
    help="Processes that judge files together (as many as there are cores).",
)  # fmt: skip
@click.option("--record", is_flag=True, help="Keep the result with the agent's pushed version.")
@click.option("--environment", default="", help="Where the version to record it with was pushed.")
@out.server_options
def backtest(
    pact: Path, files: tuple[Path, ...], agent: str, since: int, against: str,
    train: tuple[Path, ...], tools: Path | None, workers: int | None, record: bool,
    environment: str, url: str, token: str, as_json: bool,
) -> None:  # fmt: skip
    """What PACT would have done to recorded runs: what it refuses, asks, changes, and saves.

    FILES are recorded runs (JSON lines, .gz too); without any, the runs of the server's history are
    judged. Nothing is called and nothing changes: the same guards that judge live runs read what
    happened. Numbers are exact up to the first refusal of a run; what comes after is counted apart.
    """
    from checkrein.analysis.sharing import Job

    if record and not agent:
        out.fail("--record keeps the result with an agent's pact: name it with --agent")
    begun = time.monotonic()
    candidate = read_pact(pact)
    job = Job(
        paths=[str(path) for path in files], pact=candidate,
        against=_other(against, agent, url, token) if against else None,
        agents=[agent] if agent else [], schemas=schemas_beside(files, tools),
        profiles=_learned(candidate, train, as_json),
    )  # fmt: skip
    if files:
        answer = _of_files(job, files, workers, as_json)
    else:
        answer = _of_history(job, agent, since, url, token, as_json)
    seconds = time.monotonic() - begun
    from checkrein.cli.pact_backtest_shown import as_plain, show

    if as_json:
        out.say_json(as_plain(answer, seconds))
    else:
        show(answer, seconds)
    if record:
        _record(answer, agent, environment, url, token)


def _other(against: str, agent: str, url: str, token: str) -> "Pact":
    from checkrein.policy.pact import PactError, load

    if against != "current":
        path = Path(against)
        if not path.is_file():
            out.fail(f"--against takes a pact's file or `current`; there is no file {against}")
        return read_pact(path)
    if not agent:
        out.fail("--against current compares with an agent's pact: name it with --agent")
    with out.asking(url, token) as client:
        text = client.get(f"/api/v1/pacts/{segment(agent)}").get("text", "")
    try:
        return load(text, f"{agent}'s current pact")
    except PactError as error:
        out.fail(str(error))


def _learned(pact: "Pact", train: tuple[Path, ...], quiet: bool) -> "dict[str, Any]":
    if not train:
        return {}
    from checkrein.analysis.profiles import ProfileLearner

    learner = ProfileLearner(pact)
    for _, event in Files(train, "learning from", quiet):
        learner.see(event)
    return learner.profiles


def _of_files(job: "Job", files: tuple[Path, ...], workers: int | None, quiet: bool) -> "Answer":
    from checkrein.analysis.sharing import run

    if workers is None:
        size = sum(path.stat().st_size for path in files)
        workers = 1 if size < _ALONE_BYTES else min(WORKERS_MAX, len(os.sched_getaffinity(0)))
    progress = _progress(quiet)
    try:
        answer = run(job, workers, progress)
    except (OSError, EOFError) as error:
        out.fail(f"cannot read the recorded runs: {error}")
    except RuntimeError as error:  # a process was killed
        out.fail(f"the backtest broke off: {error}; with --workers 1 it needs no other process")
    progress(-1)
    for one in answer.rejected:
        out.warn(f"rejected {one.path}:{one.line}: {one.why}")
    more = answer.rejected_count - len(answer.rejected)
    if more > 0:
        out.warn(f"rejected {more:,} more lines")
    return answer


def _progress(quiet: bool) -> Callable[[int], None]:
    """Shows how many lines are done; -1 wipes it."""
    if quiet or not sys.stderr.isatty():
        return lambda lines: None

    def show(lines: int) -> None:
        text = f"\r\x1b[Kjudged {lines:,} lines" if lines >= 0 else "\r\x1b[K"
        sys.stderr.write(text)
        sys.stderr.flush()

    return show


def _of_history(job: "Job", agent: str, since: int, url: str, token: str, quiet: bool) -> "Answer":
    from checkrein.analysis.backtest import Comparing
    from checkrein.analysis.sharing import Answer, work_of
    from checkrein.cli.pact_history import History

    work = work_of(job)
    with out.asking(url, token) as client:
        history = History(client, agent, since, quiet)
        for key, event in history:
            work.see(key, event)
    answer = Answer(lines=history.events)
    if isinstance(work, Comparing):
        answer.comparison = work.done()
    else:
        answer.report = work.done()
    return answer


def _record(answer: "Answer", agent: str, environment: str, url: str, token: str) -> None:
    """Keeps the sums with the version on the server, where promotion asks for them."""
    from checkrein.analysis.reports import summary

    report = answer.report or (answer.comparison and answer.comparison.after)
    if not report:
        return
    body = {"version": report.version, "summary": summary(report)}
    if environment:
        body["environment"] = environment
    with out.asking(url, token) as client:
        _post(client, agent, body)
    out.warn(f"kept with version {report.version} of {agent}")


def _post(client: Client, agent: str, body: dict[str, Any]) -> None:
    try:
        client.post(f"/api/v1/pacts/{segment(agent)}/backtests", body)
    except ClientError as error:
        out.fail(f"the backtest was done, but not kept: {error}")
