"""The ring against a list: whatever is recorded, read, confirmed, killed or torn, in any order."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from tests.sdk.recording import PLACE, read_all

from checkrein.events import codec
from checkrein.events.types import Loss, Output
from checkrein.sdk import layout
from checkrein.sdk.reader import RingReader
from checkrein.sdk.recorder import Recorder
from checkrein.world import SimWorld

_FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def dead_copy(recorder: Recorder, root: Path) -> Path:
    """The folder as a SIGKILL at this instant leaves it."""
    copy = root / f"{len(list(root.iterdir()))}" / recorder.id
    shutil.copytree(recorder.directory, copy, ignore=shutil.ignore_patterns("reader.lock"))
    layout.write_meta(copy, layout.Meta(recorder=recorder.id, pid=1, created=1, boot="another"))
    return copy


class RingAgainstAList(RuleBasedStateMachine):
    @initialize(segments=st.integers(2, 12))
    def begin(self, segments: int) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="checkrein-ring-", dir=_FOLDER))
        (self.root / "live").mkdir()
        (self.root / "dead").mkdir()
        self.world = SimWorld(1)
        self.recorder = Recorder(
            self.root / "live", self.world, keeper=False, segment_bytes=4096,
            bytes_max=segments * 4096,
        )  # fmt: skip
        self.recorder.open()
        self.reader = RingReader(self.recorder.directory)
        self.told: dict[int, str] = {}
        self.seen: dict[int, Any] = {}
        self.position = self.confirmed = 0

    @rule(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=12))
    def record(self, sizes: list[int]) -> None:
        for size in sizes:
            format_ = f"{len(self.told)}"
            seq = self.recorder.record(Output, PLACE, 1, content="x" * size, format=format_)
            assert seq not in self.told
            assert seq > max(self.told, default=0)
            self.told[seq] = format_

    @rule(bytes_max=st.integers(1, 20_000))
    def read(self, bytes_max: int) -> None:
        for seq, raw in self.reader.read(self.position, bytes_max):
            assert seq > self.position
            self.position = seq
            self.seen[seq] = codec.decode(raw)

    @rule(share=st.floats(0, 1))
    def confirm(self, share: float) -> None:
        upto = round(self.position * share)
        self.reader.confirm(upto, b"state")
        self.confirmed = max(self.confirmed, upto)
        assert self.reader.cursor.upto == self.confirmed

    @rule()
    def reader_dies(self) -> None:
        self.reader.close()
        self.reader = RingReader(self.recorder.directory)
        assert self.reader.cursor.upto == self.confirmed
        self.position = self.confirmed

    @rule()
    def look_back(self) -> None:
        self.position = self.confirmed

    @precondition(lambda self: self.told)
    @rule()
    def the_writer_dies(self) -> None:
        """A copy of this instant is recovered: all that was told is there, or told as lost."""
        reader = RingReader(dead_copy(self.recorder, self.root / "dead"))
        recovered = reader.recover()
        events = {event.seq: event for event in read_all(reader, self.confirmed)}
        reader.close()
        lost: set[int] = set()
        for event in [*self.seen.values(), *events.values()]:
            if isinstance(event, Loss):
                lost |= set(range(event.first, event.last + 1))
        assert recovered.events == len([e for e in events.values() if e.seq not in lost])
        for seq, format_ in self.told.items():
            if seq > self.confirmed and seq not in lost:
                assert events[seq].format == format_

    @invariant()
    def the_bound_holds(self) -> None:
        if hasattr(self, "recorder"):
            files = len(list(self.recorder.directory.glob("segment-*")))
            assert files * 4096 <= max(2 * 4096, self.recorder.bytes_max)
            assert self.recorder.stats().errors == 0

    def teardown(self) -> None:
        if not hasattr(self, "recorder"):
            return
        # In the end everything is read and accounted for.
        while True:
            before, told = self.position, self.recorder.settle()
            self.read(1 << 20)
            self.confirm(1.0)
            if told and self.position == before:
                break
        lost: set[int] = set()
        for event in self.seen.values():
            if isinstance(event, Loss):
                assert not lost & set(range(event.first, event.last + 1))
                lost |= set(range(event.first, event.last + 1))
        assert len(lost) == self.recorder.stats().lost
        for seq, format_ in self.told.items():
            if seq in lost:
                assert seq not in self.seen
            else:
                assert self.seen[seq].format == format_
        self.reader.close()
        self.recorder.close()
        shutil.rmtree(self.root)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.getLogger("checkrein.recorder").setLevel(logging.ERROR)
    yield
    logging.getLogger("checkrein.recorder").setLevel(logging.NOTSET)


TestRingAgainstAList = pytest.mark.timeout(180)(RingAgainstAList.TestCase)
TestRingAgainstAList.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_crash_of_the_machine_tears_any_pages(data: st.DataObject) -> None:
    """Any sectors of the segments may be missing: what is read is true, what is not is told."""
    with tempfile.TemporaryDirectory(prefix="checkrein-torn-", dir=_FOLDER) as folder:
        tear(data, Path(folder))


def tear(data: st.DataObject, root: Path) -> None:
    recorder = Recorder(root / "live", SimWorld(1), keeper=False, segment_bytes=8192)
    sizes = data.draw(st.lists(st.integers(0, 5000), min_size=1, max_size=30))
    for number, size in enumerate(sizes):
        recorder.record(Output, PLACE, 1, content=f"{number}-" + "x" * size, format="f")
    (root / "dead").mkdir()
    copy = dead_copy(recorder, root / "dead")
    recorder.close()
    segments = sorted(copy.glob("segment-*"))
    for _ in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.sampled_from(segments))
        sector = data.draw(st.integers(0, 15))
        with open(path, "r+b") as file:
            file.seek(512 * sector)
            file.write(bytes(512 * data.draw(st.sampled_from([1, 8]))))
            file.truncate(8192)
    reader = RingReader(copy)
    reader.recover()
    events = read_all(reader)
    lost: set[int] = set()
    for event in events:
        if isinstance(event, Loss):
            lost |= set(range(event.first, event.last + 1))
        else:
            assert event.content.startswith(f"{event.seq - 1}-")
            assert len(event.content) == len(f"{event.seq - 1}-") + sizes[event.seq - 1]
    kept = {event.seq for event in events if not isinstance(event, Loss)}
    assert kept | lost == set(range(1, len(sizes) + 1))
    assert not kept & lost
    reader.close()


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 2000), size=st.integers(0, 1500))
def test_a_kill_in_the_middle_of_a_record(at: int, size: int) -> None:
    """Of the event being written, any beginning may be there; of those before, all is."""
    with tempfile.TemporaryDirectory(prefix="checkrein-mid-", dir=_FOLDER) as folder:
        kill_in_the_middle(Path(folder), at, size)


def kill_in_the_middle(root: Path, at: int, size: int) -> None:
    recorder = Recorder(root / "live", SimWorld(1), keeper=False, segment_bytes=8192)
    for _ in range(3):
        recorder.record(Output, PLACE, 1, content="before")
    ring = recorder._ring
    assert ring is not None
    head = ring.head
    (root / "dead").mkdir()
    before = dead_copy(recorder, root / "dead")
    recorder.record(Output, PLACE, 1, content="x" * size)
    after = dead_copy(recorder, root / "dead")
    segment = layout.segment_name(1)
    whole = (after / segment).read_bytes()
    partial = bytearray((before / segment).read_bytes())
    # As `append` does it: the event first, then the number, the length last.
    start = head + layout.FRAME_BYTES
    partial[start : start + at] = whole[start : start + at]
    (before / segment).write_bytes(partial)
    recorder.close()
    reader = RingReader(before)
    assert [event.seq for event in read_all(reader)] == [1, 2, 3]
    assert reader.recover().torn == ()
    assert [event.seq for event in read_all(reader)] == [1, 2, 3]
    reader.close()
