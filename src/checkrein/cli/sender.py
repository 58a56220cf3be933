"""Sending events as a recorder's shipper does: in envelopes, lane by lane, each acknowledged by the
bus before the next of its lane goes out."""

import asyncio

import msgspec

from checkrein.bus import subjects
from checkrein.bus.messages import Stored, decode
from checkrein.bus.types import Bus, Unreachable
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

EVENTS_PER_ENVELOPE = 100
ENVELOPE_BYTES_MAX = 512 * 1024
BUFFERED_EVENTS_MAX = 4_000
BUFFERED_BYTES_MAX = 16 * 1024 * 1024
ATTEMPTS_MAX = 10
STORED_ASK_S = 2.0
ASKED_AT_ONCE_MAX = 32

Lane = tuple[str, str, int]


class _Waiting:
    """A lane: what is still to be sent of it, and its chain so far."""

    def __init__(self) -> None:
        self.events: list[tuple[int, bytes]] = []
        self.prev = 0
        self.chain = CHAIN_START


class Sender:
    """Buffers a bounded number of events and sends all lanes at once, each in order."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._lanes: dict[Lane, _Waiting] = {}
        self._ends: dict[tuple[str, str], dict[int, int]] = {}
        self._events = 0
        self._bytes = 0
        self.sent = 0

    async def add(self, event: Base) -> None:
        """Takes one event; numbers of a recorder must rise. May send. Raises BusError."""
        raw = codec.encode(event)
        lane = (event.recorder, event.agent, partition_of(event.task_id))
        self._lanes.setdefault(lane, _Waiting()).events.append((event.seq, raw))
        self._events += 1
        self._bytes += len(raw)
        if self._events >= BUFFERED_EVENTS_MAX or self._bytes >= BUFFERED_BYTES_MAX:
            await self.flush()

    async def flush(self) -> None:
        """Returns when the bus has everything. Raises BusError."""
        async with asyncio.TaskGroup() as group:
            for lane, waiting in self._lanes.items():
                if waiting.events:
                    group.create_task(self._send(lane, waiting))
        self._events = self._bytes = 0

    async def _send(self, lane: Lane, waiting: _Waiting) -> None:
        recorder, agent, partition = lane
        while waiting.events:
            part = _first(waiting.events)
            chain = waiting.chain
            for _, raw in part:
                chain = advance(chain, raw)
            envelope = Envelope(
                recorder, agent, partition, waiting.prev, chain,
                [seq for seq, _ in part], [msgspec.Raw(raw) for _, raw in part],
            )  # fmt: skip
            await self._append(subjects.events(agent, partition), envelope)
            waiting.prev, waiting.chain = part[-1][0], chain
            self._ends.setdefault((agent, recorder), {})[partition] = waiting.prev
            del waiting.events[: len(part)]
            self.sent += len(part)

    async def _append(self, subject: str, envelope: Envelope) -> None:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                await self._bus.append(subject, pack(envelope), lane_message_id(envelope))
                return
            except Unreachable:
                if attempt == ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(0.2 * attempt)

    async def unstored(self) -> int:
        """How many of the recorders the store does not have to their end yet."""
        limit = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

        async def check(agent: str, recorder: str) -> None:
            async with limit:
                upto = await self._ask(agent, recorder)
            wanted = self._ends[(agent, recorder)]
            if all(upto.get(partition, 0) >= seq for partition, seq in wanted.items()):
                del self._ends[(agent, recorder)]

        async with asyncio.TaskGroup() as group:
            for agent, recorder in list(self._ends):
                group.create_task(check(agent, recorder))
        return len(self._ends)

    async def _ask(self, agent: str, recorder: str) -> dict[int, int]:
        subject = subjects.stored_ask(agent, recorder)
        try:
            answer = await self._bus.request(subject, b"", STORED_ASK_S)
            return decode(answer, Stored).upto
        except (Unreachable, ValueError):
            return {}


def _first(events: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """As many of the first events as one envelope takes; one in any case."""
    size = 0
    for at, (_, raw) in enumerate(events[:EVENTS_PER_ENVELOPE]):
        size += len(raw)
        if at and size > ENVELOPE_BYTES_MAX:
            return events[:at]
    return events[:EVENTS_PER_ENVELOPE]
