"""`checkrein pact`: what agents have declared they may do, and the life of that."""

from typing import ClassVar

import click

from checkrein.cli.lazy import Commands, LazyGroup

COMMANDS: Commands = {
    "check": (
        "checkrein.cli.pact_check:check",
        "Read pact files, and say what is wrong with them.",
    ),
    "push": ("checkrein.cli.pact_push:push", "Put a pact in force, in shadow, or down as a draft."),
    "diff": ("checkrein.cli.pact_diff:diff", "What becomes allowed or refused between two pacts."),
    "backtest": (
        "checkrein.cli.pact_backtest:backtest",
        "What a pact would have done to recorded runs.",
    ),
    "learn": (
        "checkrein.cli.pact_learn:learn",
        "Write the pact that allows what an agent did, and no more.",
    ),
    "promote": ("checkrein.cli.pact_promote:promote", "Move a version on, with its evidence."),
    "list": ("checkrein.cli.pact_list:list_pacts", "Which versions are in force, and where."),
    "show": ("checkrein.cli.pact_show:show", "A pact's text."),
    "log": ("checkrein.cli.pact_show:log", "Who did what to an agent's pacts."),
}


class _Pact(LazyGroup):
    lazy: ClassVar[Commands] = COMMANDS
    help_command = "checkrein pact --help"


@click.group(cls=_Pact)
def pact() -> None:
    """What agents have declared they may do, and the life of that.

    A version is a draft, in shadow (it decides and records, and lets pass) or enforced. From
    development it goes to staging and on to production by promotion.
    """
