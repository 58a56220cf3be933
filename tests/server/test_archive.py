"""The archive: durable before acknowledged, once, nothing silently missing."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from checkrein.bus import subjects
from checkrein.bus.memory import MemoryServer
from checkrein.bus.messages import Answer, Query, Stored, decode, encode
from checkrein.bus.types import Message
from checkrein.events.envelope import CHAIN_START, Envelope, advance, as_raw, lane_message_id, pack
from checkrein.server import archive, archive_lanes
from checkrein.server.context import RoleContext
from checkrein.store import MemoryStore, Row, StoreError, StoreFull
from checkrein.world import REAL
from tests.conftest import within
from tests.store.sample import event, whole_run


class Failing(MemoryStore):
    """A store that can be told to fail."""

    failure: StoreError | None = None

    def write(self, rows: Sequence[Row]) -> int:
        if self.failure is not None:
            raise self.failure
        return super().write(rows)


class Lane:
    """What a shipper keeps of one lane."""

    def __init__(self, agent: str = "bot", recorder: str = "rec-1", partition: int = 10) -> None:
        self.agent, self.recorder, self.partition = agent, recorder, partition
        self.prev, self.chain = 0, CHAIN_START

    def envelope(self, events: list[dict[str, Any]], **more: Any) -> Envelope:
        raws = [as_raw(fields | {"recorder": self.recorder}) for fields in events]
        for raw in raws:
            self.chain = advance(self.chain, raw)
        made = Envelope(
            self.recorder, self.agent, self.partition, self.prev, self.chain,
            [fields["seq"] for fields in events], raws,
        )  # fmt: skip
        self.prev = events[-1]["seq"]
        return msgspec.structs.replace(made, **more)


class Running:
    def __init__(self, folder: Path, store: Failing, server: MemoryServer) -> None:
        self.folder, self.store, self.server = folder, store, server
        self.bus, self.other = server.connect(), server.connect()
        self.stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> "Running":
        ready = asyncio.Event()
        context = RoleContext(
            world=REAL, role="archive", data=self.folder, bus=self.bus, control_bus=self.bus,
            stop=self.stop, ready=ready.set,
        )  # fmt: skip
        self.stop.clear()
        self._task = asyncio.get_running_loop().create_task(archive.run(context))
        await asyncio.wait_for(ready.wait(), 10)
        return self

    async def end(self) -> None:
        self.stop.set()
        assert self._task is not None
        await asyncio.wait_for(self._task, 10)

    async def send(self, envelope: Envelope, agent: str = "") -> None:
        subject = subjects.events(agent or envelope.agent, envelope.partition, envelope.recorder)
        await self.other.append(subject, pack(envelope), lane_message_id(envelope))

    async def ask(self, name: str, **parameters: Any) -> Answer:
        query = encode(Query(name=name, parameters=parameters))
        return decode(await self.other.request(subjects.history(name), query, 5), Answer)

    def numbers(self, recorder: str = "rec-1") -> list[int]:
        found = self.store.query("events", {})
        return sorted(one["seq"] for one in found if one["recorder"] == recorder)

    def losses(self) -> list[dict[str, Any]]:
        return self.store.query("events", {"types": ["loss"]})

    def dead(self) -> list[dict[str, Any]]:
        kept = self.server.streams["DEAD"].messages.values()
        return [msgspec.msgpack.decode(message.data) for message in kept]

    def refusals(self) -> list[dict[str, Any]]:
        return self.store.query("events", {"types": ["scope.decision"]})

    def unacknowledged(self) -> int:
        return len(self.server.streams["EVENTS"].consumers["archive"].waiting)


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    store = Failing(REAL)
    monkeypatch.setattr(archive, "open_store", lambda url, world: store)
    monkeypatch.setattr(archive, "RETRY_S", 0.02)
    monkeypatch.setattr(archive, "REST_S", 0.05)
    started = await Running(tmp_path, store, MemoryServer()).start()
    yield started
    await started.end()


def beats(first: int, last: int, **fields: Any) -> list[dict[str, Any]]:
    return [event(number, "heartbeat", **fields) for number in range(first, last + 1)]


async def test_events_are_stored_acknowledged_and_confirmed(running: Running) -> None:
    heard: list[Message] = []

    async def hear(message: Message) -> None:
        heard.append(message)

    await running.other.subscribe(subjects.stored("bot", "rec-1"), hear)
    lane = Lane()
    await running.send(lane.envelope(beats(1, 5)))
    await within(5, lambda: heard)
    assert running.numbers() == [1, 2, 3, 4, 5]
    assert decode(heard[-1].data, Stored) == Stored(recorder="rec-1", upto={10: 5})
    await within(5, lambda: running.unacknowledged() == 0)
    asked = await running.other.request(subjects.stored_ask("bot", "rec-1"), b"")
    assert decode(asked, Stored).upto == {10: 5}
    asked = await running.other.request(subjects.stored_ask("bot", "unknown"), b"")
    assert decode(asked, Stored).upto == {}


async def test_what_is_delivered_again_is_stored_once_also_after_a_restart(
    running: Running,
) -> None:
    lane = Lane()
    first, second = lane.envelope(beats(1, 5)), lane.envelope(beats(6, 9))
    for envelope in (first, second, first):
        await running.other.append(subjects.events("bot", 10), pack(envelope))
    await within(5, lambda: running.numbers() == list(range(1, 10)))
    await running.end()
    await running.start()
    await running.other.append(subjects.events("bot", 10), pack(first))
    await running.send(lane.envelope(beats(10, 10)))
    await within(5, lambda: running.numbers() == list(range(1, 11)))
    assert running.losses() == []
    counts = (await running.ask("counts")).rows[0]
    assert counts["archive"]["repeated"] == 5
    assert counts["archive"]["changed"] == 0


async def test_an_agent_cannot_speak_for_another(running: Running) -> None:
    forged = Lane("victim", "rec-2").envelope(beats(1, 2, agent="victim"))
    await running.send(forged, agent="bot")
    mixed = Lane().envelope([*beats(1, 1), *beats(2, 2, agent="victim"), *beats(3, 3)])
    await running.send(mixed)
    await within(5, lambda: running.numbers() == [1, 3])
    letters = running.dead()
    assert [(one["agent"], one["place"]) for one in letters] == [
        ("bot", "envelope"), ("bot", "event 2"),
    ]  # fmt: skip
    assert "'victim'" in letters[0]["reason"]
    assert running.losses() == []
    assert running.store.query("events", {"agent": "victim"}) == []
    await within(5, lambda: len(running.refusals()) == 2)
    envelope, single = sorted(running.refusals(), key=lambda each: str(each["reason"]))
    for refusal in (envelope, single):
        assert (refusal["agent"], refusal["rule"], refusal["guard"]) == (
            "bot", "forgery", "archive",
        )  # fmt: skip
        assert refusal["run_id"].startswith("outside-"), "never a run that the forger names"
    assert "says agent 'victim', was published by 'bot'" in envelope["reason"]
    assert "event 2 of message" in single["reason"]


async def test_many_forged_events_are_told_in_one(running: Running) -> None:
    await running.send(Lane().envelope(beats(1, 400, agent="victim")))
    await within(5, lambda: running.refusals())
    await within(5, lambda: running.unacknowledged() == 0)
    (refusal,) = running.refusals()
    assert refusal["reason"].endswith("(and 399 more)")


async def test_what_is_malformed_is_kept_with_place_and_reason(running: Running) -> None:
    lane = Lane()
    await running.other.append(subjects.events("bot", 10), b"\xc1 no msgpack")
    not_utf8 = pack(Lane().envelope(beats(9, 9))).replace(b"\xa5rec-1", b"\xa5r\xff\xfec1", 1)
    assert b"\xff\xfe" in not_utf8
    await running.other.append(subjects.events("bot", 11), not_utf8)
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    bad = [
        *beats(1, 1),
        event(2, "heartbeat", deep=deep),
        {k: v for k, v in event(3, "heartbeat").items() if k != "room"},
        event(4, "heartbeat", room="r" * 300),
        event(5, "heartbeat", long=["word" * 200] * 400),
        event(6, "heartbeat", odd=msgspec.msgpack.Ext(5, b"x")),
        event(7, "heartbeat", fine="x" * 300_000),
        *beats(8, 8),
    ]
    await running.send(lane.envelope(bad))
    await within(5, lambda: running.numbers() == [1, 7, 8])
    await within(5, lambda: len(running.dead()) == 7)
    letters = {one["place"]: one["reason"] for one in running.dead()}
    assert "not an envelope" in letters["envelope"]
    assert "deeper than 40" in letters["event 2"]
    assert letters["event 3"] == "field `room` is missing"
    assert "256 at most" in letters["event 4"]
    assert "262144 at most" in letters["event 5"]
    assert "JSON cannot say it" in letters["event 6 of rec-1"]
    assert running.losses() == []
    assert (await running.ask("counts")).rows[0]["archive"]["refused"] == 7


@pytest.mark.parametrize(
    "wrong",
    [{"partition": 99}, {"prev": -1}, {"prev": 7}, {"seqs": [3, 2, 1]}, {"seqs": [1, 2, 2**62]}],
)
async def test_an_envelope_that_cannot_be_is_refused_whole(
    running: Running, wrong: dict[str, Any]
) -> None:
    envelope = Lane().envelope(beats(1, 3), **wrong)
    await running.other.append(subjects.events("bot", 10), pack(envelope))
    await within(5, lambda: running.dead())
    assert running.dead()[0]["place"] == "envelope"
    assert running.numbers() == []


async def test_a_gap_that_stays_is_told_as_loss(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_lanes, "GRACE_NS", 100_000_000)
    lane = Lane()
    await running.send(lane.envelope(beats(1, 3)))
    missing = lane.envelope(beats(4, 6))
    await running.send(lane.envelope(beats(7, 8)))
    await within(5, lambda: running.numbers() == [1, 2, 3, 7, 8])
    await within(5, running.losses)
    (loss,) = running.losses()
    assert (loss["lost_recorder"], loss["first"], loss["last"], loss["count"]) == ("rec-1", 4, 6, 3)
    assert (loss["agent"], loss["run_id"], loss["recorder"]) == ("bot", "run-1", "role:archive")
    await within(5, lambda: len(running.server.streams["EVENTS"].messages) == 3)
    await running.send(missing)
    await within(5, lambda: len(running.losses()) == 2)
    assert sum(one["count"] for one in running.losses()) == 0
    assert running.numbers() == list(range(1, 9))


async def test_confirmation_stops_at_a_gap_and_goes_on_when_it_is_filled(running: Running) -> None:
    lane = Lane()
    first, second, third = (lane.envelope(beats(n, n + 1)) for n in (1, 3, 5))

    async def upto() -> dict[int, int]:
        raw = await running.other.request(subjects.stored_ask("bot", "rec-1"), b"")
        return decode(raw, Stored).upto

    await running.send(first)
    await running.send(third)
    await within(5, lambda: running.numbers() == [1, 2, 5, 6])
    assert await upto() == {10: 2}
    await running.send(second)
    await within(5, lambda: running.numbers() == [1, 2, 3, 4, 5, 6])
    await within(5, lambda: running.unacknowledged() == 0)
    assert await upto() == {10: 6}
    assert running.losses() == []


async def test_an_open_gap_survives_a_restart(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = Lane()
    await running.send(lane.envelope(beats(1, 3)))
    lane.envelope(beats(4, 6))
    await running.send(lane.envelope(beats(7, 8)))
    await running.send(lane.envelope(beats(9, 9)))
    await within(5, lambda: running.numbers() == [1, 2, 3, 7, 8, 9])
    await running.end()
    monkeypatch.setattr(archive_lanes, "GRACE_NS", 100_000_000)
    await running.start()
    await within(5, running.losses)
    (loss,) = running.losses()
    assert (loss["first"], loss["last"]) == (4, 6)
    await running.send(lane.envelope(beats(10, 10)))
    await within(5, lambda: 10 in running.numbers())
    assert len(running.losses()) == 1


async def test_a_changed_event_is_told(running: Running) -> None:
    lane = Lane()
    await running.send(lane.envelope(beats(1, 3)))
    envelope = lane.envelope(beats(4, 5))
    changed = [envelope.events[0], as_raw(event(5, "heartbeat", uptime_ns=666))]
    await running.send(msgspec.structs.replace(envelope, events=changed))
    await within(5, running.losses)
    assert "chain" in running.losses()[0]["why"]
    assert running.losses()[0]["count"] == 0
    assert running.numbers() == [1, 2, 3, 4, 5]


async def test_roles_may_number_with_gaps(running: Running) -> None:
    for number in (7, 900, 35):
        fields = event(number, "signal", recorder="role:watch", signal_id=str(number))
        envelope = Envelope("role:watch", "bot", 10, 0, b"", [number], [as_raw(fields)])
        await running.send(envelope)
    await within(5, lambda: running.numbers("role:watch") == [7, 35, 900])
    assert running.losses() == []


async def test_refusals_are_copied_to_the_audit_stream(running: Running) -> None:
    def decision(number: int, verdict: str) -> dict[str, Any]:
        return event(number, "scope.decision", call_id="c", action={}, verdict=verdict)

    events = [decision(1, "allow"), decision(2, "deny"), decision(3, "ask")]
    await running.send(Lane().envelope(events))
    await within(5, lambda: running.numbers() == [1, 2, 3])
    kept = list(running.server.streams["AUDIT"].messages.values())
    assert [msgspec.msgpack.decode(one.data)["verdict"] for one in kept] == ["deny", "ask"]
    assert {one.subject for one in kept} == {"audit.scope"}


@pytest.mark.parametrize("failure", [StoreFull("no space left"), StoreError("engine says no")])
async def test_when_the_store_fails_nothing_is_acknowledged_and_it_goes_on_by_itself(
    running: Running, failure: StoreError, caplog: pytest.LogCaptureFixture
) -> None:
    running.store.failure = failure
    lane = Lane()
    await running.send(lane.envelope(beats(1, 4)))

    async def status() -> dict[str, Any]:
        return (await running.ask("counts")).rows[0]["archive"]  # type: ignore[no-any-return]

    deadline = asyncio.get_running_loop().time() + 5
    while (told := await status())["writing"]:
        assert asyncio.get_running_loop().time() < deadline
    assert str(failure) in told["trouble"]
    assert ("disk" in told["trouble"]) == isinstance(failure, StoreFull)
    assert running.unacknowledged() == 1
    running.store.failure = None
    await within(5, lambda: running.numbers() == [1, 2, 3, 4])
    await within(5, lambda: running.unacknowledged() == 0)
    assert (await status())["writing"]
    assert "nothing is lost" in caplog.text
    assert "writing again" in caplog.text


async def test_stopping_while_the_store_fails_leaves_all_to_the_bus(running: Running) -> None:
    running.store.failure = StoreFull("no space left")
    await running.send(Lane().envelope(beats(1, 4)))
    await within(5, lambda: running.unacknowledged() == 1)
    await running.end()
    assert running.numbers() == []
    running.store.failure = None
    state = running.server.streams["EVENTS"].consumers["archive"]
    state.ack_wait_s = 0
    await running.start()
    await within(5, lambda: running.numbers() == [1, 2, 3, 4])


async def all_rows(running: Running, name: str, **parameters: Any) -> tuple[list[Any], int]:
    rows: list[Any] = []
    messages = 0
    after: Any = None
    while True:
        answer = await running.ask(name, after=after, **parameters)
        assert answer.error == ""
        rows += answer.rows
        messages += 1
        after = answer.next_after
        if after is None:
            return rows, messages


async def test_long_answers_come_in_several_messages(running: Running) -> None:
    text = "".join(f"{number:08d}" for number in range(20_000))
    running.store.write([Row(10, event(n, "output", content=f"{n}{text}")) for n in range(1, 21)])
    rows, messages = await all_rows(running, "events_of_run", run_id="run-1")
    assert [one["seq"] for one in rows] == list(range(1, 21))
    assert rows[19]["content"] == f"20{text}"
    assert messages > 3
    await asyncio.to_thread(
        running.store.write,
        [Row(1, one) for n in range(70) for one in whole_run(f"r{n:02d}", calls=1)],
    )
    rows, messages = await all_rows(running, "runs", limit=30)
    assert len({row["run_id"] for row in rows}) == 71
    assert messages == 3


async def test_a_row_too_long_for_a_message_is_cut_and_its_text_comes_in_parts(
    running: Running,
) -> None:
    text = "äöü " * 500_000
    running.store.write([Row(10, event(1, "output", content=text)), Row(10, event(2, "output"))])
    rows, _ = await all_rows(running, "events_of_run", run_id="run-1")
    assert "2000000 characters in all" in rows[0]["content"]
    assert rows[1]["seq"] == 2
    from checkrein.store.texts import hash_of

    parts, _ = await all_rows(running, "content", hash=hash_of(text))
    assert "".join(part["text"] for part in parts) == text


async def test_bad_questions_are_answered_with_the_reason(running: Running) -> None:
    assert "no query 'drop'" in (await running.ask("drop")).error
    assert "'run_id'" in (await running.ask("run")).error
    assert "`after`" in (await running.ask("runs", after="x")).error
    raw = await running.other.request(subjects.history("runs"), b"\xc1")
    assert "not a Query" in decode(raw, Answer).error
