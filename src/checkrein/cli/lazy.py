"""A group whose commands are files of their own, loaded only when one is used."""

import importlib
from typing import ClassVar

import click

Commands = dict[str, tuple[str, str]]
"""name: (`module:object`, what it does in a line)."""


class LazyGroup(click.Group):
    """Make a subclass with its `lazy` commands, and give that to `click.group(cls=…)`."""

    lazy: ClassVar[Commands] = {}
    help_command = "checkrein --help"

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return None
        module, _, name = self.lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.lazy.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.lazy:
            import difflib

            near = difflib.get_close_matches(args[0], self.lazy, 1)
            hint = f" Did you mean `{near[0]}`?" if near else f" `{self.help_command}` lists them."
            ctx.fail(f"no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)
