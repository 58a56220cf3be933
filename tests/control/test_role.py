"""The role itself, over the bus in memory and the real one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.conftest import nats_server, role_bus, within

from checkrein.bus import subjects
from checkrein.bus.memory import MemoryServer
from checkrein.bus.messages import (
    Beat,
    BeatAnswer,
    BeatRun,
    CommandRequest,
    CommandState,
    LiveChanged,
    LiveQuery,
    LiveRun,
    Order,
    OrderRun,
    Progress,
    Registered,
    Registration,
    RunRecord,
    SessionRecord,
    decode,
    encode,
)
from checkrein.bus.orders import Inbox
from checkrein.bus.types import Bus, Message
from checkrein.events import codec
from checkrein.events.envelope import unpack
from checkrein.server import control
from checkrein.server.context import RoleContext
from checkrein.world import REAL

TASK = "a" * 32


@dataclass
class Buses:
    events: Bus
    control: Bus
    holder: Bus


@pytest.fixture(params=["memory", "nats"])
async def buses(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Buses]:
    if request.param == "memory":
        events, server = MemoryServer(), MemoryServer()
        made = Buses(events.connect(), server.connect(), server.connect())
        await made.events.stream(subjects.EVENTS)
        yield made
        for bus in (made.events, made.control, made.holder):
            await bus.close()
        return
    with nats_server(tmp_path) as server:
        async with (
            role_bus(server) as one, role_bus(server) as two, role_bus(server) as three,
        ):  # fmt: skip
            await one.stream(subjects.EVENTS)
            yield Buses(one, two, three)


@asynccontextmanager
async def role(buses: Buses, data: Path) -> AsyncIterator[None]:
    stop, ready = asyncio.Event(), asyncio.Event()
    context = RoleContext(
        world=REAL, role="control", data=data, bus=buses.events, control_bus=buses.control,
        stop=stop, ready=ready.set,
    )  # fmt: skip
    async with asyncio.TaskGroup() as group:
        group.create_task(control.run(context))
        await asyncio.wait_for(ready.wait(), 10)
        try:
            yield
        finally:
            stop.set()


@dataclass
class Supervisor:
    """Stops what it is told to at once, and says so."""

    bus: Bus
    session: str
    records: list[RunRecord]
    inbox: Inbox
    halted: dict[str, int] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)

    @classmethod
    async def start(cls, bus: Bus, session: str, key: bytes, runs: list[str]) -> "Supervisor":
        records = [
            RunRecord(
                run_id=run, task_id=TASK, agent="bot", room="", environment="", session=session,
                holder="supervisor", started_at=REAL.now_ns(),
            )
            for run in runs
        ]  # fmt: skip
        await know(bus, session, "supervisor", ["bot"])
        self = cls(bus, session, records, Inbox(session, key, REAL))
        await bus.subscribe(subjects.command(session), self.on_order)
        await self.register()
        return self

    async def register(self) -> Registered:
        message = encode(Registration(session=self.session, runs=self.records))
        data = await self.bus.request(subjects.registration(self.session), message)
        answer = decode(data, Registered)
        for order in answer.orders:
            await self.on_order(Message("", order))
        return answer

    async def on_order(self, message: Message) -> None:
        accepted = self.inbox.accept(message.data)
        order, said = accepted.order, list[Progress]()
        for run in accepted.runs:
            stages = ["probe"] if order.verb == "probe" else ["delivered", "freeze"]
            said += [self._say(order, run, stage) for stage in stages]
            if order.verb == "halt":
                self.halted[run.run_id] = run.epoch
        await self.bus.publish(subjects.receipts(self.session), encode(said))

    def _say(self, order: Order, run: OrderRun, stage: str) -> Progress:
        return Progress(
            command_id=order.command_id, session=self.session, run_id=run.run_id, epoch=run.epoch,
            stage=stage, ms=0.5, at=REAL.now_ns(), by="supervisor",  # type: ignore[arg-type]
            confirmed=stage != "delivered", detail="L2", nonce=order.nonce,
        )  # fmt: skip

    async def beat(self) -> BeatAnswer:
        lines = [BeatRun(run_id=record.run_id, status="running") for record in self.records]
        ended = [BeatRun(run_id=run, status="completed") for run in self.ended]
        beat = Beat(session=self.session, at=REAL.now_ns(), runs=lines, ended=ended)
        data = await self.bus.request(subjects.beat(self.session), encode(beat))
        return decode(data, BeatAnswer)


async def know(bus: Bus, session: str, kind: str, agents: list[str]) -> None:
    """As the api does before it grants the session."""
    record = SessionRecord(session=session, kind=kind, agents=agents, user="U", expires_at=0)  # type: ignore[arg-type]
    await (await bus.bucket(subjects.BUCKET_SESSIONS)).put(session, encode(record))


async def ask(bus: Bus, verb: str, target: str, **other: object) -> CommandState:
    request = CommandRequest(verb=verb, target=target, reason="t", issued_by="ann", **other)  # type: ignore[arg-type]
    return decode(await bus.request("ctl.command", encode(request), 10), CommandState)


async def live(bus: Bus) -> list[LiveRun]:
    data = await bus.request(subjects.CONTROL_RUNS, encode(LiveQuery()))
    return decode(data, list[LiveRun])


def key(data: Path) -> bytes:
    return bytes.fromhex((data / "keys" / "control.pub").read_text())


async def test_a_halt_end_to_end(buses: Buses, tmp_path: Path) -> None:
    async with role(buses, tmp_path):
        notices: list[LiveChanged] = []

        async def note(message: Message) -> None:
            notices.append(decode(message.data, LiveChanged))

        await buses.holder.subscribe(subjects.LIVE_CHANGED, note)
        runs = [f"run-{number}" for number in range(20)]
        held = await Supervisor.start(buses.holder, "s1", key(tmp_path), runs)
        assert (await held.beat()).unknown == []
        state = await ask(buses.events if buses.control is None else buses.holder, "halt", "all")
        assert state.done
        assert [line.confirmed for line in state.runs] == ["supervisor"] * 20
        assert sorted(held.halted) == sorted(runs)
        found = await live(buses.holder)
        assert {run.status for run in found} == {"halted"}
        await within(5, lambda: any(state.command_id in notice.commands for notice in notices))
        await within(5, lambda: any(notice.runs for notice in notices))
    # What had to be written down is, when the role has stopped.
    desired = await buses.control.bucket(subjects.BUCKET_DESIRED)
    assert sorted(await desired.keys()) == sorted(f"s1.{run}" for run in runs)
    commands = await buses.control.bucket(subjects.BUCKET_COMMANDS)
    (entry,) = await commands.entries()
    assert decode(entry.value or b"", CommandState).done
    assert await buses.control.last_position("AUDIT") >= 2
    told = []
    async with contextlib.aclosing(buses.events.read("EVENTS", after=0)) as stream:  # type: ignore[type-var]
        async for message in stream:
            envelope = unpack(message.data)
            assert envelope.recorder == "role:control"
            told += [codec.decode(raw) for raw in envelope.events]
            if len(told) >= 40:
                break
    assert sorted({type(event).__name__ for event in told}) == ["Command", "Receipt"]


async def test_a_restart_goes_on_where_the_last_one_stopped(buses: Buses, tmp_path: Path) -> None:
    async with role(buses, tmp_path):
        held = await Supervisor.start(buses.holder, "s1", key(tmp_path), ["r1", "r2"])
        first = await ask(buses.holder, "halt", "run:r1")
        assert first.done
    async with role(buses, tmp_path):
        assert [run.record.run_id for run in await live(buses.holder)] == ["r1", "r2"]
        again = await ask(buses.holder, "halt", "run:r1")
        assert again.runs[0].note.startswith("halted already")
        second = await ask(buses.holder, "halt", "run:r2")
        assert second.epoch > first.epoch + 1000
        assert second.done
        answer = await held.register()
        assert len(answer.orders) == 2
        held.records, held.ended = [], ["r1", "r2"]
        assert sorted((await held.beat()).ended) == ["r1", "r2"]
        states = await buses.holder.request(subjects.CONTROL_COMMANDS, b"")
        newest = [state.command_id for state in decode(states, list[CommandState])]
        assert newest == [second.command_id, again.command_id, first.command_id]
    for name in (subjects.BUCKET_RUNS, subjects.BUCKET_DESIRED):
        assert await (await buses.control.bucket(name)).keys() == []


async def test_a_run_that_control_does_not_know_is_asked_for(buses: Buses, tmp_path: Path) -> None:
    async with role(buses, tmp_path):
        held = await Supervisor.start(buses.holder, "s1", key(tmp_path), [])
        (record,) = (await Supervisor.start(buses.holder, "s2", key(tmp_path), ["known"])).records
        held.records = [_with(record, run_id="new", session="s1")]
        assert (await held.beat()).unknown == ["new"]
        await held.register()
        assert (await held.beat()).unknown == []


async def test_a_session_is_held_to_what_was_granted(buses: Buses, tmp_path: Path) -> None:
    async with role(buses, tmp_path):
        held = await Supervisor.start(buses.holder, "s1", key(tmp_path), ["r1"])
        held.records = [_with(held.records[0], run_id="r2", agent="other")]
        assert "not one of session s1" in (await held.register()).error
        await know(buses.holder, "s1", "supervisor", ["bot", "other"])
        async with asyncio.timeout(5):
            while (await held.register()).error:
                pass
        assert [run.record.run_id for run in await live(buses.holder)] == ["r1", "r2"]


async def test_bad_bytes_are_refused_and_reported(buses: Buses, tmp_path: Path) -> None:
    async with role(buses, tmp_path):
        state = decode(await buses.holder.request("ctl.command", b"\xc1"), CommandState)
        assert "not a CommandRequest" in state.error
        answer = decode(await buses.holder.request("reg.s1", b"\xc1"), Registered)
        assert "not a Registration" in answer.error
        await buses.holder.publish("rcpt.s1", b"\xc1")
        await buses.holder.publish("beat.s1", b"\xc1")
        assert (await ask(buses.holder, "halt", "agent:nobody")).error
    assert await buses.control.last_position("AUDIT") >= 4


async def test_a_halt_does_not_wait_for_what_cannot_be_written(tmp_path: Path) -> None:
    events, server = MemoryServer(), MemoryServer()
    buses = Buses(events.connect(), server.connect(), server.connect())
    async with role(buses, tmp_path):
        held = await Supervisor.start(buses.holder, "s1", key(tmp_path), ["r1"])
        events.up = False
        kept = dict(server.buckets)
        for bucket in kept.values():
            bucket.history = _Broken(bucket.history)  # type: ignore[assignment]
        state = await ask(buses.holder, "halt", "all")
        assert state.runs[0].confirmed == "supervisor"
        assert list(held.halted) == ["r1"]
        for bucket in kept.values():
            bucket.history.broken = False  # type: ignore[attr-defined]
        desired = server.buckets[subjects.BUCKET_DESIRED].history
        await within(5, lambda: "s1.r1" in desired)
        events.up = True
        await buses.events.stream(subjects.EVENTS)
    assert await buses.events.last_position("EVENTS") >= 1
    for bus in (buses.events, buses.control, buses.holder):
        await bus.close()


class _Broken(dict[str, object]):
    """A bucket on a disk that refuses."""

    broken = True

    def __setitem__(self, key: str, value: object) -> None:
        from checkrein.bus.types import Unreachable

        if self.broken:
            raise Unreachable("the disk is away")
        super().__setitem__(key, value)


def _with(record: RunRecord, **other: str) -> RunRecord:
    import msgspec

    return msgspec.structs.replace(record, **other)
