"""The flight recorder, from the agent's side."""

import gc
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from checkrein.events import codec
from checkrein.events.types import (
    TYPES,
    Heartbeat,
    Loss,
    Output,
    RunStart,
    ScopeDecision,
    ToolInvoked,
    ToolReturned,
)
from checkrein.sdk.layout import Control
from checkrein.sdk.place import Place
from checkrein.sdk.reader import RingReader, find_recorders
from checkrein.sdk.recorder import Recorder
from checkrein.sdk.ring import bytes_max_from
from checkrein.world import REAL, SimWorld
from tests.sdk.recording import PLACE, read_all, recorder


def test_what_is_recorded_is_read(tmp_path: Path) -> None:
    rec = recorder(tmp_path)
    assert rec.record(ToolInvoked, PLACE, 3, call_id="c", tool="search", kind="read") == 1
    assert rec.record(Heartbeat, PLACE, 3, interval_ns=10) == 2
    reader = RingReader(rec.directory)
    first, second = read_all(reader)
    assert first == ToolInvoked(
        recorder=rec.id, seq=1, ts=first.ts, environment="production", room="refunds",
        agent="support-bot", run_id=PLACE.run_id, task_id=PLACE.task_id, step=3,
        call_id="c", tool="search", kind="read",
    )  # fmt: skip
    assert second.interval_ns == 10
    assert second.ts >= first.ts
    reader.close()
    rec.close()


@pytest.mark.parametrize("name", sorted(TYPES))
def test_bytes_are_those_of_the_struct(name: str, tmp_path: Path) -> None:
    kind = TYPES[name]
    rec = recorder(tmp_path)
    common = {
        "type": name, "environment": PLACE.environment, "room": PLACE.room, "agent": PLACE.agent,
        "run_id": PLACE.run_id, "task_id": PLACE.task_id, "recorder": rec.id, "seq": 9, "step": 7,
    }  # fmt: skip
    own = {
        field: [f"value of {field}"]
        for field in kind.__struct_fields__
        if field not in common and field != "ts"
    }
    fields = msgspec.msgpack.decode(rec._encoded(kind, PLACE, 7, 9, own))
    assert fields.pop("ts") > 0
    assert fields == common | own


def test_nothing_is_on_disk_before_the_first_event(tmp_path: Path) -> None:
    rec = recorder(tmp_path / "recorders")
    assert not (tmp_path / "recorders").exists()
    assert rec.open()
    assert [found.meta.recorder for found in find_recorders(rec.root)] == [rec.id]
    rec.close()


@pytest.mark.parametrize(
    "payload",
    [
        {"nan": float("nan")},
        {"s": "\udc80"},
        {"o": object()},
        {"n": 2**70},
        {"big": "x" * 10_000_000},
        {1, 2},
        threading.Lock(),
    ],
)
def test_any_payload_becomes_an_event(payload: Any, tmp_path: Path) -> None:
    rec = recorder(tmp_path)
    assert rec.record(Output, PLACE, 1, content=payload, format="f") == 1
    reader = RingReader(rec.directory)
    (event,) = read_all(reader)
    assert event.format == "f"
    assert len(codec.encode(event)) < 256 * 1024
    assert rec.stats().errors == 0
    reader.close()
    rec.close()


def test_cyclic_payload(tmp_path: Path) -> None:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    rec = recorder(tmp_path)
    assert rec.record(Output, PLACE, 1, content=cyclic) == 1
    reader = RingReader(rec.directory)
    assert read_all(reader)[0].content == [{"cycle": "builtins.list"}]
    reader.close()
    rec.close()


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    rec = Recorder(tmp_path, REAL, agent="a\udc80", keeper=False)
    place = Place("e", "room\udcff", "a\udc80", "r", "t")
    rec.record(Heartbeat, place, 0)
    reader = RingReader(rec.directory)
    assert read_all(reader)[0].room == "room\\udcff"
    reader.close()
    rec.close()


def test_a_wrong_call_raises_nothing_and_is_counted(tmp_path: Path) -> None:
    rec = recorder(tmp_path)
    assert rec.record(Heartbeat, PLACE, "three") == 0  # type: ignore[arg-type]
    assert rec.stats().errors == 1
    assert rec.record(Heartbeat, PLACE, 3) > 0
    rec.close()


