"""The edge of the demo: the live stream it follows, the processes it starts and ends."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from checkrein.server.demo import cast as cast_module
from checkrein.server.demo import troupe
from checkrein.server.demo.cast import VISITORS, Part
from checkrein.server.demo.story import events_of, play
from checkrein.world.ids import uuid7_from

GOOD = Part("good", "behaves", "plain")
LOOPS = Part("loops", "repeats itself", "plain", ("loop",), begins_s=0.1)


def frame(number: int, event: dict[str, Any]) -> bytes:
    return f"id: {number}:0\ndata: {json.dumps(event)}\n\n".encode()


class Stream:
    """A server with nothing but a live stream: each connection gets the next of `scripts`."""

    def __init__(self, *scripts: list[bytes], status: int = 200) -> None:
        self.scripts = list(scripts)
        self.status = status
        self.asked: list[dict[str, str]] = []
        self.answering: set[asyncio.Task[None]] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: Any = asyncio.current_task()
        self.answering.add(task)
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()
            self.answering.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line]
        self.asked.append({name.lower(): value for name, value in lines})
        writer.write(
            f"HTTP/1.1 {self.status} X\r\nContent-Type: text/event-stream\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        for part in self.scripts.pop(0) if self.scripts else []:
            writer.write(part)
        await writer.drain()
        if not self.scripts and self.status == 200:
            await reader.read()


@asynccontextmanager
async def serving(stream: Stream) -> AsyncIterator[str]:
    server = await asyncio.start_server(stream.answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*stream.answering)


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    """The agents are programs that wait; who was started is written down."""
    started: list[Part] = []

    def command(self: troupe.Troupe, part: Part) -> list[str]:
        started.append(part)
        return ["sleep", "600"]

    monkeypatch.setattr(troupe.Troupe, "command", command)
    return started


LATER = uuid7_from(1 << 47, bytes(10))
"""A run that begins after any play."""
END = {"type": "run.end", "agent": "good", "run_id": LATER, "status": "completed"}
SIGNAL = {
    "type": "signal",
    "agent": "loops",
    "run_id": LATER,
    "detector": "loop",
    "level": "breach",
    "why": "again",
}


async def test_all_caught(
    tmp_path: Path, actors: list[Part], capsys: pytest.CaptureFixture[str]
) -> None:
    stream = Stream([b'event: hello\ndata: {"position":1}\n\n', frame(7, END)], [frame(8, SIGNAL)])
    async with serving(stream) as url:
        cast = [GOOD, LOOPS]
        assert await play(url, "secret", tmp_path, True, True, cast=cast, seconds_max=10)
    assert stream.asked[0]["authorization"] == "Bearer secret"
    assert "last-event-id" not in stream.asked[0]
    assert stream.asked[1]["last-event-id"] == "7:0"
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["what"] for line in lines[:-1]] == ["run.end", "caught", "signal", "caught"]
    assert set(lines[-1]["caught"]) == {"good", "loops"}
    assert lines[-1]["caught"]["loops"]["by"] == "loop"
    assert lines[-1]["missed"] == {}


async def test_one_missed(
    tmp_path: Path, actors: list[Part], capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Stream([frame(7, END)])) as url:
        assert not await play(url, "t", tmp_path, True, cast=[GOOD, LOOPS], seconds_max=0.3)
    assert actors == [GOOD, LOOPS]
    out = capsys.readouterr().out
    assert "loops" in out
    assert "not caught" in out
    assert "checkrein halt" not in out
    assert not [p for p in psutil.Process().children() if p.name() == "sleep"]


async def test_what_is_not_installed_is_said(
    tmp_path: Path,
    actors: list[Part],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(cast_module.LIBRARIES, "plain", ("no_such_library",))
    async with serving(Stream([])) as url:
        assert not await play(url, "t", tmp_path, True, True, cast=[GOOD], seconds_max=0.3)
    assert actors == []
    assert "cannot start without no_such_library" in capsys.readouterr().out


async def test_goes_on_for_the_visitor_until_cancelled(
    tmp_path: Path, actors: list[Part], capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Stream([frame(7, END)])) as url:
        demo = asyncio.ensure_future(play(url, "t", tmp_path, False, cast=[GOOD]))
        async with asyncio.timeout(10):
            while VISITORS not in actors:
                await asyncio.sleep(0.01)
        assert not demo.done()
        demo.cancel()
        with pytest.raises(asyncio.CancelledError):
            await demo
    assert "checkrein halt" in capsys.readouterr().out
    assert not [p for p in psutil.Process().children() if p.name() == "sleep"]


async def test_refused(tmp_path: Path, actors: list[Part]) -> None:
    async with serving(Stream([], status=401)) as url:
        with pytest.raises(ExceptionGroup) as refused:
            await play(url, "wrong", tmp_path, True, cast=[GOOD], seconds_max=5)
    assert isinstance(refused.value.exceptions[0], httpx.HTTPStatusError)
    assert actors == []


def test_agents_are_told_nothing_of_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from checkrein.world import SimWorld

    monkeypatch.setenv("OPENAI_API_KEY", "the user's own")
    made = troupe.Troupe(SimWorld(1), "http://s", "tok", "http://gw", tmp_path)
    chain = Part("planner", "", "", chain=True)
    first, second = made.environment(chain), made.environment(Part("executor", "", "", chain=True))
    assert first["TRACEPARENT"] == second["TRACEPARENT"]
    assert "TRACEPARENT" not in made.environment(GOOD)
    assert not [name for name in first if name.startswith(("OPENAI_", "ANTHROPIC_"))]
    assert made.command(chain)[1:7] == ["-m", "checkrein", "run", "--agent", "planner", "--room"]
    assert "--gateway" in made.command(chain)


def test_a_stranger_has_two_variables_and_nothing_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from checkrein.world import SimWorld

    monkeypatch.setenv("CHECKREIN_TOKEN", "the user's own")
    made = troupe.Troupe(SimWorld(1), "http://s", "tok", "http://gw", tmp_path)
    stranger = Part("bookkeeper", "", "", stranger=True)
    environment = made.environment(stranger, "cra_1")
    assert environment["OPENAI_BASE_URL"] == "http://gw/openai/v1"
    assert environment["OPENAI_API_KEY"] == "cra_1"
    assert not [name for name in environment if name.startswith("CHECKREIN_")]
    assert made.command(stranger) == [sys.executable, str(stranger.program)]


async def test_a_stranger_that_cannot_be_given_a_key_is_missed_and_the_others_play(
    tmp_path: Path,
    actors: list[Part],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refused(*_: Any) -> str:
        raise httpx.ConnectError("nobody is there")

    monkeypatch.setattr("checkrein.server.demo.story.introduce", refused)
    async with serving(Stream([frame(7, END)])) as url:
        cast = [Part("bookkeeper", "pays", "plain HTTP", ("scope",), stranger=True), GOOD]
        assert not await play(url, "t", tmp_path, True, True, cast=cast, seconds_max=0.5)
    assert actors == [GOOD]
    assert "could not be given a key" in capsys.readouterr().out


async def test_events_of_a_stream() -> None:
    async def lines() -> AsyncIterator[str]:
        for line in (
            ": still here", "", "event: hello", 'data: {"position": 3}', "",
            "id: 1:0", 'data: {"a":', "data: 1}", "", "data: [1]", "", "data: {broken", "",
            "id: 1:1", 'data: {"b": 2}', "",
        ):  # fmt: skip
            yield line

    found = [pair async for pair in events_of(lines())]
    assert found == [("1:0", {"a": 1}), ("1:1", {"b": 2})]
