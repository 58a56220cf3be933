"""The commands by name, loaded only when one is used, so that the terminal answers at once."""

import importlib

import click

_COMMANDS: dict[str, tuple[str, str]] = {
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
    "agents": ("checkrein.cli.agents:agents", "The agents, and how many runs each has."),
    "replay": ("checkrein.cli.replay:replay", "Send recorded runs through the same path."),
    "detect": ("checkrein.cli.detect:detect", "Guards and detectors over recorded runs."),
    "schema": ("checkrein.cli.schema:schema", "The JSON Schema of all events."),
    "doctor": ("checkrein.cli.doctor:doctor", "Is all well? What is covered, what is not?"),
    "serve": ("checkrein.cli.up:serve", "Start one role alone, for a cluster."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS:
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, 1)
            hint = f" Did you mean `{near[0]}`?" if near else " `checkrein --help` lists them."
            ctx.fail(f"no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"checkrein {version('checkrein')}")
        ctx.exit()


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
    help="Print the version.",
)  # fmt: skip
def root() -> None:
    """Watch AI agents while they run, and stop any of them.

    TARGET is agent:NAME, run:ID (the beginning of an id will do), room:NAME, task:ID or all.
    """
