"""The shipper's driver, over the bus in memory and a small archive."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from checkrein.bus import messages, subjects
from checkrein.bus.memory import MemoryBus, MemoryServer
from checkrein.bus.types import Message
from checkrein.events import envelope
from checkrein.events.types import Heartbeat, Output
from checkrein.sdk.place import Place
from checkrein.sdk.reader import RingReader, find_recorders
from checkrein.sdk.recorder import Recorder
from checkrein.sdk.shipper import Shipper
from checkrein.world import REAL
from tests.conftest import within
from tests.sdk.recording import PLACE
from tests.sdk.test_reader import agent, finish


class Archive:
    """Takes everything from the stream and says so."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.seqs: dict[tuple[str, str], list[int]] = {}
        self.marks: dict[tuple[str, str], dict[int, int]] = {}
        self.speaks = True

    async def start(self) -> None:
        await self.bus.subscribe("stored.ask.*.*", self.answer)

    async def work(self) -> None:
        async for message in self.bus.read("EVENTS", after=0):
            batch = envelope.unpack(message.data)
            key = batch.agent, batch.recorder
            seen = self.seqs.setdefault(key, [])
            marks = self.marks.setdefault(key, {})
            mark = marks.get(batch.partition, 0)
            assert batch.prev <= mark, "a gap"
            seen += [seq for seq in batch.seqs if seq > mark]
            marks[batch.partition] = max(mark, batch.seqs[-1])
            if self.speaks:
                stored = messages.Stored(recorder=batch.recorder, upto=dict(marks))
                await self.bus.publish(subjects.stored(*key), messages.encode(stored))

    async def answer(self, message: Message) -> None:
        _, _, of, recorder = map(subjects.name_of, message.subject.split("."))
        upto = self.marks.get((of, recorder), {})
        await self.bus.respond(
            message, messages.encode(messages.Stored(recorder=recorder, upto=upto))
        )


