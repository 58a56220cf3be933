"""`checkrein up` and `checkrein serve`: the server from the terminal."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from checkrein.cli import out

if TYPE_CHECKING:
    from checkrein.server.options import Options

F = TypeVar("F", bound=Callable[..., Any])
ROLES = ("api", "archive", "control", "gateway", "watch")


def places(command: F) -> F:
    """The options that `up` and `serve` share."""
    for option in (
        click.option("--config", type=click.Path(path_type=Path, dir_okay=False), default=None,
                     help="Settings; default: checkrein.toml beside the data folder."),
        click.option("--store", default="", help="ClickHouse URL; default: chDB in DATA/store."),
        click.option("--control-bus", default="", help="NATS URLs of the control bus."),
        click.option("--bus", default="", help="NATS URLs of the events bus."),
        click.option("--gateway", default="",
                     help="HOST:PORT of the gateway; default: the port after --http."),
        click.option("--http", default="127.0.0.1:4400", show_default=True,
                     help="HOST:PORT to listen on."),
        click.option("--data", type=click.Path(path_type=Path, file_okay=False),
                     default=Path("checkrein-data"), show_default=True, help="The data folder."),
    ):  # fmt: skip
        command = option(command)
    return command


def _options(given: dict[str, Any]) -> "Options":
    from checkrein.server.options import Options

    return Options(**given)


@click.command()
@places
@click.option("--json", "as_json", is_flag=True, help="News as JSON, one object a line.")
def up(as_json: bool, **given: Any) -> None:
    """Start everything on this machine, in the foreground; stop it with Ctrl-C.

    Ready when GET /healthz answers 200. A second `up` on the same data folder is refused.
    """
    from checkrein.server.options import OptionsError
    from checkrein.server.up import main

    def announce(line: str) -> None:
        if as_json:
            out.say_json({"news": line}, indent=None)
        else:
            out.say(line)

    try:
        sys.exit(main(_options(given), announce))
    except OptionsError as error:
        out.fail(str(error))


@click.command()
@click.argument("role", type=click.Choice(ROLES))
@places
def serve(role: str, **given: Any) -> None:
    """Start one role alone, as `up` does and a cluster does one by one."""
    from checkrein.server.options import OptionsError
    from checkrein.server.serve import main

    try:
        sys.exit(main(role, _options(given)))
    except OptionsError as error:
        out.fail(str(error))
