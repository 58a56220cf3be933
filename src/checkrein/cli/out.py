"""How commands speak: tables on a terminal, plain lines in a pipe, JSON when asked, errors that say
what to do. Rich is loaded only when something is drawn."""

import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

import click

from checkrein.cli.clean import clean
from checkrein.cli.client import Client, ClientError
from checkrein.cli.discover import CannotFind, find

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])

ALARM, CAUTION, CALM, PLAIN, STRONG = "red", "yellow", "bright_black", "", "bold"


class Cell(NamedTuple):
    """Text that is already clean, and how it looks."""

    text: str
    style: str = PLAIN
    right: bool = False


def server_options(command: F) -> F:
    """--url, --token and --json, given on as `url`, `token`, `as_json`."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="JSON, for programs."),
        click.option("--token", default="", help="The operator's token (CHECKREIN_TOKEN)."),
        click.option("--url", default="", help="The server (CHECKREIN_URL; a local `up`)."),
    ):
        command = option(command)
    return command


@contextmanager
def asking(url: str, token: str) -> Iterator[Client]:
    """A client for the block. Its errors end the program with 2 and say what to do."""
    try:
        client = Client(find(url, token))
    except CannotFind as error:
        fail(str(error))
    try:
        yield client
        if client.incomplete:
            warn(f"incomplete: {client.incomplete}")
    except ClientError as error:
        fail(str(error))
    finally:
        client.close()


def fail(message: str, code: int = 2) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.write(f"checkrein: {clean(message)}\n")
    sys.exit(code)


def warn(message: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"checkrein: {clean(message)}\n")


def say(line: str = "") -> None:
    """One line of clean text, out at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def say_json(value: Any, indent: int | None = 2) -> None:
    """ASCII only: what an agent wrote stays data on any terminal."""
    say(json.dumps(value, indent=indent, ensure_ascii=True))


@functools.cache
def console() -> "Console":
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, soft_wrap=False)


def is_terminal() -> bool:
    return sys.stdout.isatty()


def styled(cells: Sequence[Cell]) -> None:
    """One line, coloured on a terminal."""
    if not is_terminal():
        say("".join(cell.text for cell in cells).rstrip())
        return
    from rich.text import Text

    line = Text()
    for cell in cells:
        line.append(cell.text, cell.style or None)
    console().print(line, no_wrap=True, overflow="ellipsis", crop=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """On a terminal a light table, cut to its width; in a pipe aligned columns, never cut."""
    if is_terminal():
        console().print(rich_table(heads, rows))
        return
    for line in plain_table(heads, rows):
        say(line)


def rich_table(heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style=CALM)
    for at, head in enumerate(heads):
        right = any(row[at].right for row in rows)
        drawn.add_column(head, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*(Text(cell.text, style=cell.style) for cell in row))
    return drawn


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    widths = [
        max(len(head), *(len(row[at].text) for row in rows)) if rows else len(head)
        for at, head in enumerate(heads)
    ]
    lines = ["  ".join(head.ljust(width) for head, width in zip(heads, widths, strict=True))]
    for row in rows:
        parts = [
            cell.text.rjust(width) if cell.right else cell.text.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        lines.append("  ".join(parts))
    return [line.rstrip() for line in lines]
