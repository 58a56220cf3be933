"""`checkrein pact learn`: the least-privilege pact of what an agent really did."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from checkrein.cli import out
from checkrein.cli.clean import clean
from checkrein.cli.pact_history import since_s
from checkrein.cli.recorded import Files

if TYPE_CHECKING:
    from checkrein.analysis.learn import Learner


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="AGENT|FILE…")
@click.option("--agent", default="", help="Of FILEs, only this agent's runs.")
@click.option(
    "--since", callback=since_s, default="30d", help="How far back in the server's history.",
)  # fmt: skip
@click.option("--owner", default="", help="Who answers for the agent.")
@click.option(
    "-o", "--out", "out_path", type=click.Path(dir_okay=False, path_type=Path), default=None,
    help="Write the pact here, not to the terminal. A file that is there is not overwritten.",
)  # fmt: skip
@out.server_options
def learn(
    what: tuple[str, ...], agent: str, since: int, owner: str, out_path: Path | None, url: str,
    token: str, as_json: bool,
) -> None:  # fmt: skip
    """Write the pact that allows what an agent did, and no more, for somebody to review.

    Of an AGENT the server's history is read, of FILEs (JSON lines, .gz too) the recorded runs. Only
    calls that succeeded are evidence; every line says how much of it there is.
    """
    from checkrein.analysis.learn_text import text

    if out_path is not None and out_path.exists():
        out.fail(f"{out_path} is there already: name another file, or move it away")
    files = tuple(Path(one) for one in what if Path(one).is_file())
    if files and len(files) < len(what):
        missing = next(one for one in what if not Path(one).is_file())
        out.fail(f"there is no file {missing}; give either files or one agent's name")
    if not files and len(what) > 1:
        out.fail("give one agent's name, or files of recorded runs")
    learner = _of_files(files, agent, as_json) if files else _of_history(
        what[0], since, url, token, as_json
    )  # fmt: skip
    if not learner.most.runs:
        out.fail(f"no run of {agent or what[0]} was found: there is nothing to learn from")
    name = agent or (_name(learner, files[0]) if files else what[0])
    said = text(learner, name, owner=owner)
    if out_path is not None:
        try:
            out_path.write_text(said, "utf-8")
        except OSError as error:
            out.fail(f"cannot write {out_path}: {error.strerror or error}")
    used = sum(1 for tool in learner.tools.values() if tool.uses)
    if as_json:
        out.say_json({
            "agent": name, "runs": learner.most.runs, "tools": used, "pact": said,
            "out": str(out_path) if out_path is not None else "",
        })  # fmt: skip
    elif out_path is None:
        sys.stdout.write(said)
    else:
        out.say(f"{used:,} tools of {learner.most.runs:,} runs in {clean(str(out_path))}: read "
                "every line, then `checkrein pact backtest` it")  # fmt: skip


def _of_files(files: tuple[Path, ...], agent: str, quiet: bool) -> "Learner":
    from checkrein.analysis.learn import Learner

    learner = Learner(lambda name: not agent or name == agent)
    for _, event in Files(files, "learning from", quiet):
        learner.see(event)
    return learner


def _of_history(agent: str, since: int, url: str, token: str, quiet: bool) -> "Learner":
    from checkrein.analysis.learn import Learner
    from checkrein.cli.pact_history import History

    learner = Learner()
    with out.asking(url, token) as client:
        for _, event in History(client, agent, since, quiet):
            learner.see(event)
    return learner


def _name(learner: "Learner", path: Path) -> str:
    """The agent's own name where there is one agent, else the file's."""
    if len(learner.agents) == 1:
        return next(iter(learner.agents))
    return path.name.partition(".")[0]
