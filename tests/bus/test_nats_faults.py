"""A server that dies and comes back, under readers, consumers and watchers."""

import asyncio
from contextlib import aclosing
from pathlib import Path

from tests.conftest import free_port, nats_server, role_bus, start, within

from checkrein.bus.subjects import EVENTS
from checkrein.bus.types import BusError


async def _append(bus: object, subject: str, data: bytes) -> None:
    for _ in range(100):
        try:
            await bus.append(subject, data, message_id=data.decode(), timeout_s=1)  # type: ignore[attr-defined]
        except BusError:
            await asyncio.sleep(0.1)
        else:
            return
    raise AssertionError("the bus did not come back")


async def test_reading_survives_a_killed_server_without_gap_or_repeat(tmp_path: Path) -> None:
    port = free_port()
    seen: list[bytes] = []
    watched: list[str] = []
    consumed: set[bytes] = set()
    with nats_server(tmp_path, port=port) as server:
        async with role_bus(server) as bus:
            await bus.stream(EVENTS)
            bucket = await bus.bucket("runs")
            consumer = await bus.consumer("EVENTS", "archive", ack_wait_s=1)

            async def read() -> None:
                async with aclosing(bus.read("EVENTS", after=0)) as reading:
                    async for message in reading:
                        seen.append(message.data)

            async def watch() -> None:
                async with aclosing(bucket.watch()) as watching:
                    async for entry in watching:
                        watched.append(entry.key)

            async def consume() -> None:
                while True:
                    messages = await consumer.fetch(10, 1)
                    consumed.update(message.data for message in messages)
                    await consumer.ack(messages)

            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(work()) for work in (read, watch, consume)]
                for number in range(10):
                    await _append(bus, "ev.bot.00", f"{number}".encode())
                await bucket.put("before", b"1")
                await within(5, lambda: len(seen) == 10 and "before" in watched)
                server.process.kill()
                server.process.wait()
                await within(10, lambda: not bus.connected)
                process = start(server)
                try:
                    for number in range(10, 20):
                        await _append(bus, "ev.bot.00", f"{number}".encode())
                    await bucket.put("after", b"1")
                    await within(20, lambda: len(seen) >= 20 and "after" in watched)
                    await within(20, lambda: len(consumed) == 20)
                finally:
                    for task in running:
                        task.cancel()
                    process.terminate()
                    process.wait(10)
    assert seen == [f"{number}".encode() for number in range(20)]
    assert watched == ["", "before", "after"]
