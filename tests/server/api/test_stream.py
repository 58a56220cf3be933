"""The live stream: order, filters, going on where it was, slow readers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from checkrein.events.envelope import CHAIN_START, Envelope, as_raw
from checkrein.server.api import hub
from checkrein.server.api.hub import Filter, Hub, Watcher
from checkrein.server.api.tail import Seen, Tail
from tests.server.api.conftest import Stand, event, eventually


class Reader:
    """Reads server-sent events off an open answer."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def next(self) -> tuple[str, str, Any]:
        """The next message as (name, id, data)."""
        name, ident, data = "", "", ""
        async with asyncio.timeout(5):
            async for line in self._lines:
                field, _, value = line.partition(": ")
                if not line and data:
                    return name, ident, json.loads(data)
                if field == "event":
                    name = value
                elif field == "id":
                    ident = value
                elif field == "data":
                    data = value
        raise AssertionError("the stream ended")

    async def events(self, number: int) -> list[tuple[str, dict[str, Any]]]:
        """The next `number` events as (id, event); other messages are passed over."""
        found = []
        while len(found) < number:
            name, ident, data = await self.next()
            if not name:
                found.append((ident, data))
        return found


@asynccontextmanager
async def watching(stand: Stand, last: str = "", **query: str) -> AsyncIterator[Reader]:
    headers = {"Last-Event-ID": last} if last else {}
    async with (
        stand.client() as client,
        client.stream("GET", "/api/v1/stream", params=query, headers=headers) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        reader = Reader(answer)
        assert (await reader.next())[0] == "hello"
        yield reader


def many(first: int, last: int, **fields: Any) -> list[dict[str, Any]]:
    return [event(seq, "checkpoint", **fields) for seq in range(first, last + 1)]


async def test_events_come_in_order_as_they_happen(stand: Stand) -> None:
    async with watching(stand) as reader:
        await stand.publish(*many(1, 3))
        await stand.publish(*many(4, 5))
        found = await reader.events(5)
    assert [e["seq"] for _, e in found] == [1, 2, 3, 4, 5]
    assert [ident for ident, _ in found] == ["1:0", "1:1", "1:2", "2:0", "2:1"]


@pytest.mark.parametrize(
    ("last", "expected"),
    [("0:0", [1, 2, 3, 4, 5, 6]), ("1:0", [2, 3, 4, 5, 6]), ("1:2", [4, 5, 6]), ("2:1", [6]),
     ("3:0", [])],
)  # fmt: skip
async def test_a_reader_goes_on_where_it_was(stand: Stand, last: str, expected: list[int]) -> None:
    await stand.publish(*many(1, 3))
    await stand.publish(*many(4, 5))
    await stand.publish(*many(6, 6))
    async with watching(stand, last=last) as reader:
        await stand.publish(*many(7, 8))
        found = await reader.events(len(expected) + 2)
    assert [e["seq"] for _, e in found] == [*expected, 7, 8]


async def test_nothing_is_lost_or_repeated_while_events_flow(stand: Stand) -> None:
    """Comes and goes 20 times while a publisher never pauses."""
    stop = asyncio.Event()

    async def publish() -> int:
        seq = 0
        while not stop.is_set():
            await stand.publish(*many(seq + 1, seq + 7))
            seq += 7
            await asyncio.sleep(0.001)
        return seq

    found: list[int] = []
    last = "0:0"
    async with asyncio.TaskGroup() as group:
        publishing = group.create_task(publish())
        for _ in range(20):
            async with watching(stand, last=last) as reader:
                for ident, e in await reader.events(30):
                    found.append(e["seq"])
                    last = ident
        stop.set()
    assert publishing.result() > 0
    assert found == list(range(1, len(found) + 1))


async def test_filters_leave_out_the_rest(stand: Stand) -> None:
    async with watching(stand, types="signal,run.end", agent="b") as reader:
        await stand.publish(*many(1, 3))
        await stand.publish(event(1, "signal", agent="b", recorder="r2", signal_id="s",
                                  detector="loop", level="warn", why="w"))  # fmt: skip
        await stand.publish(event(2, "checkpoint", agent="b", recorder="r2"))
        await stand.publish(event(3, "run.end", agent="b", recorder="r2", status="failed"))
        found = await reader.events(2)
    assert [e["type"] for _, e in found] == ["signal", "run.end"]


async def test_what_is_no_longer_kept_is_told(stand: Stand) -> None:
    for seq in range(1, 6):
        await stand.publish(*many(seq, seq))
    async with watching(stand, last="5:0") as reader:  # the live tail is here now
        stream = stand.events_server.streams["EVENTS"]
        for position in (1, 2, 3):
            del stream.messages[position]
        async with watching(stand, last="1:0") as late:
            name, _, data = await late.next()
            assert (name, data["messages"]) == ("skipped", 3)
            assert [e["seq"] for _, e in await late.events(2)] == [4, 5]
        await stand.publish(*many(6, 6))
        assert [e["seq"] for _, e in await reader.events(1)] == [6]


async def test_a_place_that_never_was_begins_anew_and_says_so(stand: Stand) -> None:
    await stand.publish(*many(1, 2))
    async with watching(stand, last="999:0") as reader:
        assert (await reader.next())[0] == "skipped"
        await stand.publish(*many(3, 3))
        assert [e["seq"] for _, e in await reader.events(1)] == [3]


@pytest.mark.parametrize("last", ["x", "1", "1:2:3", "-1:0", "1:0\u0661", "9" * 40 + ":0"])
async def test_a_broken_place_is_refused(stand: Stand, last: str) -> None:
    async with stand.client() as client:
        answer = await client.get("/api/v1/stream", params={"after": last})
    assert answer.status_code == 400
    assert "POSITION:INDEX" in answer.json()["detail"] + answer.json()["do"]


async def test_the_stream_ends_when_the_server_stops(stand: Stand) -> None:
    async with watching(stand) as reader:
        stand.stop.set()
        with pytest.raises(AssertionError, match="the stream ended"):
            await reader.next()


async def test_a_silent_stream_says_that_it_is_there() -> None:
    watcher = Watcher(Filter())
    async with asyncio.timeout(5):
        async for chunk in watcher.chunks(beat_s=0.01):
            assert chunk == b": still here\n\n"
            watcher.close()


def seen_events(first: int, last: int) -> list[Seen]:
    raws = [as_raw(e) for e in many(first, last)]
    seqs = list(range(first, last + 1))
    envelope = Envelope("rec-1", "support-bot", 4, first - 1, CHAIN_START, seqs, raws)
    return Tail().take(first, "support-bot", envelope)


async def test_a_slow_reader_is_told_how_much_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "QUEUE_EVENTS_MAX", 10)
    hall = Hub()
    watcher = Watcher(Filter())
    hall.join(watcher)
    hall.publish(1, seen_events(1, 25))
    assert hall.skipped == 15
    chunks = watcher.chunks(beat_s=5)
    first = await anext(chunks)
    assert first.count(b"id: ") == 10
    hall.publish(26, seen_events(26, 27))
    rest = await anext(chunks)
    assert rest.startswith(b'event: skipped\ndata: {"events":15,')
    assert rest.count(b"id: ") == 2
    hall.leave(watcher)
    assert hall.skipped == 15
    assert hall.watchers == set()


async def test_a_slow_reader_holds_nobody_up(stand: Stand) -> None:
    """One reader never reads; another gets everything, and the first is told later."""
    big = "x" * 20_000
    async with watching(stand) as slow, watching(stand) as quick:
        for seq in range(1, 1201):
            await stand.publish(event(seq, "checkpoint", name=big))
            found = await quick.events(1)
            assert found[0][1]["seq"] == seq
        got, skipped = 0, 0
        while got + skipped < 1200:
            name, _, data = await slow.next()
            if name == "skipped":
                skipped += data["events"]
            else:
                got += 1
    assert skipped > 0
    assert got + skipped == 1200


async def test_a_watcher_that_leaves_is_forgotten(stand: Stand) -> None:
    async def watchers() -> str:
        async with stand.client() as client:
            text = (await client.get("/metrics")).text
        return next(line for line in text.splitlines() if line.startswith("checkrein_stream_wa"))

    async with watching(stand):
        assert await watchers() == "checkrein_stream_watchers 1"

    async def gone() -> bool:
        await stand.publish(*many(1, 1))
        return await watchers() == "checkrein_stream_watchers 0"

    await eventually(gone)
