"""`checkrein run [options] -- COMMAND…`: runs any program supervised and instrumented."""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from checkrein.supervise import command
from checkrein.supervise.confine.keeping import Level, Wish
from checkrein.supervise.confine.plan import CannotPlan
from checkrein.supervise.launch import EXIT_NOT_CONFINED
from checkrein.supervise.options import GatewayWanted, Options
from checkrein.supervise.session import NAME_CHARS_MAX, can_name_an_agent

USAGE_ERROR = 2
_GATEWAY_WANTED: dict[bool | None, GatewayWanted] = {
    None: "if there is one", True: "always", False: "never",
}  # fmt: skip


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    short_help="Run any program supervised and instrumented.",
)
@click.option("--agent", default="", help="The agent's name (default: the program's).")
@click.option("--room", default="", help="The room it works in.")
@click.option("--environment", default="", help="development, staging or production.")
@click.option("--pact", default="", metavar="FILE", help="What it has declared it may do.")
@click.option("--url", default="", help="The server (default: CHECKREIN_URL, or a local `up`).")
@click.option("--verbose", is_flag=True, help="Say on standard error what is done.")
@click.option(
    "--method", default="strongest", type=click.Choice(["strongest", "cgroup", "subreaper"]),
    help="How the process tree is held.",
)  # fmt: skip
@click.option(
    "--gateway/--no-gateway", "gateway", default=None,
    help="Model calls only through the gateway, whatever base URL is set / as they are set "
    "(default: through it if there is one, unless a base URL is set).",
)  # fmt: skip
@click.option(
    "--confine",
    is_flag=False,
    flag_value="auto",
    default=None,
    type=click.Choice(["auto", "L2", "L3"]),
    help="Close the ways around the gateway: L2 files, signals and connections by the kernel's "
    "rules, L3 no network at all besides; auto (the default of --confine) the strongest that this "
    "machine can.",
)
@click.option(
    "--confine-read",
    multiple=True,
    metavar="PATH",
    help="A path that the confined program may read, too.",
)
@click.option(
    "--confine-write", multiple=True, metavar="PATH",
    help="A path that the confined program may write, besides its working folder.",
)  # fmt: skip
@click.argument("program", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND…")
def run(
    agent: str, room: str, environment: str, pact: str, url: str, verbose: bool, method: str,
    gateway: bool | None, confine: Level | None, confine_read: tuple[str, ...],
    confine_write: tuple[str, ...], program: tuple[str, ...],
) -> None:  # fmt: skip
    """Runs any program supervised and instrumented, without a change to it.

    The exit code is the program's, 128 + n when signal n ended it. Nothing is printed on standard
    output.
    """
    if not program:
        raise click.UsageError("no program is named: checkrein run -- PROGRAM [ARGUMENT…]")
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="checkrein: %(message)s",
        stream=sys.stderr,
    )
    options = _options(agent, room, environment, pact, program)
    if options is None:
        sys.exit(USAGE_ERROR)
    wanted = _GATEWAY_WANTED[gateway]
    wish = Wish(level=confine or "", read=confine_read, write=confine_write)
    sys.exit(_run(replace(
        options, url=url, verbose=verbose, method=method, gateway=wanted, confine=wish
    )))  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Runs `argv` (what follows `run`) and returns the exit code."""
    try:
        run.main(args=list(argv), prog_name="checkrein run")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0


def _options(
    agent: str, room: str, environment: str, pact_path: str, program: Sequence[str]
) -> Options | None:
    """Options over the environment over defaults. None: the name or the pact is
    none, which has been said."""
    environ = os.environ
    agent = agent or environ.get("CHECKREIN_AGENT", "")
    if agent and not can_name_an_agent(agent):
        sys.stderr.write(
            f"checkrein: {agent[:80]!r} cannot name an agent: names have 1 to {NAME_CHARS_MAX} "
            "printable characters\n"
        )
        return None
    pact_path = pact_path or environ.get("CHECKREIN_PACT", "")
    pact, lost_contact = "", "continue"
    if pact_path:
        try:
            pact, lost_contact = _pact(pact_path)
        except (OSError, ValueError) as error:
            sys.stderr.write(f"checkrein: {error}\n")
            return None
    return Options(
        argv=program,
        agent=agent or _printable(_name_of(program)),
        named=bool(agent),
        room=room or environ.get("CHECKREIN_ROOM", "") or "default",
        environment=environment or environ.get("CHECKREIN_ENVIRONMENT", "") or "development",
        pact=pact,
        pact_path=pact_path,
        lost_contact=lost_contact,
    )


def _run(options: Options) -> int:
    try:
        return command.run(options)
    except CannotPlan as error:
        sys.stderr.write(f"checkrein: not started: {error}\n")
        return EXIT_NOT_CONFINED
    except OSError as error:
        sys.stderr.write(f"checkrein: cannot supervise: {error}\n")
        return 1


def _pact(path: str) -> tuple[str, str]:
    """The text and what it says of lost contact. Raises OSError or ValueError with the place."""
    from checkrein.policy.pact import load
    from checkrein.sdk.config import pact_text

    text = pact_text(path)
    return text, load(text, path).lost_contact


def _printable(name: str) -> str:
    kept = "".join(char if char.isprintable() else "?" for char in name)
    return kept[:NAME_CHARS_MAX] or "agent"


def _name_of(program: Sequence[str]) -> str:
    """`python path/to/bot.py` is `bot`; anything else is called like its program."""
    first = Path(program[0]).name
    if first.startswith("python"):
        for argument in program[1:]:
            if argument.endswith(".py"):
                return Path(argument).stem
            if not argument.startswith("-"):
                break
        if "-m" in program[1:-1]:
            return program[program.index("-m") + 1]
    return Path(first).stem or "agent"
