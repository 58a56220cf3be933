"""`checkrein hook`, as the terminal lists it. The terminal's entry point goes to the hook itself
before any of this is imported."""

import click


@click.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True},
)  # fmt: skip
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def hook(arguments: tuple[str, ...]) -> None:
    """Answer a coding agent's hooks, and install them."""
    from checkrein.cli.hook.entry import main

    raise SystemExit(main(arguments))
