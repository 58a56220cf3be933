"""The role `watch` over the bus in memory: signals, incidents, orders, pacts, restarts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from checkrein.bus import subjects
from checkrein.bus.memory import MemoryBus, MemoryServer
from checkrein.bus.messages import CommandRequest, CommandRun, CommandState, decode, encode
from checkrein.bus.pacts import Earlier, PactSet, PactText
from checkrein.bus.types import Entry, Message
from checkrein.events import codec
from checkrein.events.envelope import CHAIN_START, Envelope, advance, pack, partition_of, unpack
from checkrein.events.types import Base, Incident, Signal
from checkrein.policy.pact import default_pact, load
from checkrein.server.context import RoleContext
from checkrein.server.watch import STATE_FILE, Pacts, Watch
from checkrein.world import REAL
from tests.detect.loops import Made
from tests.detect.made import Run

TORN = b"no envelope"
LONG = "a long answer that is always the same, so that nothing new comes of asking again at all"


class House:
    """Two buses, a control that takes orders, and what was asked of it."""

    def __init__(self, data: Path) -> None:
        self.events, self.controls = MemoryServer(), MemoryServer()
        self.bus, self.control = MemoryBus(self.events), MemoryBus(self.controls)
        self.data = data
        self.asked: list[CommandRequest] = []
        self.answers: list[Any] = []
        self.last: dict[str, tuple[int, bytes]] = {}

    async def open(self) -> None:
        await self.bus.stream(subjects.EVENTS)
        await self.control.subscribe(subjects.CONTROL_COMMAND, self._command)

    async def close(self) -> None:
        await self.bus.close()
        await self.control.close()

    async def _command(self, message: Message) -> None:
        request = decode(message.data, CommandRequest)
        self.asked.append(request)
        lines = [CommandRun(run_id=request.target.removeprefix("run:"), agent="bot")]
        await self.control.respond(message, encode(CommandState(
            command_id=request.command_id, verb=request.verb, target=request.target,
            reason=request.reason, issued_by=request.issued_by, asked_at=0, runs=lines,
        )))  # fmt: skip

    async def record(self, *events: Base | list[Base]) -> None:
        """As the run's shipper would."""
        flat = [each for part in events for each in (part if isinstance(part, list) else [part])]
        recorder = flat[0].recorder
        prev, chain = self.last.get(recorder, (0, CHAIN_START))
        raws = [msgspec.Raw(codec.encode(event)) for event in flat]
        for raw in raws:
            chain = advance(chain, raw)
        self.last[recorder] = (flat[-1].seq, chain)
        agent, partition = flat[0].agent, partition_of(flat[0].task_id)
        seqs = [event.seq for event in flat]
        envelope = Envelope(recorder, agent, partition, prev, chain, seqs, raws)
        await self.bus.append(subjects.events(agent, partition, envelope.recorder), pack(envelope))

    def told(self, kind: type[Any]) -> list[Any]:
        """What watch has put into the stream."""
        found = []
        for message in self.events.streams["EVENTS"].messages.values():
            if message.data == TORN:
                continue
            envelope = unpack(message.data)
            if envelope.recorder == "role:watch":
                found += [codec.decode(raw) for raw in envelope.events]
        return [each for each in found if isinstance(each, kind)]

    def levels(self) -> list[str]:
        return [f"{each.detector} {'runaway' if each.runaway else each.level}"
                for each in self.told(Signal)]  # fmt: skip

    @asynccontextmanager
    async def watching(self, *, killed: bool = False) -> AsyncIterator[Watch]:
        stop, ready = asyncio.Event(), asyncio.Event()
        context = RoleContext(
            world=REAL, role="watch", data=self.data, bus=MemoryBus(self.events),
            control_bus=MemoryBus(self.controls), stop=stop, ready=ready.set,
        )  # fmt: skip
        watch = Watch(context)
        task = asyncio.get_running_loop().create_task(watch.run())
        try:
            async with asyncio.timeout(5):
                await ready.wait()
            yield watch
        finally:
            if killed:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            else:
                stop.set()
                await task
            await context.bus.close()
            await context.control_bus.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    await house.open()
    yield house
    await house.close()


