"""`checkrein demo`: starts the agents against a running server and tells what becomes of them."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.text import Text

from checkrein.server.demo.cast import CAST, CATCH_SECONDS_MAX, VISITORS, Part
from checkrein.server.demo.plot import Line, Plot, Tone, clean
from checkrein.server.demo.stranger import introduce
from checkrein.server.demo.troupe import Troupe
from checkrein.world import REAL, World

AGAIN_SECONDS = 0.5
AFTERMATH_SECONDS = 15.0
STREAM_PATH = "/api/v1/stream"
_STYLES: dict[Tone, str] = {
    "calm": "bright_black", "plain": "", "warn": "yellow", "breach": "red", "good": "green bold",
}  # fmt: skip

Tell = Callable[[Line], None]
Introduced = Callable[[Part], Awaitable[str]]


async def play(
    url: str,
    token: str,
    data: Path,
    exit_when_done: bool,
    as_json: bool = False,
    *,
    gateway: str = "",
    cast: Sequence[Part] = CAST,
    world: World = REAL,
    seconds_max: float = CATCH_SECONDS_MAX,
) -> bool:
    """Plays the demo against the server at `url`, with the agents' models behind `gateway`. True if
    every agent was caught (or was rightly left alone) within `seconds_max`.

    With `exit_when_done` it returns then; else it goes on telling, with one agent at work for the
    visitor, until it is cancelled. Every process it started has ended when it returns or raises.
    """
    folder = data / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    plot = Plot(cast, world.now_ns() // 1_000_000)
    tell = _json_teller() if as_json else _teller(Console(highlight=False))
    troupe = Troupe(world, url, token, gateway, folder)
    try:
        async with asyncio.TaskGroup() as group:
            listening, done = asyncio.Event(), asyncio.Event()
            clock = _Clock(world)
            follower = group.create_task(_follow(url, token, plot, clock, tell, listening, done))
            # Nobody acts before somebody listens.
            await listening.wait()
            clock.begin()
            actors = group.create_task(_act(troupe, plot, done, partial(introduce, url, token)))
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds_max):
                    await done.wait()
            actors.cancel()
            for agent in plot.missing:
                plot.spoiled.setdefault(agent, _unseen(troupe.last_words(agent)))
            _sum_up(plot, clock.now_s(), as_json)
            if not exit_when_done:
                if not as_json:
                    _invite(folder, url)
                troupe.start(VISITORS)
                await asyncio.Event().wait()
            follower.cancel()
    finally:
        # In this thread, so that no second cancellation leaves somebody behind.
        troupe.stop()
    return plot.complete


class _Clock:
    """Seconds since the play began."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.begin()

    def begin(self) -> None:
        self._began_ns = self._world.monotonic_ns()

    def now_s(self) -> float:
        return (self._world.monotonic_ns() - self._began_ns) / 1e9


async def _act(troupe: Troupe, plot: Plot, done: asyncio.Event, introduced: Introduced) -> None:
    """Starts the agents one after the other. When all have ended, nothing more is to be expected
    but what is still on its way."""
    at_s = 0.0
    for part in sorted(plot.cast.values(), key=lambda part: part.begins_s):
        if part.lacks:
            plot.spoiled[part.agent] = f"it cannot start without {', '.join(part.lacks)}"
            continue
        await asyncio.sleep(max(0.0, part.begins_s - at_s))
        at_s = max(at_s, part.begins_s)
        try:
            troupe.start(part, await introduced(part) if part.stranger else "")
        except httpx.HTTPError as error:
            plot.spoiled[part.agent] = f"it could not be given a key: {error}"
    while not troupe.over:  # noqa: ASYNC110 # processes wake nobody when they end
        await asyncio.sleep(AGAIN_SECONDS)
    await asyncio.sleep(AFTERMATH_SECONDS)
    done.set()


def _unseen(last_words: str) -> str:
    return "nothing was seen" + (f"; it last said: {clean(last_words)}" if last_words else "")


