"""An agent records as fast as it can, and ships by itself: what is lost, and how fast it goes."""

import asyncio
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benches.harness import Row
from tests.conftest import nats_server, role_bus

from checkrein.bus import subjects
from checkrein.bus.types import Bus
from checkrein.events import envelope
from checkrein.events.types import (
    ToolArguments,
    ToolInvoked,
    ToolParsed,
    ToolReentered,
    ToolReturned,
    ToolSelected,
)
from checkrein.sdk.place import Place
from checkrein.sdk.reader import RingReader
from checkrein.sdk.recorder import Recorder
from checkrein.sdk.shipper import Shipper
from checkrein.world import REAL

QUESTION = "20,000 tool calls in a tight loop, shipped by the same process: what is lost, how long?"
CALLS = 20_000
PLACE = Place("bench", "load", "support-bot", REAL.uuid7(), REAL.trace_id())
RESULT = "lorem ipsum dolor sit amet " * 40


def run() -> list[Row]:
    folder = Path(tempfile.mkdtemp(prefix="checkrein-bench-"))
    try:
        with nats_server(folder) as server:
            return asyncio.run(_run(folder, server))
    finally:
        shutil.rmtree(folder)


async def _run(folder: Path, server: Any) -> list[Row]:
    async with role_bus(server) as bus:
        await bus.stream(subjects.EVENTS)
        recorder = Recorder(folder / "recorders", REAL, agent="support-bot")
        recorder.open()
        shipper = Shipper([], bus, REAL)
        shipper.add(RingReader(recorder.directory), recorder)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(shipper.run(stop))
            began = time.perf_counter()
            times = await _record_in_a_thread(recorder)
            recorded = time.perf_counter() - began
            arrived = await shipper.flush(120)
            shipped = time.perf_counter() - began
            stop.set()
        stats = recorder.stats()
        events, order = await _in_the_stream(bus)
        bare = await _bare(bus, events)
        recorder.close()
    if not arrived or not order:
        raise RuntimeError(f"not all arrived in order: {shipper.stats()}")
    return [
        Row(name="events lost", measured=stats.recorded - events + stats.lost, target=0,
            unit="events", note=f"of {stats.recorded:,}"),
        Row(name="six events of a tool call, p50", measured=times[len(times) // 2] / 1000,
            unit="µs", note="while the shipper's thread works beside"),
        Row(name="six events of a tool call, p99.9", measured=times[-len(times) // 1000] / 1000,
            unit="µs"),
        Row(name="longest tool call", measured=times[-1] / 1000, target=1000.0, unit="µs"),
        Row(name="recording", measured=events / recorded, unit="events/s"),
        Row(name="from the agent's thread to durable on the bus", measured=events / shipped,
            limit=bare, target=15_000.0, unit="events/s",
            note="recording, shipping and the server on the same cores; limit: the same events, "
            "packed beforehand, 500 an envelope, 16 under way"),
    ]  # fmt: skip


async def _record_in_a_thread(recorder: Recorder) -> list[int]:
    times: list[int] = []

    def work() -> None:
        record, clock = recorder.record, time.perf_counter_ns
        for number in range(CALLS):
            call = f"call-{number}"
            began = clock()
            record(ToolSelected, PLACE, 1, call_id=call, tool="search")
            record(ToolArguments, PLACE, 1, call_id=call, tool="search", arguments={"q": call})
            record(ToolInvoked, PLACE, 1, call_id=call, tool="search", kind="read")
            record(ToolReturned, PLACE, 1, call_id=call, tool="search", result=RESULT)
            record(ToolParsed, PLACE, 1, call_id=call, tool="search", result_hash="0" * 64)
            record(ToolReentered, PLACE, 1, call_id=call, tool="search", chars=len(RESULT))
            times.append(clock() - began)

    thread = threading.Thread(target=work)
    thread.start()
    await asyncio.to_thread(thread.join)
    return sorted(times)


async def _in_the_stream(bus: Bus) -> tuple[int, bool]:
    """How many events the stream holds, and whether each envelope follows the one before."""
    count, last, order = 0, 0, True
    end = await bus.last_position("EVENTS")
    async for message in bus.read("EVENTS", after=0):
        batch = envelope.unpack(message.data)
        order = order and batch.prev == last
        count, last = count + len(batch.seqs), batch.seqs[-1]
        if message.position >= end:
            break
    return count, order


async def _bare(bus: Bus, count: int) -> float:
    """Events a second when nothing is to be done but sending."""
    raw = envelope.as_raw({"agent": "bare", "result": RESULT[: len(RESULT) // 3]})
    data = [
        envelope.pack(envelope.Envelope("bare", "bare", 0, at, b"", list(range(500)), [raw] * 500))
        for at in range(0, count, 500)
    ]
    began = time.perf_counter()
    under_way = asyncio.Semaphore(16)

    async def send(number: int) -> None:
        async with under_way:
            await bus.append(subjects.events("bare", 0), data[number], f"bare-{number}", 60)

    async with asyncio.TaskGroup() as group:
        for number in range(len(data)):
            group.create_task(send(number))
    return 500 * len(data) / (time.perf_counter() - began)