def test_full_ring_gives_up_payloads_then_events_and_says_exactly_what(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rec = recorder(tmp_path, bytes_max=16 * 4096, segment_bytes=4096)
    other = Place("production", "refunds", "other-bot", "r2", "f" * 32)
    with caplog.at_level(logging.WARNING):
        for number in range(400):
            place = other if number % 10 == 9 else PLACE
            rec.record(ToolReturned, place, 1, call_id=f"c{number}", tool="t", result="x" * 600)
    assert len([r for r in caplog.records if "being lost" in r.message]) == 1
    reader = RingReader(rec.directory)
    kept = read_all(reader)
    stats = rec.stats()
    assert stats.lost == 400 - len(kept) > 0
    whole = [event for event in kept if event.result == "x" * 600]
    bare = [event for event in kept if isinstance(event.result, dict)]
    assert whole == kept[: len(whole)]
    assert len(bare) > 3
    assert whole + bare == kept

    reader.confirm(kept[-1].seq)
    rec.record(Output, PLACE, 2, content="again")
    told = read_all(reader, kept[-1].seq)
    losses = {event.agent: event for event in told if isinstance(event, Loss)}
    assert isinstance(told[-1], Output)
    assert sum(loss.count for loss in losses.values()) == stats.lost
    assert losses["support-bot"].first == kept[-1].seq + 1
    assert max(loss.last for loss in losses.values()) == 400
    assert losses["other-bot"].count == sum(1 for n in range(len(kept), 400) if n % 10 == 9)
    assert told[-1].seq == 400 + len(losses) + 1
    reader.close()
    rec.close()


def test_the_keeper_tells_of_losses_when_nothing_more_is_recorded(tmp_path: Path) -> None:
    rec = Recorder(tmp_path, REAL, bytes_max=8 * 4096, segment_bytes=4096)
    for _ in range(100):
        rec.record(Output, PLACE, 1, content="x" * 900)
    lost = rec.stats().lost
    assert lost > 0
    reader = RingReader(rec.directory)
    woken = threading.Event()
    rec.on_waiting(woken.set)
    last = read_all(reader)[-1].seq
    reader.ask_to_be_woken()
    reader.confirm(last)
    deadline = REAL.monotonic_ns() + 10_000_000_000
    told: list[Any] = []
    while not told and REAL.monotonic_ns() < deadline:
        woken.wait(0.01)
        told = read_all(reader, last)
    assert [event.count for event in told] == [lost]
    reader.close()
    rec.close()


def test_a_full_disk_is_said_once_and_overcome(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = SimWorld(1)
    full = False

    def allocate(file: int, offset: int, size: int) -> None:
        if full:
            raise OSError(28, "No space left on device")
        os.posix_fallocate(file, offset, size)

    rec = Recorder(tmp_path, world, keeper=False, segment_bytes=4096, allocate=allocate)
    rec.record(Output, PLACE, 1, content="first")
    full = True
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            rec.record(Output, PLACE, 1, content="x" * 900)
    assert [r.message for r in caplog.records if "No space left" in r.message]
    assert len(caplog.records) == 1
    lost = rec.stats().lost
    assert lost > 50
    full = False
    world.run_until(world.monotonic_ns() + 1_000_000_000)
    assert rec.record(Output, PLACE, 1, content="last") == 103
    reader = RingReader(rec.directory)
    events = read_all(reader)
    assert [event.count for event in events if isinstance(event, Loss)] == [lost]
    assert events[-1].content == "last"
    reader.close()
    rec.close()


def test_a_folder_that_cannot_be_made_costs_events_but_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = SimWorld(1)
    root = tmp_path / "not-a-folder"
    root.write_text("")
    rec = Recorder(root, world, keeper=False)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            rec.record(Heartbeat, PLACE, 0)
    assert len(caplog.records) == 1
    assert "not-a-folder" in caplog.text
    root.unlink()
    world.run_until(2_000_000_000)
    rec.record(Heartbeat, PLACE, 0)
    reader = RingReader(rec.directory)
    loss, beat = read_all(reader)
    assert (loss.count, loss.first, loss.last) == (3, 1, 3)
    assert isinstance(beat, Heartbeat)
    reader.close()
    rec.close()


def test_wall_clock_steps_change_nothing_but_times(tmp_path: Path) -> None:
    world = SimWorld(1)
    rec = Recorder(tmp_path, world, keeper=False)
    for seconds in (0, -3600, 7200):
        world.step_wall_clock(seconds)
        rec.record(Heartbeat, PLACE, 0)
    reader = RingReader(rec.directory)
    events = read_all(reader)
    assert [event.seq for event in events] == [1, 2, 3]
    assert events[1].ts < events[0].ts < events[2].ts
    reader.close()
    rec.close()


def test_threads(tmp_path: Path) -> None:
    rec = Recorder(tmp_path, REAL, segment_bytes=64 * 1024)

    def work(name: int) -> None:
        for number in range(500):
            rec.record(Output, PLACE, name, content=number)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = RingReader(rec.directory)
    events = read_all(reader)
    assert [event.seq for event in events] == list(range(1, 2001))
    for name in range(4):
        assert [event.content for event in events if event.step == name] == list(range(500))
    reader.close()
    rec.close()


def test_an_event_from_within_record_follows(tmp_path: Path) -> None:
    rec = recorder(tmp_path)

    class Telltale:
        def __del__(self) -> None:
            rec.record(Heartbeat, PLACE, 1)

    class Payload:
        def __repr__(self) -> str:
            Telltale()
            return "payload"

    for _ in range(3):  # the first while the ring is being made, then in the ordinary way
        rec.record(Output, PLACE, 1, content=Payload())
    gc.collect()
    reader = RingReader(rec.directory)
    assert [type(event).__name__ for event in read_all(reader)] == ["Output", "Heartbeat"] * 3
    reader.close()
    rec.close()


def test_signal_handlers_may_record(tmp_path: Path) -> None:
    rec = recorder(tmp_path)
    before = signal.signal(signal.SIGALRM, lambda *_: rec.record(Heartbeat, PLACE, 9))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        for number in range(5000):
            rec.record(Output, PLACE, 1, content=number)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    rec.settle()
    reader = RingReader(rec.directory)
    events = read_all(reader)
    assert [event.content for event in events if isinstance(event, Output)] == list(range(5000))
    assert len(events) > 5000
    reader.close()
    rec.close()


def test_a_forked_child_has_a_recorder_of_its_own(tmp_path: Path) -> None:
    rec = recorder(tmp_path)
    rec.record(Output, PLACE, 1, content="parent")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            rec.record(Output, PLACE, 1, content="child")
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    rec.record(Output, PLACE, 1, content="parent again")
    recorders = {found.meta.recorder: found for found in find_recorders(tmp_path)}
    assert len(recorders) == 2
    assert recorders.pop(rec.id).alive
    (other,) = recorders.values()
    assert not other.alive
    assert other.meta.pid == child
    for directory, contents in (
        (rec.directory, ["parent", "parent again"]),
        (other.directory, ["child"]),
    ):
        reader = RingReader(directory)
        events = read_all(reader)
        assert [event.content for event in events] == contents
        assert {event.recorder for event in events} == {directory.name}
        reader.close()
    rec.close()


def test_after_close_events_are_lost_and_nothing_raises(tmp_path: Path) -> None:
    rec = recorder(tmp_path)
    rec.record(RunStart, PLACE, 0, goal="g")
    rec.close()
    rec.close()
    assert rec.record(ScopeDecision, PLACE, 0, call_id="c", action={}, verdict="deny") == 2
    assert rec.stats().lost == 1
    reader = RingReader(rec.directory)
    assert reader.closed_by_writer
    assert len(read_all(reader)) == 1
    reader.close()


def test_waiting_readers_are_woken_once(tmp_path: Path) -> None:
    rec = recorder(tmp_path)
    calls: list[int] = []
    rec.on_waiting(lambda: calls.append(1))
    rec.record(Heartbeat, PLACE, 0)
    reader = RingReader(rec.directory)
    assert calls == []
    reader.ask_to_be_woken()
    rec.record(Heartbeat, PLACE, 0)
    rec.record(Heartbeat, PLACE, 0)
    assert calls == [1]
    assert reader.last_seq == rec._control[Control.SEQ] == 3
    reader.close()
    rec.close()


@pytest.mark.parametrize(
    ("text", "bytes_max"),
    [("", 1 << 28), ("1048576", 1 << 20), ("12", 1 << 28), ("many", 1 << 28)],
)
def test_the_bound_from_the_environment(
    text: str, bytes_max: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert bytes_max_from({"CHECKREIN_RECORDER_BYTES": text}) == bytes_max
    assert bool(caplog.records) == (text in ("12", "many"))
