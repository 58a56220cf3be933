"""The shipper's judgement: what to send, what to send again, what is safe. No I/O, no clock.

A recorder's events are sorted into lanes (agent, partition), each with its own chain. A lane has at
most one envelope under way, so whatever is lost, late or repeated, a lane's envelopes reach the bus
in order; meanwhile its next events gather, and go together. An envelope that the bus has
acknowledged is forgotten but for its numbers; the recorder keeps its events until the store has
confirmed them, and if the store stays behind for long although it answers, they are read and sent
again. Whoever receives must expect repeats (same lane, same numbers) and never a gap.
"""

import msgspec

from checkrein.bus import subjects
from checkrein.events.envelope import (
    BATCH_BYTES_MAX,
    Envelope,
    advance,
    lane_message_id,
    pack,
    partition_of,
)
from checkrein.sdk.lane import (
    STALL_NS_MAX,
    STALL_NS_MIN,
    Flight,
    Lane,
    LaneState,
    Mark,
    Send,
    restored,
)

BATCH_EVENTS_MAX = 500
_BATCH_BYTES = BATCH_BYTES_MAX - 64 * 1024  # the numbers and the head of the envelope need room
LINGER_NS = 5_000_000
IN_FLIGHT_MAX = 16
GATHERED_BYTES_MAX = 4 * 1024 * 1024
LANE_GATHERED_BYTES_MAX = 2 * 1024 * 1024
RESEND_NS = 8_000_000_000
RETRY_NS_MIN, RETRY_NS_MAX = 50_000_000, 5_000_000_000


class _Address(msgspec.Struct, frozen=True, gc=False):
    """What the shipper reads of an event."""

    agent: str = ""
    task_id: str = ""
    type: str = ""
    count: int = 0


_address = msgspec.msgpack.Decoder(_Address)