async def until(condition: Any, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


def loop(run: Run, times: int) -> list[Base]:
    return [event for _ in range(times) for event in run.calls(Made("search", {"q": "x"}, LONG))]


async def test_a_loop_becomes_signals_an_incident_and_an_order(house: House) -> None:
    run = Run()
    async with house.watching():
        await house.record(run.starts(), loop(run, 8))
        await until(lambda: house.asked and len(house.told(Signal)) >= 3)
        await until(lambda: "incidents" in house.controls.buckets
                    and house.controls.buckets["incidents"].history)  # fmt: skip
    assert house.levels() == ["loop warn", "loop breach", "loop runaway"]
    (order,) = house.asked
    assert (order.verb, order.target, order.issued_by) == (
        "halt", f"run:{run.run_id}", "rule:loop",
    )  # fmt: skip
    assert "8 times" in order.reason
    kept = [msgspec.msgpack.decode(entry.value or b"")
            for entry in house.controls.buckets["incidents"].history.values()]  # fmt: skip
    assert [each["severity"] for each in kept] == ["critical"]
    assert {each.incident_id for each in house.told(Incident)} == {kept[0]["incident_id"]}


async def test_a_restart_repeats_nothing_and_loses_nothing(house: House) -> None:
    run = Run()
    async with house.watching():
        await house.record(run.starts(), loop(run, 4))
        await until(lambda: house.told(Signal))
    assert (house.data / "watch" / STATE_FILE).exists()
    await house.record(loop(run, 2))
    async with house.watching():
        await until(lambda: len(house.told(Signal)) == 2)
        await house.record(loop(run, 2))
        await until(lambda: house.asked)
    assert house.levels() == ["loop warn", "loop breach", "loop runaway"]


async def test_a_kill_without_a_snapshot_repeats_nothing(house: House) -> None:
    run = Run()
    async with house.watching(killed=True):
        await house.record(run.starts(), loop(run, 8))
        await until(lambda: len(house.told(Signal)) == 3)
    house.events.streams["EVENTS"].seen.clear()
    async with house.watching() as watch:
        await until(lambda: not watch.watcher.catching_up)
        await until(lambda: not watch.watcher.outbox and not watch.watcher.asks)
    assert house.levels() == ["loop warn", "loop breach", "loop runaway"]
    assert len({order.command_id for order in house.asked}) == 1


async def test_a_torn_state_file_is_said_and_all_is_read_again(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run()
    await house.record(run.starts(), loop(run, 3))
    (house.data / "watch").mkdir()
    (house.data / "watch" / STATE_FILE).write_bytes(b"torn")
    async with house.watching():
        await until(lambda: house.levels() == ["loop warn"])
    assert "cannot be used, reading all again" in caplog.text


def in_force(text: str) -> bytes:
    texts = [PactText("bot", text)]
    return encode(PactSet(agent="bot", environment="test", revision=1, enforced=texts, issued_at=1))


def test_events_are_judged_by_what_was_in_force_when_they_happened() -> None:
    pacts = Pacts()
    first, second = load("pact: one"), load("pact: two")
    level = PactSet(
        agent="bot", environment="test", revision=1, issued_at=100,
        enforced=[PactText("bot", "pact: two")],
        earlier=[Earlier(since=20), Earlier(since=50, enforced=[PactText("bot", "pact: one")])],
    )  # fmt: skip
    pacts.take(Entry("bot.test", encode(level), 1))
    assert pacts.of("bot", "test", at_ns=49) == default_pact()
    assert pacts.of("bot", "test", at_ns=50) == pacts.of("bot", "test", at_ns=99) == first
    assert pacts.of("bot", "test", at_ns=100) == pacts.of("bot", "test") == second
    assert pacts.of("bot", "test", first.version, 500) == first
    assert pacts.of("bot", "test", "unknown", 500) == second
    assert pacts.of("bot", "test", at_ns=1) == second
    assert pacts.of("bot", "lab", at_ns=100) == default_pact()


async def test_what_is_in_force_holds_by_agent_and_environment(house: House) -> None:
    bucket = await house.control.bucket(subjects.BUCKET_PACT_LEVELS)
    await bucket.put("bot.test", in_force("pact: strict\ntools: {read: }"))
    await bucket.put("bot.production", in_force("pact: lax\ntools: {read: , wire: }"))
    first, second = Run(1), Run(2)
    async with house.watching() as watch:
        await house.record(first.starts(), first.calls(Made("wire", {}, LONG)))
        await until(lambda: house.levels() == ["unknown-tool breach"])
        await bucket.put("bot.test", in_force("pact: lax\ntools: {read: , wire: }"))
        await until(lambda: watch._pacts.of("bot", "test").pact == "lax")
        await bucket.put("bot.test", in_force("pact: [broken"))
        await bucket.put("bot.test", b"\xc1")
        await bucket.put("default.test", in_force("pact: all"))
        await until(lambda: watch._pacts.of("other", "test").pact == "all")
        assert watch._pacts.of("bot", "test").pact == "lax"
        await bucket.put(
            "bot.test", in_force("pact: strict\nbudgets: {tool_calls: 1}\nwarn_at: 100%")
        )
        await until(lambda: watch._pacts.of("bot", "test").pact == "strict")
        await house.record(second.starts(), second.calls(Made("wire", {}, LONG)))
        await until(lambda: "budget warn" in house.levels())


async def test_what_is_forged_or_torn_is_passed_over(house: House) -> None:
    good, forged = Run(1), Run(2, agent="other")
    async with house.watching() as watch:
        await house.bus.append(subjects.events("bot", 0), TORN)
        raw = msgspec.Raw(codec.encode(forged.refused("tools", "tools.pact", "wire")))
        for agent in ("other", "bot"):
            envelope = Envelope("r", agent, 0, 0, CHAIN_START, [1], [raw])
            await house.bus.append(subjects.events("bot", 0), pack(envelope))
        await house.record(good.starts(), good.refused("tools", "tools.pact", "wire"))
        await until(lambda: house.levels() == ["scope breach"])
        assert watch.watcher.refused_count == 3
    assert {each.agent for each in house.told(Signal)} == {"bot"}


async def test_orders_wait_for_a_control_that_is_away(house: House) -> None:
    run = Run()
    house.controls.gate = lambda message: message.subject != subjects.CONTROL_COMMAND
    async with house.watching():
        await house.record(run.starts(), loop(run, 8))
        await until(lambda: len(house.told(Signal)) == 3)
        assert not house.asked
        house.controls.gate = lambda message: True
        await until(lambda: house.asked)


async def test_what_people_decided_about_an_incident_stays(house: House) -> None:
    run = Run()
    bucket = await house.control.bucket(subjects.BUCKET_INCIDENTS)
    async with house.watching():
        await house.record(run.starts(), run.refused("tools", "tools.pact", "wire"))
        async with asyncio.timeout(5):
            while not (entries := await bucket.entries()):
                await asyncio.sleep(0.002)
        kept = msgspec.msgpack.decode(entries[0].value or b"")
        decided = {**kept, "status": "acknowledged", "owner": "ann"}
        await bucket.put(entries[0].key, msgspec.msgpack.encode(decided))
        await house.record(run.refused("tools", "tools.pact", "delete"))
        async with asyncio.timeout(5):
            while (now := msgspec.msgpack.decode((await bucket.entries())[0].value or b""))[
                "count"
            ] < 2:
                await asyncio.sleep(0.002)
    assert (now["status"], now["owner"], now["count"]) == ("acknowledged", "ann", 2)
