"""The commands by name, loaded only when one is used, so that the terminal answers at once."""

from typing import ClassVar

import click

from checkrein.cli.lazy import Commands, LazyGroup

_COMMANDS: Commands = {
    "up": ("checkrein.cli.up:up", "Start everything, in the foreground."),
    "demo": ("checkrein.cli.demo:demo", "Start everything, with real agents that misbehave."),
    "run": ("checkrein.cli.run:run", "Run any program supervised and instrumented."),
    "ps": ("checkrein.cli.ps:ps", "The status board: what runs, and whether it can be halted."),
    "watch": ("checkrein.cli.watch:watch", "Follow events live, with filters."),
    "show": ("checkrein.cli.show:show", "One run's ordered trace."),
    "incidents": ("checkrein.cli.incidents:incidents", "The queue of what needs looking at."),
    "pause": ("checkrein.cli.order:pause", "Let nothing new begin; hold until resumed."),
    "resume": ("checkrein.cli.order:resume", "Let a paused run go on."),
    "halt": ("checkrein.cli.order:halt", "Stop it, and see proof that it stopped."),
    "contain": ("checkrein.cli.order:contain", "Shut an agent out at every gateway."),
    "release": ("checkrein.cli.order:release", "Let a contained agent in again."),
    "approvals": ("checkrein.cli.approvals:approvals", "What waits for somebody's answer."),
    "approve": ("checkrein.cli.approvals:approve", "Let a call be made that waits for an answer."),
    "deny": ("checkrein.cli.approvals:deny", "Refuse a call that waits for an answer."),
    "escalations": ("checkrein.cli.escalations:escalations", "What somebody must take note of."),
    "acknowledge": ("checkrein.cli.escalations:acknowledge", "Take note of an escalation."),
    "agent": ("checkrein.cli.agent:agent", "Agents by name: add, list, keys, revoke."),
    "mcp": ("checkrein.cli.mcp:mcp", "A tool server by stdio, through the gateway."),
    "mcp-tools": ("checkrein.cli.mcp_tools:mcp_tools", "Tools of servers, and changes to them."),
    "agents": ("checkrein.cli.agents:agents", "The agents, and how many runs each has."),
    "coverage": ("checkrein.cli.coverage:coverage", "Who sees which calls of each agent."),
    "pact": ("checkrein.cli.pact:pact", "Pacts: check, push, compare, promote, list."),
    "token": ("checkrein.cli.token:token", "Who else may ask this server, and for what."),
    "replay": ("checkrein.cli.replay:replay", "Send recorded runs through the same path."),
    "detect": ("checkrein.cli.detect:detect", "Guards and detectors over recorded runs."),
    "hook": ("checkrein.cli.hook.command:hook", "Answer a coding agent's hooks; install them."),
    "schema": ("checkrein.cli.schema:schema", "The JSON Schema of all events."),
    "doctor": ("checkrein.cli.doctor:doctor", "Is all well? What is covered, what is not?"),
    "serve": ("checkrein.cli.up:serve", "Start one role alone, for a cluster."),
}


class _Root(LazyGroup):
    lazy: ClassVar[Commands] = _COMMANDS


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"checkrein {version('checkrein')}")
        ctx.exit()


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
    help="Print the version.",
)  # fmt: skip
def root() -> None:
    """Watch AI agents while they run, and stop any of them.

    TARGET is agent:NAME, run:ID (the beginning of an id will do), room:NAME, task:ID or all.
    """
