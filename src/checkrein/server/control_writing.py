"""What control writes behind its back: buckets, audit records, events, notices.

Each writer takes without waiting (`add`) and writes from a task of its own (`work`), again and
again until it is stored. Bounded: beyond `waiting_max` the oldest is dropped, counted and said.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import msgspec

from checkrein.bus import subjects
from checkrein.bus.messages import LiveChanged, encode
from checkrein.bus.types import Bucket, Bus, BusError, Refused
from checkrein.control.core import Control
from checkrein.control.types import Audit, Changed, Keep, Reply, Send
from checkrein.events import codec
from checkrein.events.envelope import (
    CHAIN_START,
    Envelope,
    advance,
    lane_message_id,
    pack,
    partition_of,
)
from checkrein.events.types import Base
from checkrein.server.key_writer import KeyWriter
from checkrein.world import World

_log = logging.getLogger(__name__)

WAITING_MAX = 50_000
AFTER_MAX = 1_000
ENVELOPE_EVENTS_MAX = 500
ENVELOPE_BYTES_MAX = 900_000
NOTICE_EVERY_S = 0.05
_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)


class Saver:
    """Writes what `Control.saved` says now for keys that changed: runs, or commands."""

    def __init__(
        self, bucket: Bucket, control: Control, kind: str, world: World, gather_s: float, tasks: int
    ) -> None:
        self._bucket, self._control, self._kind = bucket, control, kind
        self._writer = KeyWriter(
            self._write, f"control's {kind}", world, _PAUSES_S, gather_s=gather_s, tasks=tasks
        )

    @property
    def waiting(self) -> int:
        return self._writer.waiting

    def add(self, key: str) -> None:
        self._writer.add(key)

    def works(self) -> list[Coroutine[Any, Any, None]]:
        return self._writer.works()

    async def _write(self, key: str) -> None:
        value = self._control.saved(self._kind, key)
        if value is None:
            await self._bucket.delete(key)
        else:
            await self._bucket.put(key, value)


class Keeper:
    """Writes values that somebody waits for: what is `after` goes out when the value is durable.
    One at a time and in order, so that what was kept before is durable by then, too."""

    def __init__(
        self, buckets: dict[str, Bucket], control: Control, world: World,
        send: Callable[[Send | Reply], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._buckets, self._control, self._world, self._send = buckets, control, world, send
        self._keys: OrderedDict[tuple[str, str], list[Send | Reply]] = OrderedDict()
        self._news = asyncio.Event()
        self._writing = 0

    @property
    def waiting(self) -> int:
        return len(self._keys) + self._writing

    def add(self, keep: Keep) -> None:
        """Bounded by the keys there are; of what is to go out, the latest AFTER_MAX."""
        key = (keep.kind, keep.key)
        after = self._keys.setdefault(key, [])
        self._keys.move_to_end(key)
        after += keep.after
        del after[:-AFTER_MAX]
        self._news.set()

    async def work(self) -> None:
        while True:
            while self._keys:
                (kind, key), after = self._keys.popitem(last=False)
                self._writing = 1
                value = self._control.saved(kind, key)
                await _until_done(kind, self._world, partial(self._write, kind, key, value))
                for message in after:
                    await self._send(message)
                self._writing = 0
            self._news.clear()
            await self._news.wait()

    async def _write(self, kind: str, key: str, value: bytes | None) -> None:
        if value is None:
            await self._buckets[kind].delete(key)
        else:
            await self._buckets[kind].put(key, value)


class Auditor:
    """Appends audit records to the stream AUDIT, in order, each stored once by its id."""

    def __init__(self, bus: Bus, world: World) -> None:
        self._bus, self._world = bus, world
        self._records: deque[Audit] = deque()
        self._news = asyncio.Event()
        self.dropped = 0

    @property
    def waiting(self) -> int:
        return len(self._records)

    def add(self, record: Audit) -> None:
        if len(self._records) >= WAITING_MAX:
            self._records.popleft()
            self.dropped += 1
            _log.error("control dropped audit record number %d: the bus is away", self.dropped)
        self._records.append(record)
        self._news.set()

    async def work(self) -> None:
        await _until_done("the stream AUDIT", self._world, lambda: self._bus.stream(subjects.AUDIT))
        while True:
            while self._records:
                record = self._records[0]
                await _until_done("an audit record", self._world, partial(self._append, record))
                if self._records and self._records[0] is record:
                    self._records.popleft()
            self._news.clear()
            await self._news.wait()

    async def _append(self, record: Audit) -> None:
        data = encode(record.record)
        await self._bus.append(f"audit.{record.kind}", data, message_id=record.record_id)


class Teller:
    """Publishes events in envelopes to the events bus. An envelope that was not confirmed is sent
    again as it was, so it is stored once."""

    def __init__(self, bus: Bus, world: World) -> None:
        self._bus, self._world = bus, world
        self._events: deque[Base] = deque()
        self._news = asyncio.Event()
        self._sending = 0
        self.dropped = 0

    @property
    def waiting(self) -> int:
        return len(self._events) + self._sending

    def add(self, event: Base) -> None:
        if len(self._events) >= WAITING_MAX:
            self._events.popleft()
            self.dropped += 1
            _log.error("control dropped event number %d: the events bus is away", self.dropped)
        self._events.append(event)
        self._news.set()

    async def work(self) -> None:
        while True:
            while self._events:
                for envelope in self._envelopes():
                    await _until_done("events", self._world, partial(self._append, envelope))
                self._sending = 0
            self._news.clear()
            await self._news.wait()

    async def _append(self, envelope: Envelope) -> None:
        subject = subjects.events(envelope.agent, envelope.partition, envelope.recorder)
        await self._bus.append(subject, pack(envelope), message_id=lane_message_id(envelope))

    def _envelopes(self) -> list[Envelope]:
        """The next events, sorted into lanes."""
        lanes: dict[tuple[str, int], dict[int, bytes]] = {}
        size = 0
        while self._events and self._sending < ENVELOPE_EVENTS_MAX and size < ENVELOPE_BYTES_MAX:
            event = self._events.popleft()
            raw = codec.encode(event)
            size += len(raw)
            self._sending += 1
            lanes.setdefault((event.agent, partition_of(event.task_id)), {})[event.seq] = raw
        return [
            envelope_of(agent, partition, events) for (agent, partition), events in lanes.items()
        ]


def envelope_of(agent: str, partition: int, events: dict[int, bytes]) -> Envelope:
    """Events of one lane by their numbers. A role's numbers have gaps: no `prev`, and the chain
    covers this envelope only."""
    seqs = sorted(events)
    chain = CHAIN_START
    for seq in seqs:
        chain = advance(chain, events[seq])
    raws = [msgspec.Raw(events[seq]) for seq in seqs]
    return Envelope("role:control", agent, partition, 0, chain, seqs, raws)


class Notifier:
    """Says on `live.changed` what is worth asking about again. May be lost: readers also poll."""

    def __init__(self, bus: Bus, world: World) -> None:
        self._bus, self._world = bus, world
        kinds = ("run", "command", "approval", "escalation")
        self._changed: dict[str, dict[str, None]] = {kind: {} for kind in kinds}
        self._news = asyncio.Event()

    def add(self, changed: Changed) -> None:
        self._changed[changed.kind][changed.key] = None
        self._news.set()

    async def work(self) -> None:
        while True:
            await self._news.wait()
            await self._world.sleep(NOTICE_EVERY_S)
            self._news.clear()
            runs, commands, approvals, escalations = map(list, self._changed.values())
            for kind in self._changed.values():
                kind.clear()
            try:
                notice = encode(
                    LiveChanged(
                        runs=runs, commands=commands, approvals=approvals, escalations=escalations
                    )
                )
                await self._bus.publish(subjects.LIVE_CHANGED, notice)
            except BusError as error:
                _log.info("control could not give notice: %s", error)


async def _until_done(what: str, world: World, act: Callable[[], Awaitable[None]]) -> None:
    """Tries until it succeeds, ever more slowly, and says so once. What the bus refuses for good is
    dropped and said in the log."""
    failures = 0
    while True:
        try:
            await act()
            return
        except Refused as error:
            _log.error("control could not write %s: %s", what, error)
            return
        except BusError as error:
            if failures == 0:
                _log.warning("control could not write %s yet: %s", what, error)
            await world.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
            failures += 1