async def _follow(
    url: str,
    token: str,
    plot: Plot,
    clock: _Clock,
    tell: Tell,
    listening: asyncio.Event,
    done: asyncio.Event,
) -> None:
    """Follows the live stream for good; after a break it goes on where it was."""
    last_id = ""
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    async with httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(10, read=60)) as client:
        while True:
            resumed = {"Last-Event-ID": last_id} if last_id else {}
            try:
                async with client.stream("GET", STREAM_PATH, headers=headers | resumed) as answer:
                    answer.raise_for_status()
                    listening.set()
                    async for event_id, event in events_of(answer.aiter_lines()):
                        last_id = event_id or last_id
                        for line in plot.hear(event, clock.now_s()):
                            tell(line)
                        if plot.complete:
                            done.set()
            except httpx.HTTPStatusError as error:
                if error.response.status_code in (401, 403, 404):
                    raise
            except httpx.TransportError:
                pass  # the api role may be starting again; what was missed is asked for by its id
            await asyncio.sleep(AGAIN_SECONDS)


async def events_of(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The events of a server-sent stream with their ids. Named messages, which are the server's own
    notices, and what is not a JSON object are passed over."""
    event_id, name, data = "", "", list[str]()
    async for line in lines:
        if line:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            match field:
                case "id":
                    event_id = value
                case "event":
                    name = value
                case "data":
                    data.append(value)
                case _:
                    pass
            continue
        if data and not name:
            with suppress(ValueError):
                event = json.loads("\n".join(data))
                if isinstance(event, dict):
                    yield event_id, event
        name, data = "", []


def _teller(console: Console) -> Tell:
    def tell(line: Line) -> None:
        mark = "✓" if line.what == "caught" else " "
        text = Text(f"{line.at_s:6.1f} s {mark} ", style="bright_black")
        text.append(f"{line.agent:<11} ", style="bold")
        if line.by:
            text.append(f"{line.by}: ", style="cyan")
        text.append(line.text, style=_STYLES[line.tone])
        console.print(text, soft_wrap=True)

    return tell


def _json_teller() -> Tell:
    def tell(line: Line) -> None:
        _say_json({
            "at_s": round(line.at_s, 3), "agent": line.agent, "what": line.what, "by": line.by,
            "text": line.text,
        })  # fmt: skip

    return tell


def _say_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _sum_up(plot: Plot, at_s: float, as_json: bool) -> None:
    if as_json:
        caught = {
            catch.agent: {"at_s": round(catch.at_s, 3), "by": catch.by, "why": catch.why}
            for catch in plot.catches.values()
        }
        missed = {agent: plot.spoiled[agent] for agent in plot.missing}
        _say_json({"caught": caught, "missed": missed, "seconds": round(at_s, 3)})
        return
    console = Console(highlight=False)
    console.print()
    for part in plot.cast.values():
        catch = plot.catches.get(part.agent)
        if catch is None:
            why = plot.spoiled[part.agent]
            line = Text(f"  ✗ {part.agent:<11} {part.does}: not caught: {why}", style="red")
        else:
            how = f"caught by {catch.by}" if catch.by else catch.why
            line = Text(f"  ✓ {part.agent:<11} {part.does}: {how}, at {catch.at_s:.1f} s")
        console.print(line, soft_wrap=True)


def _invite(folder: Path, url: str) -> None:
    console = Console(highlight=False)
    console.print(f"\nWhat the agents printed stands in {folder}. Now try, in another terminal:\n")
    for command in (
        "checkrein ps",
        "checkrein watch --agent librarian",
        "checkrein incidents",
        'checkrein pause agent:librarian --reason "let me look"',
        'checkrein resume agent:librarian --reason "go on"',
        'checkrein halt agent:librarian --reason "that is enough"',
        'checkrein halt room:demo --reason "good night"',
    ):
        console.print(f"  {command}", style="bold", soft_wrap=True)
    console.print(f"\nThe server is at {url}. Ctrl-C ends everything.\n")
