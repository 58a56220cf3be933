"""The reading half: from another process, after a crash, with confirmations."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkrein.events.types import Heartbeat, Loss, Output
from checkrein.sdk import layout
from checkrein.sdk.layout import Control, Segment, read_meta, segment_name, write_meta
from checkrein.sdk.reader import RingBusy, RingGone, RingReader, find_recorders
from checkrein.sdk.recorder import Recorder
from tests.sdk.recording import PLACE, read_all, recorder

REPOSITORY = Path(__file__).parents[2]


def agent(folder: Path, count: int) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sdk.killed_agent", str(folder), str(count)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, env=environment,
    )  # fmt: skip


def finish(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.communicate(timeout=30)


def fill(root: Path, count: int, **options: Any) -> Recorder:
    rec = recorder(root, segment_bytes=4096, **options)
    for number in range(count):
        rec.record(Output, PLACE, 1, content=f"{number}:" + "x" * 500)
    return rec


def test_sigkill_right_after_the_last_event_loses_nothing(tmp_path: Path) -> None:
    process = agent(tmp_path, 1000)
    try:
        assert process.stdout is not None
        last = int(process.stdout.readline())
    finally:
        finish(process)
    (found,) = find_recorders(tmp_path)
    assert not found.alive
    reader = RingReader(found.directory)
    recovered = reader.recover()
    assert recovered.events == last == 1000
    assert recovered.torn == ()
    assert [event.seq for event in read_all(reader)] == list(range(1, 1001))
    reader.remove()
    assert find_recorders(tmp_path) == []


def test_sigkill_in_the_middle_of_recording_loses_nothing_acknowledged(tmp_path: Path) -> None:
    process = agent(tmp_path, 0)
    said = []
    try:
        assert process.stdout is not None
        for _ in range(300):
            said.append(int(process.stdout.readline()))
    finally:
        process.kill()
        rest, _ = process.communicate(timeout=30)
    said += [int(line) for line in rest.splitlines(keepends=True) if line.endswith(b"\n")]
    (found,) = find_recorders(tmp_path)
    reader = RingReader(found.directory)
    reader.recover()
    seqs = [event.seq for event in read_all(reader)]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) >= said[-1]
    reader.close()


def test_another_process_reads_while_we_write(tmp_path: Path) -> None:
    process = agent(tmp_path, 0)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        (found,) = find_recorders(tmp_path)
        assert found.alive
        reader = RingReader(found.directory)
        seen = 0
        for _ in range(2000):
            process.stdout.readline()
            for seq, _ in reader.read(seen):
                assert seq == seen + 1
                seen = seq
        assert seen >= 2000
        reader.confirm(seen)
        reader.close()
    finally:
        finish(process)


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    rec = fill(tmp_path, 50)
    reader = RingReader(rec.directory)
    events = read_all(reader, bytes_max=1)
    assert [event.seq for event in events] == list(range(1, 51))
    assert not reader.has_more()
    assert [event.seq for event in read_all(reader, 30)] == list(range(31, 51))
    assert [event.seq for event in read_all(reader, 5)] == list(range(6, 51))
    rec.record(Heartbeat, PLACE, 1)
    assert reader.has_more()
    assert [seq for seq, _ in reader.read(50)] == [51]
    reader.close()
    rec.close()


def test_only_one_reads(tmp_path: Path) -> None:
    rec = fill(tmp_path, 3)
    reader = RingReader(rec.directory)
    with pytest.raises(RingBusy):
        RingReader(rec.directory)
    reader.close()
    reader.close()
    RingReader(rec.directory).close()
    rec.close()


def test_what_is_no_recorder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RingGone):
        RingReader(tmp_path / "empty")
    rec = fill(tmp_path, 1)
    (rec.directory / "control").write_bytes(bytes(4096))
    with pytest.raises(RingGone):
        RingReader(rec.directory)
    rec.close()


def test_confirmed_segments_are_freed_and_the_cursor_survives(tmp_path: Path) -> None:
    rec = fill(tmp_path, 50)
    before = rec.stats().segments
    assert before > 5
    reader = RingReader(rec.directory)
    reader.confirm(25, b"state of the shipper")
    assert rec.stats().segments < before
    reader.confirm(10, b"late")  # a confirmation never goes back
    reader.close()
    reader = RingReader(rec.directory)
    assert reader.cursor.upto == 25
    assert [event.seq for event in read_all(reader, 25)] == list(range(26, 51))
    reader.confirm(50)
    assert rec.stats().segments == 1
    assert len(list(rec.directory.glob("segment-*"))) <= 2  # the next one may stand ready
    reader.close()
    rec.close()


def test_a_cursor_that_cannot_be_written_frees_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = fill(tmp_path, 50)
    reader = RingReader(rec.directory)
    before = rec.stats().segments

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(layout.os, "write", full)
        with pytest.raises(OSError, match="No space"):
            reader.confirm(50)
    assert rec.stats().segments == before
    assert reader.cursor.upto == 0
    reader.close()
    rec.close()


def test_file_size_limit_is_an_error_and_no_signal(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    rec = recorder(tmp_path, segment_bytes=64 * 1024)
    rec.record(Heartbeat, PLACE, 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32 * 1024, hard))
    try:
        for _ in range(300):
            rec.record(Output, PLACE, 1, content="x" * 900)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert rec.stats().lost > 0
    assert rec.stats().errors == 0
    reader = RingReader(rec.directory)
    assert len(read_all(reader)) == 301 - rec.stats().lost
    reader.close()
    rec.close()


def dead_copy(rec: Recorder, root: Path) -> Path:
    """The recorder's folder as a machine's crash may leave it, its process gone."""
    copy = root / rec.id
    shutil.copytree(rec.directory, copy)
    meta = read_meta(copy)
    assert meta is not None
    write_meta(copy, layout.Meta(recorder=meta.recorder, pid=1, created=1, boot="another boot"))
    return copy


def blank(path: Path, start: int, size: int) -> None:
    with open(path, "r+b") as file:
        file.seek(start)
        file.write(bytes(size))


def test_torn_pages_become_loss_events_in_their_place(tmp_path: Path) -> None:
    rec = recorder(tmp_path / "live", segment_bytes=16384)
    for number in range(100):
        rec.record(Output, PLACE, 1, content=f"{number}:" + "x" * 500)
    copy = dead_copy(rec, tmp_path / "dead")
    rec.close()
    blank(copy / segment_name(2), 8192, 4096)  # the middle of the second
    blank(copy / segment_name(4), 4096, 12288)  # all of the last but its beginning
    reader = RingReader(copy)
    assert not reader.owner_alive()
    recovered = reader.recover()
    assert len(recovered.torn) == 2
    events = read_all(reader)
    losses = [event for event in events if isinstance(event, Loss)]
    assert [(loss.first, loss.last) for loss in losses] == list(recovered.torn)
    assert all(loss.count == loss.last - loss.first + 1 for loss in losses)
    missing = {n for loss in losses for n in range(loss.first, loss.last + 1)}
    kept = {event.seq for event in events if not isinstance(event, Loss)}
    assert kept | missing == set(range(1, 101))
    assert not kept & missing
    assert [event.seq for event in events] == sorted(event.seq for event in events)
    assert recovered.events == len(kept)
    assert reader.recover() is recovered
    assert [event.seq for event in read_all(reader, 40)] == [
        event.seq for event in events if event.seq > 40
    ]
    reader.close()


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_segment_whose_first_page_is_gone(number: int, tmp_path: Path) -> None:
    rec = fill(tmp_path / "live", 25)
    copy = dead_copy(rec, tmp_path / "dead")
    rec.close()
    blank(copy / segment_name(number), 0, 4096)
    reader = RingReader(copy)
    reader.recover()
    events = read_all(reader)
    missing = sum(event.count for event in events if isinstance(event, Loss))
    assert missing > 0
    assert missing + sum(isinstance(event, Output) for event in events) == 25
    reader.close()


def test_losses_that_the_dead_could_not_tell(tmp_path: Path) -> None:
    rec = fill(tmp_path / "live", 60, bytes_max=8 * 4096)
    lost = rec.stats().lost
    assert lost > 0
    copy = dead_copy(rec, tmp_path / "dead")
    rec.close()
    reader = RingReader(copy)
    reader.recover()
    told = read_all(reader)[-1]
    assert told.count == lost
    reader.confirm(told.seq - 1)
    reader.close()
    reader = RingReader(copy)  # another one finds the same
    reader.recover()
    assert read_all(reader, told.seq - 1) == [told]
    reader.close()


def test_a_dead_owner_is_told_from_a_later_process_with_its_pid(tmp_path: Path) -> None:
    rec = fill(tmp_path, 1)
    meta = read_meta(rec.directory)
    assert meta is not None
    assert meta.pid == os.getpid()
    assert layout.owner_alive(meta)
    for other in ({"started": meta.started + 1}, {"boot": "another"}, {"pid": 2**22 + 1}):
        fields = {name: getattr(meta, name) for name in meta.__struct_fields__}
        assert not layout.owner_alive(layout.Meta(**fields | other))
    fields = {name: getattr(meta, name) for name in meta.__struct_fields__}
    elsewhere = layout.Meta(**fields | {"namespace": 1, "pid": 2**22 + 1})
    assert layout.owner_alive(elsewhere)
    rec.close()


def test_words_of_a_segment(tmp_path: Path) -> None:
    rec = fill(tmp_path, 30)
    reader = RingReader(rec.directory)
    assert reader._word_of(1, Segment.FIRST) == 1
    assert reader._word_of(1, Segment.LAST) + 1 == reader._word_of(2, Segment.FIRST)
    assert reader._control[Control.SEGMENT] == len(list(rec.directory.glob("segment-*"))) - (
        (rec.directory / segment_name(reader._control[Control.SEGMENT] + 1)).exists()
    )
    reader.close()
    rec.close()


def test_a_child_does_not_hold_the_lock_beyond_its_parents_death(tmp_path: Path) -> None:
    rec = fill(tmp_path, 3)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from checkrein.sdk.reader import RingReader\n"
        "reader = RingReader(Path(sys.argv[1]))\n"
        "if os.fork() == 0:\n"
        "    print('child', flush=True)\n"
        "    sys.stdin.read()\n"
        "    os._exit(0)\n"
        "os._exit(0)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(rec.directory)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src")},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"child\n"
    assert process.wait(30) == 0  # the parent; the child lives on
    RingReader(rec.directory).close()
    process.communicate(timeout=30)
    rec.close()
