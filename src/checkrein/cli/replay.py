"""`checkrein replay FILE…`: recorded runs through the very same path as live ones."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from checkrein.cli import out, words
from checkrein.cli.clean import clean
from checkrein.cli.client import Client
from checkrein.events import codec
from checkrein.events.types import Base

AGENTS_PER_SESSION_MAX = 400
STORED_WAIT_S = 120.0
SETTLED_AFTER_S = 2.0
SETTLE_WAIT_S = 60.0
PAUSE_S_MAX = 10.0
EVENT_BYTES_MAX = 256 * 1024
REJECTED_SHOWN_MAX = 10


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--room", default="replay", show_default=True, help="The room it is put in.")
@click.option(
    "--speed", default="max", show_default=True,
    help="max, or how many times faster than it was recorded.",
)  # fmt: skip
@click.option("--again", is_flag=True, help="As new runs, even if these were replayed before.")
@out.server_options
def replay(
    files: tuple[Path, ...], room: str, speed: str, again: bool,
    url: str, token: str, as_json: bool,
) -> None:  # fmt: skip
    """Send recorded runs (JSON lines, .gz too) through the same path as live ones.

    The same file always gives the same runs: replayed twice, it is stored once.
    """
    pace = _pace(speed)
    with out.asking(url, token) as client:
        salt = room + (str(time.time_ns()) if again else "")  # noqa: TID251 # only to be new
        plan = Plan(list(files), room, salt)
        progress = _Progress(as_json or not out.is_terminal())
        with progress:
            try:
                report = asyncio.run(_replay(client, plan, pace, progress))
            except (OSError, EOFError) as error:
                out.fail(f"cannot read a recorded file: {error}")
        for where, why in plan.rejected[:REJECTED_SHOWN_MAX]:
            out.warn(f"rejected {where}: {why}")
        if as_json:
            out.say_json(report)
        else:
            _print(report)


def _pace(speed: str) -> float | None:
    if speed == "max":
        return None
    try:
        value = float(speed)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        out.fail(f"--speed takes `max` or a number over 0, not {speed!r}")
    return value


class Plan:
    """What is to be replayed, read a first time: which agents, how many events."""

    def __init__(self, files: list[Path], room: str, salt: str) -> None:
        self.files, self.room, self._salt = files, room, salt
        self.rejected: list[tuple[str, str]] = []
        self.agents: dict[str, None] = {}
        self.runs: set[str] = set()
        self.total = 0

    def survey(self, tick: Callable[[], None]) -> None:
        """Reads everything once. Raises OSError, EOFError."""
        for path in self.files:
            for event in self._read(path, self._note(path)):
                self.agents[event.agent] = None
                self.runs.add(event.run_id)
                self.total += 1
                tick()

    def events(self) -> Iterator[Base]:
        """Everything, in order; what is over the limit of an event is cut, and says so. Each run
        has a recorder of its own, as it had when it ran."""
        for path in self.files:
            numbers: dict[str, tuple[int, int]] = {}
            for event in self._read(path, None):
                which, seq = numbers.get(event.run_id, (len(numbers) + 1, 0))
                numbers[event.run_id] = (which, seq + 1)
                own = msgspec.structs.replace(
                    event, recorder=f"{event.recorder}.{which}", seq=seq + 1
                )
                yield _fitted(own)

    def _read(self, path: Path, rejected: Callable[[int, str], None] | None) -> Iterator[Base]:
        from checkrein.detect.recorded import events_of, lines_of

        return events_of(
            lines_of(path), room=self.room, environment="replay",
            recorder=self._recorder(path), salt=self._salt, rejected=rejected,
        )  # fmt: skip

    def _recorder(self, path: Path) -> str:
        """Of the content and the room, so that the same replay has the same numbers."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return "replay-" + hashlib.sha256(f"{digest} {self._salt}".encode()).hexdigest()[:16]

    def _note(self, path: Path) -> Callable[[int, str], None]:
        def note(line: int, why: str) -> None:
            self.rejected.append((f"{path}:{line}", why))

        return note


def _fitted(event: Base) -> Base:
    if len(codec.encode(event)) <= EVENT_BYTES_MAX:
        return event
    from checkrein.events.fit import fitted

    kind = type(event)
    common = {name: getattr(event, name) for name in Base.__struct_fields__}
    own = {
        name: getattr(event, name)
        for name in kind.__struct_fields__
        if name not in Base.__struct_fields__
    }
    return msgspec.convert(
        {**common, **fitted(kind, own), "type": kind.__struct_config__.tag}, kind
    )


