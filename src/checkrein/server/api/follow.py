"""Following the stream of events: into the tail, the summaries and the hub."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from typing import cast

from checkrein.bus import subjects
from checkrein.bus.messages import MessageError, Stored, decode
from checkrein.bus.types import Bus, Message
from checkrein.events.envelope import EnvelopeError, unpack
from checkrein.server.api.history import History, HistoryError
from checkrein.server.api.hub import Hub, Watcher
from checkrein.server.api.live import Live
from checkrein.server.api.metrics import Metrics
from checkrein.server.api.recent import Recent
from checkrein.server.api.tail import Seen, Tail

BACKLOG_MESSAGES_MAX = 2_000
"""How far back of the stream's end a starting api role reads."""
BUSY_NS_MAX = 2_000_000
"""So long the stream may keep the loop from requests, and from commands among them."""
SLICE_EVENTS = 25
ROUNDS_GIVEN = 8
"""How many rounds of the loop requests then get: a command needs about ten to be passed on."""

_log = logging.getLogger(__name__)


class Follower:
    """Reads EVENTS from shortly before its end and never stops; what the store confirms, it lets
    go of."""

    def __init__(
        self, bus: Bus, tail: Tail, live: Live, recent: Recent, hub: Hub, history: History,
        metrics: Metrics, monotonic_ns: Callable[[], int],
    ) -> None:  # fmt: skip
        self._bus, self._tail, self._live, self._hub = bus, tail, live, hub
        self._recent, self._history, self._metrics = recent, history, metrics
        self._monotonic_ns = monotonic_ns
        self._since_ns = 0
        self._reading: set[asyncio.Event] = set()
        self.caught_up = False

    async def run(self) -> None:
        """Works until it is cancelled. Raises BusError when the bus is gone for good."""
        await self._bus.stream(subjects.EVENTS)
        await self._bus.subscribe("stored.*.*", self._take_stored)
        end = await self._bus.last_position(subjects.EVENTS.name)
        start = max(0, end - BACKLOG_MESSAGES_MAX)
        self._recent.begin()
        self._tail.position = self._hub.position = start
        self._tail.known_stored(await self._marks())
        self._end_of_backlog(end)
        reader = _reader(self._bus, start)
        async with contextlib.aclosing(reader):
            async for message in reader:
                await self._take(message)
                self._end_of_backlog(end)

    async def _take(self, message: Message) -> None:
        """One message, in slices between which requests get their turn: a burst's may hold
        thousands of events."""
        found = self.read(message)
        self._metrics.count("checkrein_api_events_total", len(found))
        for at in range(0, max(1, len(found)), SLICE_EVENTS):
            part = found[at : at + SLICE_EVENTS]
            self._live.feed(part)
            self._recent.feed(part)
            self._hub.publish(message.position, part)
            if self._monotonic_ns() - self._since_ns > BUSY_NS_MAX:
                for _ in range(ROUNDS_GIVEN):
                    await asyncio.sleep(0)
                self._since_ns = self._monotonic_ns()

    def read(self, message: Message) -> list[Seen]:
        """What is new in one message; nothing of one that is not an envelope (the archive keeps it
        in the dead-letter stream, with the reason)."""
        try:
            envelope = unpack(message.data)
            agent = subjects.agent_of(message.subject)
        except (EnvelopeError, ValueError, IndexError):
            self._metrics.count("checkrein_api_messages_unreadable_total")
            return []
        if not subjects.may_say(message.subject, envelope.recorder):
            return []  # forged: archive refuses it and says so
        return self._tail.take(message.position, agent, envelope)

    def _end_of_backlog(self, end: int) -> None:
        if not self.caught_up and self._tail.position >= end:
            self.caught_up = True
            self._tail.forget_marks()

    async def _marks(self) -> list[tuple[str, str, int, int]]:
        try:
            rows = await self._history.rows("marks")
            return [(r["agent"], r["recorder"], r["partition"], r["seq"]) for r in rows]
        except (HistoryError, KeyError) as error:
            _log.info("starting without the store's marks: %s", error)
            return []

    async def _take_stored(self, message: Message) -> None:
        try:
            agent = subjects.agent_of(message.subject)
            stored = decode(message.data, Stored)
        except (MessageError, ValueError, IndexError):
            self._metrics.count("checkrein_api_messages_unreadable_total")
            return
        self._tail.stored(agent, stored.recorder, stored.upto)

    async def catch_up(self, watcher: Watcher, after: tuple[int, int]) -> None:
        """Gives `watcher` what came after the place it knows, then lets it join the live tail,
        without a gap or a repeat. Tells it what is no longer kept. Raises BusError."""
        position = after[0]
        if position > await self._bus.last_position(subjects.EVENTS.name):
            watcher.past(0)
            watcher.notice("skipped", {"messages": None, "why": "no such place in the stream"})
            self._hub.join(watcher)
        elif position > self._hub.position:
            self._hub.join(watcher)
        else:
            await self._read_up(watcher, position)

    async def _read_up(self, watcher: Watcher, position: int) -> None:
        scratch = Tail(events_max=0)  # keeps nothing: only tells what belongs and what repeats
        expected = max(position, 1)
        reader = _reader(self._bus, expected - 1)
        async with contextlib.aclosing(reader):
            async for message in reader:
                if message.position > expected:
                    missing = message.position - expected
                    watcher.notice("skipped", {"messages": missing, "why": "no longer kept"})
                expected = message.position + 1
                with contextlib.suppress(EnvelopeError, ValueError, IndexError):
                    agent = subjects.agent_of(message.subject)
                    envelope = unpack(message.data)
                    if subjects.may_say(message.subject, envelope.recorder):
                        await watcher.give(scratch.take(message.position, agent, envelope))
                watcher.past(message.position)
                if watcher.closed:
                    return
                if message.position >= self._hub.position:
                    self._hub.join(watcher)  # no await since the check: nothing came in between
                    return


def _reader(bus: Bus, after: int) -> AsyncGenerator[Message, None]:
    """The bus's endless reading, as the generator it is, so that it can be closed."""
    reading = bus.read(subjects.EVENTS.name, after=max(0, after))
    return cast("AsyncGenerator[Message, None]", reading)
