"""Runs from the server's history, for commands that judge them here."""

import re
import sys
import time
from collections.abc import Iterator

import click

from checkrein.cli import out
from checkrein.cli.client import Client
from checkrein.events.codec import EventError, Unknown, from_fields
from checkrein.events.types import Base

PAGE = 5_000
WANTED = (
    "run.start", "run.end", "step.start", "iteration", "status", "reasoning", "model.request",
    "model.response", "tool.arguments", "tool.invoked", "tool.returned", "scope.decision",
    "memory.write", "memory.read", "output",
)  # fmt: skip
"""What guards are told. The other types change no verdict and are not fetched."""
_SINCE = re.compile(r"(\d{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def since_s(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """A time ago (`30d`, `12h`), as seconds: a callback of options."""
    found = _SINCE.fullmatch(value)
    if found is None or not 1 <= int(found[1]) <= 100_000:
        raise click.BadParameter(f"{value!r} is not a time: write 30d, 12h, 90m or 60s")
    return int(found[1]) * _SECONDS[found[2]]


class History:
    """The events of the server's runs, oldest first, fetched page by page. `agent` empty: of all
    agents. `broken` counts events that could not be read."""

    def __init__(
        self, client: Client, agent: str, since_s: int, quiet: bool,
        types: tuple[str, ...] = WANTED,
    ) -> None:  # fmt: skip
        self._types = types
        self._client = client
        self._agent = agent
        self._since_ns = time.time_ns() - since_s * 1_000_000_000  # noqa: TID251 # a person's clock
        self._quiet = quiet or not sys.stderr.isatty()
        self.events = 0
        self.broken = 0

    def __iter__(self) -> Iterator[tuple[tuple[str, int], Base]]:
        """Raises ClientError."""
        seen_last: set[tuple[str, str, int]] = set()
        for page in self._client.pages(
            "/api/v1/events", agent=self._agent, since=self._since_ns, limit=PAGE,
            types=",".join(self._types),
        ):  # fmt: skip
            here = set()
            for fields in page:
                mark = (fields.get("agent"), fields.get("recorder"), fields.get("seq"))
                here.add(mark)
                if mark in seen_last:  # the last page may hold one again
                    continue
                try:
                    event = from_fields(fields)
                except EventError:
                    self.broken += 1
                    continue
                if isinstance(event, Unknown):
                    continue
                self.events += 1
                yield (event.run_id, event.seq), event
            seen_last = here
            if not self._quiet:
                sys.stderr.write(f"\r\x1b[Kfetched {self.events:,} events")
                sys.stderr.flush()
        if not self._quiet:
            sys.stderr.write("\r\x1b[K")
        if self.broken:
            out.warn(f"{self.broken:,} events of the history could not be read and were left out")