@asynccontextmanager
async def shipping(shipper: Shipper, *others: Any) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(other) for other in others]
        running = group.create_task(shipper.run(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait([running], timeout=10)
            for task in tasks:
                task.cancel()


@pytest.fixture
async def server() -> AsyncIterator[MemoryServer]:
    server = MemoryServer()
    bus = server.connect()
    await bus.stream(subjects.EVENTS)
    yield server
    await bus.close()


@pytest.fixture
async def archive(server: MemoryServer) -> AsyncIterator[Archive]:
    archive = Archive(server.connect())
    await archive.start()
    yield archive
    await archive.bus.close()


@pytest.fixture
async def bus(server: MemoryServer) -> AsyncIterator[MemoryBus]:
    bus = server.connect()
    yield bus
    await bus.close()


@pytest.fixture
def rec(tmp_path: Path) -> Any:
    rec = Recorder(tmp_path, REAL, agent="support-bot", segment_bytes=64 * 1024)
    rec.open()
    yield rec
    rec.close()


def stored(archive: Archive, rec: Recorder, count: int) -> Callable[[], bool]:
    return lambda: len(archive.seqs.get(("support-bot", rec.id), [])) == count


async def test_from_the_recorder_to_the_store(
    rec: Recorder, bus: MemoryBus, archive: Archive
) -> None:
    shipper = Shipper([], bus, REAL)
    shipper.add(RingReader(rec.directory), rec)
    async with shipping(shipper, archive.work()):
        for number in range(2000):
            rec.record(Output, PLACE, 1, content=number)
        assert await shipper.flush(10)
        assert shipper.stats().acked == 2000
        await within(10, lambda: shipper.stats().lag == 0)
        assert archive.seqs["support-bot", rec.id] == list(range(1, 2001))
        await within(10, lambda: rec.stats().segments == 1)
    reader = RingReader(rec.directory)
    assert reader.cursor.upto == 2000
    reader.close()
    assert shipper.stats().recorders == 0


async def test_an_idle_shipper_wakes_at_the_next_event(
    rec: Recorder, bus: MemoryBus, archive: Archive
) -> None:
    shipper = Shipper([], bus, REAL)
    shipper.add(RingReader(rec.directory), rec)
    async with shipping(shipper, archive.work()):
        await asyncio.sleep(0.4)  # long enough to fall asleep
        rec.record(Heartbeat, PLACE, 1)
        await within(0.2, stored(archive, rec, 1))


async def test_the_bus_goes_and_comes_back(
    rec: Recorder, server: MemoryServer, bus: MemoryBus, archive: Archive
) -> None:
    server.up = False
    shipper = Shipper([RingReader(rec.directory)], bus, REAL)
    async with shipping(shipper):
        for number in range(100):
            rec.record(Output, PLACE, 1, content=number)
        assert not await shipper.flush(0.3)
        assert shipper.stats().acked == 0
        server.up = True
        bus.say_connection(True)
        assert await shipper.flush(10)
        assert shipper.stats().acked == 100


async def test_a_refused_agent_is_kept_and_said_and_others_go(
    rec: Recorder, server: MemoryServer, caplog: pytest.LogCaptureFixture
) -> None:
    bus = server.connect(publish=["ev.support-bot.>", "stored.ask.>"], subscribe=["stored.>"])
    stranger = Place("e", "r", "stranger", "run", "0" * 32)
    shipper = Shipper([RingReader(rec.directory)], bus, REAL)
    async with shipping(shipper):
        rec.record(Output, stranger, 1, content="mine?")
        rec.record(Output, PLACE, 1, content="mine")
        await within(10, lambda: shipper.stats().acked == 1)
        assert not await shipper.flush(0.1)
    assert "the bus refuses ev.stranger.00" in caplog.text
    await bus.close()
    reader = RingReader(rec.directory)
    assert reader.cursor.upto == 0
    reader.close()


async def test_a_store_that_says_nothing_is_asked(
    rec: Recorder, bus: MemoryBus, archive: Archive
) -> None:
    archive.speaks = False
    shipper = Shipper([RingReader(rec.directory)], bus, REAL)
    async with shipping(shipper, archive.work()):
        rec.record(Output, PLACE, 1, content=1)
        await within(10, lambda: shipper.stats().stored == 1)


async def test_a_restart_sends_what_the_store_had_not_confirmed(
    rec: Recorder, bus: MemoryBus, archive: Archive
) -> None:
    for number in range(300):
        rec.record(Output, PLACE, 1, content=number)
    first = Shipper([RingReader(rec.directory)], bus, REAL)
    async with shipping(first):
        assert await first.flush(10)
    second = Shipper([RingReader(rec.directory)], bus, REAL)
    async with shipping(second, archive.work()):
        rec.record(Output, PLACE, 1, content="last")
        await within(10, lambda: second.stats().lag == 0)
    assert archive.seqs["support-bot", rec.id] == list(range(1, 302))


async def test_a_dead_process_is_shipped_to_its_end_and_removed(
    tmp_path: Path, bus: MemoryBus, archive: Archive
) -> None:
    process: subprocess.Popen[bytes] = agent(tmp_path, 500)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        (found,) = find_recorders(tmp_path)
        shipper = Shipper([RingReader(found.directory)], bus, REAL)
        async with shipping(shipper, archive.work()):
            os.kill(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.wait)
            await within(15, lambda: not shipper.recorders)
    finally:
        finish(process)
    assert archive.seqs["support-bot", found.meta.recorder] == list(range(1, 501))
    assert find_recorders(tmp_path) == []
    assert shipper.stats().stored == 500


async def test_a_closed_recorder_is_removed_and_a_discarded_one_stays(
    tmp_path: Path, bus: MemoryBus, archive: Archive
) -> None:
    recorders = [Recorder(tmp_path, REAL, agent="support-bot") for _ in range(2)]
    shipper = Shipper([], bus, REAL)
    for recorder in recorders:
        recorder.record(Heartbeat, PLACE, 0)
        shipper.add(RingReader(recorder.directory), recorder)
    async with shipping(shipper, archive.work()):
        assert await shipper.flush(10)
        await shipper.discard(recorders[1].id)
        recorders[0].close()
        await within(10, lambda: not shipper.recorders)
    assert [found.meta.recorder for found in find_recorders(tmp_path)] == [recorders[1].id]
    recorders[1].close()


async def test_many_recorders_on_one_connection(
    tmp_path: Path, bus: MemoryBus, archive: Archive
) -> None:
    recorders = [
        Recorder(tmp_path, REAL, agent="support-bot", bytes_max=65536, keeper=False)
        for _ in range(40)
    ]
    shipper = Shipper([], bus, REAL)
    async with shipping(shipper, archive.work()):
        for recorder in recorders:
            recorder.open()
            shipper.add(RingReader(recorder.directory))
        for number in range(20):
            for recorder in recorders:
                recorder.record(Output, PLACE, 1, content=number)
        assert await shipper.flush(10)
        await within(10, lambda: shipper.stats().lag == 0)
    assert all(len(seqs) == 20 for seqs in archive.seqs.values())
    assert len(archive.seqs) == 40
    for recorder in recorders:
        recorder.close()