class ShipperCore:
    """One recorder's way to the bus. Feed it with `take`; send what `due` gives; tell it `acked`,
    `failed` and `stored`; persist `cursor()`.

    `read_after` is where the recorder is to be read next: it can go back.
    """

    def __init__(
        self, recorder: str, *, agent: str = "", upto: int = 0, state: bytes = b""
    ) -> None:
        self.recorder = recorder
        self.read_after = upto
        self.sent = self.acked_events = self.stored_events = self.lost = self.rewinds = 0
        self._agent = agent
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._in_air = 0
        self._chained = True
        self._flights: dict[str, Lane] = {}
        self._gathered_bytes = 0
        self._known: dict[tuple[str, int], int] = {}
        for lane in restored(state):
            self._lanes[lane.agent, lane.partition] = Lane(
                lane.agent, lane.partition, sent=lane.last, chain=lane.chain, safe=lane.last,
                safe_chain=lane.chain, stored=lane.last, taken=lane.last, taken_chain=lane.chain,
            )  # fmt: skip

    @property
    def agents(self) -> set[str]:
        return {agent for agent, _ in self._lanes}

    @property
    def wants_bytes(self) -> int:
        """How much more to read from the recorder now; 0: enough is gathered."""
        return max(0, GATHERED_BYTES_MAX - self._gathered_bytes)

    @property
    def unacked(self) -> int:
        """Events that the bus has not acknowledged, at least; 0: it has everything read so far."""
        waiting = (len(lane.gathered) + (lane.left_from > 0) for lane in self._lanes.values())
        return sum(waiting) + sum(flown.flight is not None for flown in self._flights.values())

    @property
    def all_safe(self) -> bool:
        """Whether everything taken is in the store."""
        return not any(lane.first_unsafe() for lane in self._lanes.values())

    def take(self, records: list[tuple[int, bytes]], now_ns: int) -> None:
        """Events as read from the recorder, in order, from `read_after` on."""
        for seq, raw in records:
            try:
                address = _address.decode(raw)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                address = _Address(self._agent)
            lane = self._lane(address.agent, partition_of(address.task_id))
            self.read_after = max(self.read_after, seq)
            if seq <= lane.taken or lane.left_from:
                continue
            if lane.gathered_bytes > LANE_GATHERED_BYTES_MAX and lane.flight is not None:
                # This lane stands still (refused, say): the others must not wait for it.
                lane.left_from = seq
                continue
            if address.type == "loss":
                self.lost += address.count
            if not lane.gathered:
                lane.since_ns = now_ns
            lane.taken = seq
            lane.taken_chain = advance(lane.taken_chain, raw)
            lane.gathered.append((seq, raw, lane.taken_chain))
            lane.gathered_bytes += len(raw)
            self._gathered_bytes += len(raw)

    def due(self, now_ns: int, *, hurry: bool = False) -> list[Send]:
        """What to send now, at most 16 envelopes under way in all. `hurry`: without lingering."""
        sends: list[Send] = []
        for lane in self._lanes.values():
            flight = lane.flight
            if flight is not None:
                if now_ns >= flight.due_ns:
                    sends += self._again(flight, now_ns)
                continue
            if not lane.gathered or self._in_air >= IN_FLIGHT_MAX:
                continue
            full = lane.gathered_bytes >= _BATCH_BYTES
            full = full or len(lane.gathered) >= BATCH_EVENTS_MAX
            if full or hurry or now_ns - lane.since_ns >= LINGER_NS:
                sends += self._depart(lane, now_ns)
        return sends

    def next_due_ns(self) -> int | None:
        """When `due` may have something next, if nothing else happens."""
        times = []
        for lane in self._lanes.values():
            if lane.flight is not None:
                times.append(lane.flight.due_ns)
            elif lane.gathered and self._in_air < IN_FLIGHT_MAX:
                times.append(lane.since_ns + LINGER_NS)
        return min(times, default=None)

    def acked(self, message_id: str, now_ns: int) -> None:
        """The bus has this envelope for good."""
        lane = self._flights.pop(message_id, None)
        if lane is None or lane.flight is None:
            return  # told twice, or of an envelope that the store confirmed already
        flight = lane.flight
        self._in_air -= flight.in_air
        lane.flight = None
        flight.mark.acked = True
        self.acked_events += flight.mark.events
        lane.compact()
        if lane.left_from:
            self.read_after = min(self.read_after, lane.left_from - 1)
            lane.left_from = 0

    def failed(self, message_id: str, now_ns: int) -> None:
        """The envelope may not have arrived: it goes again after a pause that doubles, 50 ms to
        5 s."""
        lane = self._flights.get(message_id)
        if lane is None or lane.flight is None or not lane.flight.in_air:
            return
        flight = lane.flight
        flight.in_air = False
        self._in_air -= 1
        pause = RETRY_NS_MIN << min(flight.attempts, 10)
        flight.due_ns = now_ns + min(pause, RETRY_NS_MAX)

    def stored(self, agent: str, upto: dict[int, int], now_ns: int) -> None:
        """The store has every event of this agent up to these numbers, by partition."""
        for partition, last in upto.items():
            key = agent, partition
            self._known[key] = max(last, self._known.get(key, 0))
            lane = self._lanes.get(key)
            if lane is not None and last > lane.stored:
                lane.stored = last
                lane.stall_ns = STALL_NS_MIN
                lane.stuck_ns = 0
                self._settle(lane, now_ns)

    def answered(self, agent: str, now_ns: int) -> bool:
        """The store has answered a question about this agent (`stored` was told its answer). If it
        goes on answering for 12 s without having moved on over what the bus had acknowledged, the
        bus must have lost that: everything after the store's last number is read and sent again
        (and the patience doubles). True if so."""
        again = False
        for lane in self._lanes.values():
            if lane.agent != agent or lane.flight is not None or not lane.marks:
                continue
            if not lane.stuck_ns:
                lane.stuck_ns = now_ns
            elif now_ns - lane.stuck_ns >= lane.stall_ns:
                lane.stall_ns = min(2 * lane.stall_ns, STALL_NS_MAX)
                lane.stuck_ns = 0
                self._rewind(lane)
                again = True
        return again

    def chains_broken(self) -> None:
        """The recorder has lost some of its events (torn by a crash): from here on the chains
        cannot be known, and envelopes carry an empty one."""
        self._chained = False

    def hasten(self, now_ns: int) -> None:
        """The bus is back: what failed goes at once."""
        for lane in self._lanes.values():
            if lane.flight is not None and not lane.flight.in_air:
                lane.flight.due_ns = min(lane.flight.due_ns, now_ns)

    def cursor(self) -> tuple[int, bytes]:
        """(number up to which all is in the store, state to persist with it)."""
        unsafe = [first - 1 for lane in self._lanes.values() if (first := lane.first_unsafe())]
        upto = min(self.read_after, *unsafe) if unsafe else self.read_after
        state = [
            LaneState(lane.agent, lane.partition, lane.safe, lane.safe_chain)
            for lane in self._lanes.values()
        ]
        return upto, msgspec.msgpack.encode(state)

    def _lane(self, agent: str, partition: int) -> Lane:
        lane = self._lanes.get((agent, partition))
        if lane is None:
            lane = self._lanes[agent, partition] = Lane(agent, partition)
            lane.stored = self._known.get((agent, partition), 0)
        return lane

    def _depart(self, lane: Lane, now_ns: int) -> list[Send]:
        """The lane's next envelope; events that the store has already are only passed over."""
        prev = lane.sent
        seqs: list[int] = []
        events: list[msgspec.Raw] = []
        size = 0
        chain = lane.chain
        while lane.gathered and len(seqs) < BATCH_EVENTS_MAX:
            seq, raw, after = lane.gathered[0]
            if seqs and size + len(raw) > _BATCH_BYTES:
                break
            lane.gathered.popleft()
            lane.gathered_bytes -= len(raw)
            self._gathered_bytes -= len(raw)
            chain = after
            if seq <= lane.stored and not seqs:
                lane.sent = lane.safe = prev = seq
                lane.chain = lane.safe_chain = chain
                self.stored_events += 1
                continue
            seqs.append(seq)
            events.append(msgspec.Raw(raw))
            size += len(raw)
        lane.since_ns = now_ns
        if not seqs:
            return []
        lane.sent, lane.chain = seqs[-1], chain
        mark = Mark(seqs[0], seqs[-1], chain, len(seqs))
        lane.marks.append(mark)
        told = chain if self._chained else b""
        envelope = Envelope(self.recorder, lane.agent, lane.partition, prev, told, seqs, events)
        send = Send(
            subjects.events(lane.agent, lane.partition), pack(envelope),
            lane_message_id(envelope), len(seqs),
        )  # fmt: skip
        lane.flight = Flight(send, mark, now_ns + RESEND_NS)
        self._flights[send.message_id] = lane
        self._in_air += 1
        self.sent += len(seqs)
        return [send]

    def _again(self, flight: Flight, now_ns: int) -> list[Send]:
        if not flight.in_air:
            if self._in_air >= IN_FLIGHT_MAX:
                return []
            self._in_air += 1
            flight.in_air = True
        flight.attempts += 1
        flight.due_ns = now_ns + RESEND_NS
        return [flight.send]

    def _settle(self, lane: Lane, now_ns: int) -> None:
        """Forgets the envelopes that the store has whole."""
        while lane.marks and lane.marks[0].last <= lane.stored:
            mark = lane.marks.popleft()
            if lane.flight is not None and lane.flight.mark is mark:
                self.acked(lane.flight.send.message_id, now_ns)
            lane.safe, lane.safe_chain = mark.last, mark.chain
            self.stored_events += mark.events

    def _rewind(self, lane: Lane) -> None:
        """Back to the store's last envelope of this lane."""
        self.rewinds += 1
        first = lane.first_unsafe()
        self._gathered_bytes -= lane.gathered_bytes
        lane.gathered.clear()
        lane.gathered_bytes = 0
        lane.marks.clear()
        lane.left_from = 0
        lane.taken = lane.sent = lane.safe
        lane.chain = lane.taken_chain = lane.safe_chain
        self.read_after = min(self.read_after, first - 1)
