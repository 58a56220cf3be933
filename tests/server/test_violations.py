"""The servers' logs: what is in a line, how a log is followed, and whose doing it is."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from checkrein.bus import subjects
from checkrein.bus.memory import MemoryServer
from checkrein.bus.messages import LiveQuery, LiveRun, RunRecord, SessionRecord, decode, encode
from checkrein.bus.types import Message
from checkrein.events import codec
from checkrein.events.envelope import unpack
from checkrein.events.types import ScopeDecision
from checkrein.server import violations
from checkrein.server.context import RoleContext
from checkrein.server.violations import Position, Restraint, Tail, Violation, Violations, parse
from checkrein.world import REAL
from tests.conftest import within

USER = "UD34CNNDUKC3V3VM32ZBDLET5MUSL56H5PJAOAZ5VDLDAF5RYJGT472O"
OTHER = "UA3GMMKTEGF6OXI35QJGACWN7JZV7SAHQPJMZ6KULS3HEWYD6ZA4BIBY"
ACCOUNT = "AAYWFIJWHBXOQZFGRKMIB5L22KOQGDRGZ5VFATUAL56ULVT5UVZS4UUC"


def line(what: str, user: str = USER, name: str = "bot", number: int = 1) -> bytes:
    return (
        f"[2111] 2026/11/21 04:04:58.{number:06d} [ERR] 127.0.0.1:34616 - cid:6 - "
        f'"v2.16.0:python3:{name}" - "{ACCOUNT}/checkrein/jwt:{user}" - {what}'
    ).encode()


@pytest.mark.parametrize(
    ("what", "tried"),
    [
        ('Publish Violation - Subject "ev.other.03"', "publish ev.other.03"),
        ('Publish Violation - Subject "a\\"b\\\\c"', 'publish a"b\\c'),
        ('Subscription Violation - Subject "ev.>", SID 2', "subscribe ev.>"),
        ('Subscription Violation - Subject "cmd.*", Queue: "grp", SID 4', "subscribe cmd.*"),
        ('Publish Violation - Subject "\\x01"', "publish \\x01"),
    ],
)
def test_a_violation_is_read(what: str, tried: str) -> None:
    found = parse(line(what))
    assert found is not None
    assert (found.user, found.tried) == (USER, tried)
    assert found.line != parse(line(what, number=2)).line  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "name",
    [
        f'x\\" - \\"{ACCOUNT}/checkrein/jwt:{OTHER}\\" - Publish Violation - Subject \\"q\\"',
        f'x\\\\\\" - \\"A/checkrein/jwt:{OTHER}\\" - Publish Violation - Subject \\"q',
        "Publish Violation - Subject ",
    ],
)
def test_a_name_that_looks_like_a_violation_blames_nobody_else(name: str) -> None:
    found = parse(line('Publish Violation - Subject "ev.x.1"', name=name))
    assert found is not None
    assert (found.user, found.tried) == (USER, "publish ev.x.1")
    assert parse(line("authentication error", name=name)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[1] 2026/11/21 04:04:58.1 [INF] Server is ready",
        b"\xff" * 100,
        b'"x" - Publish Violation - Subject "y"',
        line("Publish Violation - Subject"),
    ],
)
def test_other_lines_say_nothing(data: bytes) -> None:
    assert parse(data) is None


# --- following -------------------------------------------------------------------------------


def test_a_log_is_read_once_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "nats-events.log"
    tail = Tail(path, Position())
    assert list(tail.lines()) == []
    path.write_bytes(b"one\ntwo\nthr")
    assert list(tail.lines()) == [b"one", b"two"]
    assert list(tail.lines()) == []
    with open(path, "ab") as file:
        file.write(b"ee\n")
    again = Tail(path, tail.position)  # as after a restart
    assert list(again.lines()) == [b"three"]


def test_a_log_begun_anew_is_read_to_the_end_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "nats-events.log"
    path.write_bytes(b"one\n")
    tail = Tail(path, Position())
    assert list(tail.lines()) == [b"one"]
    with open(path, "ab") as file:
        file.write(b"two\n")
    path.replace(path.with_suffix(".old.log"))
    path.write_bytes(b"three\n")
    assert list(tail.lines()) == [b"two", b"three"]
    assert list(tail.lines()) == []
    os.truncate(path, 0)
    with open(path, "ab") as file:
        file.write(b"4\n")
    assert list(tail.lines()) == [b"4"]


def test_a_log_that_grows_too_fast_is_passed_over_and_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(violations, "READ_BYTES_MAX", 1000)
    monkeypatch.setattr(violations, "BEHIND_BYTES_MAX", 5000)
    monkeypatch.setattr(violations, "LOG_BYTES_MAX", 9000)
    path = tmp_path / "nats-events.log"
    path.write_bytes(b"0123456789abcde\n" * 1000)
    tail = Tail(path, Position())
    assert len(list(tail.lines())) <= 1000 // 16 + 1
    assert tail.skipped_bytes == 15_000
    tail.trim()
    assert path.stat().st_size == 0
    assert path.with_suffix(".old.log").stat().st_size == 16_000
    with open(path, "ab") as file:
        file.write(b"next\n")
    assert list(tail.lines()) == [b"next"]


def test_the_same_attempt_is_told_once_a_minute_and_few_a_second() -> None:
    restraint, second = Restraint(), 1_000_000_000
    first = Violation(USER, "publish a", "1")
    assert restraint.lets(first, 0)
    assert not restraint.lets(first, 59 * second)
    assert restraint.lets(first, 60 * second)
    let = [restraint.lets(Violation(USER, f"publish {n}", "1"), 90 * second) for n in range(1000)]
    assert sum(let) == violations.TOLD_PER_S_MAX
    assert restraint.left_out == 1 + 1000 - violations.TOLD_PER_S_MAX
    assert restraint.lets(Violation(OTHER, "publish a", "1"), 91 * second)


# --- whose doing it is -----------------------------------------------------------------------


class House:
    def __init__(self, data: Path) -> None:
        self.data = data
        self.log = data / "log" / "nats-events.log"
        self.log.parent.mkdir()
        self.events, self.controls = MemoryServer(), MemoryServer()
        self.bus, self.control = self.events.connect(), self.controls.connect()
        self.runs: list[RunRecord] = []

    async def open(self) -> None:
        await self.bus.stream(subjects.EVENTS)
        await self.control.subscribe(subjects.CONTROL_RUNS, self._runs)

    async def _runs(self, message: Message) -> None:
        asked = decode(message.data, LiveQuery)
        found = [
            LiveRun(
                record=run, status="running", step=0, epoch=0, can_halt=False, can_halt_why="",
                probed_ms_ago=None, beat_ms_ago=0.0,
            )
            for run in self.runs if run.session == asked.session
        ]  # fmt: skip
        await self.control.respond(message, encode(found))

    async def grant(self, session: str, agents: list[str], user: str, *earlier: str) -> None:
        record = SessionRecord(
            session=session, kind="sdk", agents=agents, user=user, expires_at=0, room="lab",
            earlier=list(earlier),
        )  # fmt: skip
        bucket = await self.control.bucket(subjects.BUCKET_SESSIONS)
        await bucket.put(session, encode(record))

    def write(self, *lines: bytes) -> None:
        with open(self.log, "ab") as file:
            file.write(b"".join(each + b"\n" for each in lines))

    def told(self) -> list[ScopeDecision]:
        messages = self.events.streams["EVENTS"].messages.values()
        found = [codec.decode(raw) for m in messages for raw in unpack(m.data).events]
        return [event for event in found if isinstance(event, ScopeDecision)]

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        context = RoleContext(
            world=REAL, role="watch", data=self.data, bus=self.bus, control_bus=self.control,
            stop=asyncio.Event(), ready=lambda: None,
        )  # fmt: skip
        task = asyncio.get_running_loop().create_task(Violations(context).run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    await house.open()
    yield house
    await house.bus.close()
    await house.control.close()


async def test_it_is_told_of_the_session_behind_the_key_and_its_latest_run(house: House) -> None:
    house.runs = [
        RunRecord(
            run_id=run_id, task_id="t" + run_id, agent=agent, room="here", environment="e",
            session=session, holder="sdk", started_at=started,
        )
        for run_id, agent, session, started in (
            ("r1", "bot", "s1", 5), ("r2", "bot2", "s1", 9), ("r3", "x", "s2", 99),
        )
    ]  # fmt: skip
    async with house.following():
        await house.grant("s1", ["bot", "bot2"], OTHER, USER)  # since the follower began
        house.write(line('Publish Violation - Subject "cmd.s2"'))
        await within(5, house.told)
    (event,) = house.told()
    assert (event.agent, event.run_id, event.task_id, event.room) == ("bot2", "r2", "tr2", "here")
    assert (event.rule, event.guard, event.verdict) == ("forgery", "bus", "deny")
    assert event.reason == "session s1 (sdk of bot, bot2) may not publish cmd.s2"


async def test_a_restart_repeats_nothing_and_passes_nothing_over(house: House) -> None:
    await house.grant("s1", ["bot"], USER)
    async with house.following():
        house.write(line('Publish Violation - Subject "ev.a.1"'))
        await within(5, house.told)
        await within(5, lambda: (house.data / "watch" / violations.POSITIONS_FILE).exists())
    house.write(line('Publish Violation - Subject "ev.b.1"', number=2))
    async with house.following():
        await within(5, lambda: len(house.told()) == 2)
    (house.data / "watch" / violations.POSITIONS_FILE).unlink()
    async with house.following():
        house.write(line('Publish Violation - Subject "ev.c.1"', number=3))
        await within(5, lambda: len(house.told()) == 3)
    told = [event.action["name"] for event in house.told()]
    assert told == ["publish ev.a.1", "publish ev.b.1", "publish ev.c.1"]
    assert {event.run_id[:8] for event in house.told()} == {"outside-"}


async def test_a_key_of_no_session_is_named_to_nobody(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    async with house.following():
        house.write(line('Publish Violation - Subject "ev.a.1"'))
        await within(5, lambda: USER in caplog.text)
    assert house.told() == []
