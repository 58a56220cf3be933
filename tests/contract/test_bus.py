"""The seam to the bus: the same promises kept by NATS and by its twin in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.conftest import nats_server, role_bus

from checkrein.bus.memory import MemoryServer
from checkrein.bus.subjects import AUDIT, EVENTS, name_of, token
from checkrein.bus.types import Bus, Entry, Message, Unreachable, WrongRevision


@pytest.fixture(params=["memory", "nats"])
async def bus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bus]:
    if request.param == "memory":
        memory = MemoryServer().connect()
        yield memory
        await memory.close()
    else:
        with nats_server(tmp_path) as server:
            async with role_bus(server) as real:
                yield real


async def test_plain_messages_reach_who_listens_in_order(bus: Bus) -> None:
    heard: asyncio.Queue[Message] = asyncio.Queue()
    subscription = await bus.subscribe("cmd.*", heard.put)
    for number in range(5):
        await bus.publish("cmd.a", str(number).encode())
    got = [(await asyncio.wait_for(heard.get(), 5)).data for _ in range(5)]
    assert got == [b"0", b"1", b"2", b"3", b"4"]
    await subscription.close()


async def test_a_request_is_answered_or_says_that_nobody_does(bus: Bus) -> None:
    async def answer(message: Message) -> None:
        await bus.respond(message, b"re:" + message.data)

    await bus.subscribe("ctl.command", answer)
    assert await bus.request("ctl.command", b"halt") == b"re:halt"
    with pytest.raises(Unreachable, match="nobody"):
        await bus.request("ctl.nobody", b"", timeout_s=0.5)


async def test_a_failing_handler_does_not_end_its_subscription(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bytes] = []
    done = asyncio.Event()

    async def take(message: Message) -> None:
        if message.data == b"bad":
            raise ValueError("bad message")
        heard.append(message.data)
        done.set()

    await bus.subscribe("cmd.x", take)
    await bus.publish("cmd.x", b"bad")
    await bus.publish("cmd.x", b"good")
    await asyncio.wait_for(done.wait(), 5)
    assert heard == [b"good"]
    assert "cmd.x" in caplog.text


async def test_append_stores_once_for_one_message_id(bus: Bus) -> None:
    await bus.stream(EVENTS)
    first = await bus.append("ev.bot.00", b"one", message_id="m1")
    again = await bus.append("ev.bot.00", b"one", message_id="m1")
    other = await bus.append("ev.bot.00", b"two", message_id="m2")
    assert (first, again, other) == (1, 1, 2)
    assert await bus.last_position("EVENTS") == 2


async def test_append_to_a_subject_without_a_stream_is_unreachable(bus: Bus) -> None:
    with pytest.raises(Unreachable):
        await bus.append("nowhere.x", b"", timeout_s=1)


async def test_what_a_consumer_does_not_acknowledge_comes_again(bus: Bus) -> None:
    await bus.stream(EVENTS)
    for number in range(3):
        await bus.append("ev.bot.00", str(number).encode())
    consumer = await bus.consumer("EVENTS", "archive", ack_wait_s=0.3)
    first: list[Message] = []
    while len(first) < 3:
        first += await consumer.fetch(10, 2)
    await consumer.ack(first[:2])
    again = await consumer.fetch(10, 5)
    assert [message.data for message in again] == [b"2"]
    assert again[0].deliveries == 2
    await consumer.ack(again)
    assert await consumer.fetch(10, 0.5) == []
    assert await consumer.pending() == 0
    await consumer.close()


async def test_what_is_held_does_not_come_again_yet(bus: Bus) -> None:
    await bus.stream(EVENTS)
    await bus.append("ev.bot.00", b"slow work")
    consumer = await bus.consumer("EVENTS", "archive", ack_wait_s=1.0)
    messages = await consumer.fetch(1, 2)
    for _ in range(5):
        await consumer.hold(messages)
        assert await consumer.fetch(1, 0.4) == []
    assert [again.deliveries for again in await consumer.fetch(1, 5)] == [2]
    await consumer.close()


async def test_a_consumer_goes_on_where_it_was(bus: Bus) -> None:
    await bus.stream(EVENTS)
    await bus.append("ev.bot.00", b"a")
    consumer = await bus.consumer("EVENTS", "archive")
    await consumer.ack(await consumer.fetch(10, 2))
    await consumer.close()
    await bus.append("ev.bot.00", b"b")
    second = await bus.consumer("EVENTS", "archive")
    assert [message.data for message in await second.fetch(10, 2)] == [b"b"]
    await second.close()


async def test_later_delivers_after_the_delay(bus: Bus) -> None:
    await bus.stream(EVENTS)
    await bus.append("ev.bot.00", b"a")
    consumer = await bus.consumer("EVENTS", "archive")
    messages = await consumer.fetch(1, 2)
    await consumer.later(messages, 0.2)
    again = await consumer.fetch(1, 5)
    assert [message.data for message in again] == [b"a"]
    await consumer.close()


async def test_reading_follows_from_a_position_and_by_subject(bus: Bus) -> None:
    await bus.stream(EVENTS)
    for number in range(600):
        await bus.append(f"ev.bot.{number % 2:02d}", str(number).encode())
    seen: list[bytes] = []
    async with aclosing(bus.read("EVENTS", ["ev.*.00"], after=2)) as reading:
        async for message in reading:
            seen.append(message.data)
            if message.data == b"598":
                await bus.append("ev.bot.00", b"new")
            if message.data == b"new":
                break
    assert seen == [str(number).encode() for number in range(2, 600, 2)] + [b"new"]


async def test_buckets_compare_and_set(bus: Bus) -> None:
    bucket = await bus.bucket("runs")
    assert await bucket.get("a") is None
    revision = await bucket.create("a", b"1")
    with pytest.raises(WrongRevision):
        await bucket.create("a", b"2")
    newer = await bucket.update("a", b"2", revision)
    with pytest.raises(WrongRevision):
        await bucket.update("a", b"3", revision)
    assert await bucket.get("a") == Entry("a", b"2", newer)
    await bucket.put("b.x", b"9")
    assert sorted(await bucket.keys()) == ["a", "b.x"]
    assert await bucket.keys("b.") == ["b.x"]
    await bucket.delete("a")
    assert await bucket.get("a") is None
    assert await bucket.create("a", b"again") > newer


async def test_watching_a_bucket_tells_all_then_changes(bus: Bus) -> None:
    bucket = await bus.bucket("runs")
    for key in ("a", "b", "c"):
        await bucket.put(key, key.encode())
    await bucket.delete("b")
    seen: list[tuple[str, bytes | None]] = []
    async with aclosing(bucket.watch()) as watching:
        async for entry in watching:
            seen.append((entry.key, entry.value))
            if entry.key == "":
                await bucket.put("d", b"d")
                await bucket.delete("a")
            if entry.key == "a" and entry.value is None:
                break
    assert seen == [("a", b"a"), ("c", b"c"), ("", None), ("d", b"d"), ("a", None)]


async def test_an_empty_bucket_tells_so_at_once(bus: Bus) -> None:
    bucket = await bus.bucket("pacts")
    async with aclosing(bucket.watch()) as watching:
        assert (await asyncio.wait_for(anext(watching), 5)).key == ""


async def test_one_value_can_be_read_directly(bus: Bus) -> None:
    bucket = await bus.bucket("desired")
    revision = await bucket.put("s1.run", b"halt")
    assert await bus.last_value("desired", "s1.run") == Entry("s1.run", b"halt", revision)
    assert await bus.last_value("desired", "s1.other") is None


async def test_evidence_streams_are_made(bus: Bus) -> None:
    await bus.stream(AUDIT)
    assert await bus.append("audit.command", b"{}") == 1
    await bus.stream(AUDIT)


@pytest.mark.parametrize("name", ["bot", "", "a.b", "x y", "*", ">", "=", "grüße", "ev.>", "a=2Eb"])
def test_any_name_is_one_subject_token_and_comes_back(name: str) -> None:
    text = token(name)
    assert not set(text) & set(".*> \t\r\n")
    assert text
    assert name_of(text) == name
