"""Load for the benchmarks: realistic events in envelopes, as shippers send them, at full speed or
at a rate, from a process of its own.

    python -m benches.load DATA EVENTS [RATE] [AGENTS]
    python -m benches.load DATA EVENTS SUBJECT AGENTS prepared

prints one JSON line when all is acknowledged: {sent, calls, seconds, ack_ms_p99}. `prepared` makes
all envelopes first, prints "ready", and begins when a line comes on standard input; with the
subject `ev` they go to the archive and all who listen, with another to a stream of that name, which
is made: what the bare engine takes.
"""

import asyncio
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checkrein.bus import nats, subjects
from checkrein.bus.credentials import Keys
from checkrein.bus.types import StreamSpec
from checkrein.events.envelope import (
    CHAIN_START,
    Envelope,
    advance,
    as_raw,
    lane_message_id,
    pack,
    partition_of,
)
from checkrein.world import REAL

ENVELOPE_EVENTS = 100
IN_FLIGHT = 16
CALL = ("tool.selected", "tool.arguments", "tool.invoked", "tool.returned", "tool.parsed",
        "tool.reentered")  # fmt: skip


def run_of(agent: str, number: int) -> tuple[str, str]:
    """A run id and a task id, the same for the same agent and number."""
    text = hashlib.sha256(f"{agent}/{number}".encode()).hexdigest()
    run = f"01{text[:6]}-{text[6:10]}-7{text[10:13]}-8{text[13:16]}-{text[16:28]}"
    return run, text[32:]


def tool_events(agent: str, recorder: str, calls_a_run: int = 40) -> Iterator[dict[str, Any]]:
    """Events of tool calls without end: six a call, about 500 bytes on average; a run begins, makes
    its calls and ends."""
    seq = 0
    number = 0

    def event(kind_: str, step: int, **own: Any) -> dict[str, Any]:
        nonlocal seq
        seq += 1
        return {
            "recorder": recorder, "seq": seq, "ts": REAL.now_ns(), "environment": "bench",
            "room": "load", "agent": agent, "run_id": run, "task_id": task, "step": step,
            "type": kind_, **own,
        }  # fmt: skip

    while True:
        run, task = run_of(recorder, number)
        number += 1
        yield event("run.start", 0, goal="load", task_type="bench")
        for step in range(1, calls_a_run + 1):
            call, tool = f"{recorder}-{number}-{step}", f"tool_{step % 8}"
            unique = hashlib.sha256(call.encode()).hexdigest()
            arguments = {"query": unique * 4, "page": step, "limit": 50}
            result = f"result {unique} " + "lorem ipsum dolor sit amet " * 30
            yield event(CALL[0], step, call_id=call, tool=tool)
            yield event(CALL[1], step, call_id=call, tool=tool, arguments=arguments)
            yield event(CALL[2], step, call_id=call, tool=tool, kind="read")
            yield event(
                CALL[3], step, call_id=call, tool=tool, result=result, duration_ns=1_000_000 * step
            )
            yield event(CALL[4], step, call_id=call, tool=tool, result_hash=unique)
            yield event(CALL[5], step, call_id=call, tool=tool, chars=len(result))
        yield event("run.end", calls_a_run, status="completed", steps=calls_a_run)


class Lane:
    """Envelopes of one agent's recorder, with numbers and chain as a shipper makes them."""

    def __init__(self, agent: str, recorder: str) -> None:
        self.agent, self.recorder = agent, recorder
        self._events = tool_events(agent, recorder)
        self._chains: dict[int, tuple[bytes, int]] = {}
        self.calls = 0

    def envelopes(self, events: int) -> list[Envelope]:
        """The next `events` events, one envelope for each partition they fall into."""
        sorted_out: dict[int, list[dict[str, Any]]] = {}
        for _ in range(events):
            event = next(self._events)
            self.calls += event["type"] == "tool.invoked"
            sorted_out.setdefault(partition_of(event["task_id"]), []).append(event)
        return [self._envelope(partition, found) for partition, found in sorted_out.items()]

    def _envelope(self, partition: int, events: list[dict[str, Any]]) -> Envelope:
        chain, previous = self._chains.get(partition, (CHAIN_START, 0))
        raws = [as_raw(event) for event in events]
        for raw in raws:
            chain = advance(chain, raw)
        numbers = [event["seq"] for event in events]
        self._chains[partition] = (chain, numbers[-1])
        return Envelope(self.recorder, self.agent, partition, previous, chain, numbers, raws)


