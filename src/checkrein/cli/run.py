"""`checkrein run [options] -- COMMAND…`: runs any program supervised and instrumented."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from checkrein.supervise import command

USAGE_ERROR = 2
AGENT_BYTES_MAX = 200


def main(argv: Sequence[str]) -> int:
    """Runs `argv` (what follows `run`) and returns the program's exit code, 128 + n when signal n
    ended it; 2 when the command is not understood. Prints nothing on standard output."""
    parser = _parser()
    given = parser.parse_args(list(argv))
    program = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not program:
        parser.error("no program is named: checkrein run -- PROGRAM [ARGUMENT…]")
    logging.basicConfig(
        level=logging.INFO if given.verbose else logging.WARNING,
        format="checkrein: %(message)s",
        stream=sys.stderr,
    )
    environ = os.environ
    agent = given.agent or environ.get("CHECKREIN_AGENT", "")
    pact_path = given.pact or environ.get("CHECKREIN_PACT", "")
    pact, lost_contact = "", "continue"
    if pact_path:
        try:
            pact, lost_contact = _pact(pact_path)
        except (OSError, ValueError) as error:
            sys.stderr.write(f"checkrein: {error}\n")
            return USAGE_ERROR
    options = command.Options(
        argv=program,
        agent=(agent or _name_of(program))[:AGENT_BYTES_MAX],
        named=bool(agent),
        room=given.room or environ.get("CHECKREIN_ROOM", "") or "default",
        environment=given.environment or environ.get("CHECKREIN_ENVIRONMENT", "") or "development",
        pact=pact,
        pact_path=pact_path,
        lost_contact=lost_contact,
        url=given.url,
        verbose=given.verbose,
        method=given.method,
    )
    try:
        return command.run(options)
    except OSError as error:
        sys.stderr.write(f"checkrein: cannot supervise: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="checkrein run",
        description="Runs any program supervised and instrumented, without a change to it.",
    )
    parser.add_argument("--agent", default="", help="the agent's name (default: the program's)")
    parser.add_argument("--room", default="", help="the room it works in")
    parser.add_argument("--environment", default="", help="development, staging or production")
    parser.add_argument("--pact", default="", metavar="FILE", help="what it has declared it may do")
    parser.add_argument(
        "--url", default="", help="the server (default: CHECKREIN_URL, or a local `up`)"
    )
    parser.add_argument("--verbose", action="store_true", help="say on standard error what is done")
    parser.add_argument(
        "--method", default="strongest", choices=("strongest", "cgroup", "subreaper"),
        help="how the process tree is held",
    )  # fmt: skip
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    return parser


def _pact(path: str) -> tuple[str, str]:
    """The text and what it says of lost contact. Raises OSError or ValueError with the place."""
    from checkrein.policy.pact import load

    text = Path(path).read_text(encoding="utf-8")
    return text, load(text, path).lost_contact


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