async def _replay(
    client: Client, plan: Plan, pace: float | None, progress: "_Progress"
) -> dict[str, Any]:
    progress.stage("reading", None)
    plan.survey(progress.tick)
    begun = time.monotonic()
    sent = 0
    progress.stage("sending", plan.total)
    async with _senders(client, list(plan.agents)) as sender_of:
        clock = _Clock(pace)
        for event in plan.events():
            if clock.due_in(event) > 0:
                for sender in set(sender_of.values()):
                    await sender.flush()
                await asyncio.sleep(min(PAUSE_S_MAX, clock.due_in(event)))
            await sender_of[event.agent].add(event)
            sent += 1
            progress.tick()
        senders = set(sender_of.values())
        for sender in senders:
            await sender.flush()
        seconds = time.monotonic() - begun
        progress.stage("storing", None)
        await _until_stored(senders)
    progress.stage("judging", None)
    signals, incidents = await _settled_counts(client, plan)
    return {
        "files": len(plan.files), "runs": len(plan.runs), "events": sent,
        "rejected": len(plan.rejected), "seconds": round(seconds, 3),
        "events_per_s": round(sent / seconds, 1) if seconds else 0.0,
        "signals": signals, "incidents": incidents,
    }  # fmt: skip


class _Clock:
    """When an event is due: each run's events as far apart as recorded, divided by the speed."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._runs: dict[str, tuple[int, float]] = {}

    def due_in(self, event: Base) -> float:
        if self._speed is None:
            return 0.0
        now = time.monotonic()
        first, began = self._runs.setdefault(event.run_id, (event.ts, now))
        return (event.ts - first) / 1e9 / self._speed - (now - began)


@contextlib.asynccontextmanager
async def _senders(client: Client, agents: list[str]) -> AsyncIterator[dict[str, Any]]:
    """A sender for each agent, over as many sessions as that takes."""
    from checkrein.bus import nats, subjects
    from checkrein.bus.credentials import Credential
    from checkrein.bus.types import BusError
    from checkrein.cli.sender import Sender

    found: dict[str, Any] = {}
    async with contextlib.AsyncExitStack() as stack:
        for at in range(0, len(agents), AGENTS_PER_SESSION_MAX):
            part = agents[at : at + AGENTS_PER_SESSION_MAX]
            grant = client.post("/api/v1/sessions", {"kind": "sdk", "agents": part})
            try:
                bus = await nats.connect(
                    grant["bus_urls"],
                    Credential(grant["jwt"], grant["seed"]),
                    name="checkrein-replay",
                    inbox_prefix=subjects.inbox(grant["session"]),
                )
            except BusError as error:
                out.fail(f"cannot reach the events bus: {error}")
            stack.push_async_callback(bus.close)
            sender = Sender(bus)
            found.update(dict.fromkeys(part, sender))
        try:
            yield found
        except* BusError as group:
            out.fail(f"the events bus refused or went away: {group.exceptions[0]}")


async def _until_stored(senders: set[Any]) -> None:
    deadline = time.monotonic() + STORED_WAIT_S
    while time.monotonic() < deadline:
        waiting = 0
        for sender in senders:
            waiting += await sender.unstored()
        if not waiting:
            return
        await asyncio.sleep(0.1)
    out.warn(f"sent, but after {STORED_WAIT_S:.0f} s the store has not confirmed everything")


async def _settled_counts(client: Client, plan: Plan) -> tuple[int, int]:
    """Signals and incidents of these runs, when they have stopped becoming more."""
    deadline = time.monotonic() + SETTLE_WAIT_S
    last = (-1, -1)
    since = time.monotonic()
    while True:
        counts = _counts(client, plan)
        now = time.monotonic()
        if counts != last:
            last, since = counts, now
        if now - since >= SETTLED_AFTER_S or now > deadline:
            return counts
        await asyncio.sleep(0.25)


def _counts(client: Client, plan: Plan) -> tuple[int, int]:
    signals: set[str] = set()
    incidents: set[str] = set()
    for page in client.pages("/api/v1/events", types="signal,incident", room=plan.room, limit=5000):
        for event in page:
            if event["run_id"] in plan.runs:
                if event["type"] == "signal":
                    signals.add(event["signal_id"])
                else:
                    incidents.add(event["incident_id"])
    return len(signals), len(incidents)


def _print(report: dict[str, Any]) -> None:
    rate = words.count(round(report["events_per_s"]))
    out.say(
        f"{report['runs']} runs, {report['events']} events of {report['files']} files in "
        f"{words.duration(report['seconds'])} ({rate} events/s), {report['rejected']} rejected"
    )
    out.say(f"{report['signals']} signals, {report['incidents']} incidents")


class _Progress:
    """A bar on a terminal, nothing elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._quiet = quiet
        self._ticks = 0

    def __enter__(self) -> "_Progress":
        if not self._quiet:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, console=out.console(), transient=True)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def stage(self, name: str, total: int | None) -> None:
        self._ticks = 0
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(clean(name), total=total)

    def tick(self) -> None:
        self._ticks += 1
        if self._bar is not None and self._ticks % 250 == 0:
            self._bar.update(self._task, completed=self._ticks)