async def _connect(data: Path) -> nats.NatsBus:
    port = (data / "bus/events/port").read_text().strip()
    keys = Keys.load_or_create(data / "keys")
    return await nats.connect([f"nats://127.0.0.1:{port}"], keys.role("load"), name="load")


def prepared(count: int, subject: str, agents: int) -> list[tuple[str, bytes, str]]:
    """`count` events as messages: subject, data, message id."""
    lanes = [Lane(f"load-{n}", f"load-{n}-{REAL.nonce()[:8]}") for n in range(agents)]
    made: list[tuple[str, bytes, str]] = []
    left = count
    while left > 0:
        for lane in lanes:
            for envelope in lane.envelopes(min(ENVELOPE_EVENTS, max(0, left))):
                where = subjects.events(envelope.agent, envelope.partition)
                where = subject + where.removeprefix("ev")
                made.append((where, pack(envelope), lane_message_id(envelope)))
            left -= ENVELOPE_EVENTS
    return made


async def send_prepared(data: Path, count: int, subject: str, agents: int) -> dict[str, float]:
    """Sends them as fast as they are acknowledged, IN_FLIGHT at once, when told to."""
    messages = prepared(count, subject, agents)
    bus = await _connect(data)
    acks: list[float] = []
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(where: str, body: bytes, message_id: str) -> None:
        async with slots:
            began = REAL.monotonic_ns()
            await bus.append(where, body, message_id, timeout_s=60)
            acks.append((REAL.monotonic_ns() - began) / 1e6)

    try:
        if subject != "ev":
            await bus.stream(StreamSpec(subject, (f"{subject}.>",)))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        started = REAL.monotonic_ns()
        async with asyncio.TaskGroup() as tasks:
            for message in messages:
                tasks.create_task(one(*message))
        seconds = (REAL.monotonic_ns() - started) / 1e9
    finally:
        await bus.close()
    acks.sort()
    return {"sent": count, "seconds": seconds, "ack_ms_p99": acks[int(len(acks) * 0.99)]}


async def send(data: Path, count: int, rate: float = 0.0, agents: int = 8) -> dict[str, float]:
    """Sends `count` events (at `rate` a second; 0: as fast as acknowledged)."""
    bus = await _connect(data)
    lanes = [Lane(f"load-{n}", f"load-{n}-{REAL.nonce()[:8]}") for n in range(agents)]
    slots, acks = asyncio.Semaphore(IN_FLIGHT), []
    started = REAL.monotonic_ns()
    sent = 0

    async def one(envelope: Envelope) -> None:
        began = REAL.monotonic_ns()
        subject = subjects.events(envelope.agent, envelope.partition)
        try:
            await bus.append(subject, pack(envelope), lane_message_id(envelope), timeout_s=30)
            acks.append((REAL.monotonic_ns() - began) / 1e6)
        finally:
            slots.release()

    try:
        async with asyncio.TaskGroup() as tasks:
            while sent < count:
                for lane in lanes:
                    batch = min(ENVELOPE_EVENTS, count - sent)
                    if batch <= 0:
                        break
                    for envelope in lane.envelopes(batch):
                        await slots.acquire()
                        tasks.create_task(one(envelope))
                    sent += batch
                    if rate:
                        ahead = sent / rate - (REAL.monotonic_ns() - started) / 1e9
                        await asyncio.sleep(max(0.0, ahead))
    finally:
        await bus.close()
    acks.sort()
    seconds = (REAL.monotonic_ns() - started) / 1e9
    calls = sum(lane.calls for lane in lanes)
    late = acks[int(len(acks) * 0.99)]
    return {"sent": sent, "calls": calls, "seconds": seconds, "ack_ms_p99": late}


def main() -> None:
    data, count, *rest = sys.argv[1:]
    if rest[2:] == ["prepared"]:
        told = asyncio.run(send_prepared(Path(data), int(count), rest[0], int(rest[1])))
        sys.stdout.write(json.dumps(told) + "\n")
        return
    numbers = [float(text) for text in rest] + [0.0, 8.0][len(rest) :]
    result = asyncio.run(send(Path(data), int(count), numbers[0], int(numbers[1])))
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
