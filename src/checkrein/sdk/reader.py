"""The reading half of a flight recorder: by the process that records, or by another one, during its
life or after its death.

    RingError
        RingBusy     another process reads it already
        RingGone     the folder is not a recorder, or not yet
"""

import fcntl
import mmap
import os
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import msgspec

from checkrein.events import codec
from checkrein.events.types import Loss
from checkrein.sdk.layout import (
    FRAME_BYTES,
    HEADER_BYTES,
    MAGIC,
    PAGE_BYTES,
    Control,
    Found,
    Segment,
    find_recorders,
    owner_alive,
    read_meta,
    segment_name,
    segment_numbers,
    write_whole,
)
from checkrein.sdk.ring import RingError

__all__ = ["Cursor", "Found", "Recovered", "RingBusy", "RingGone", "RingReader", "find_recorders"]

READ_BYTES_MAX = 1024 * 1024
_CURSOR_BYTES_MAX = 16 * 1024 * 1024


class RingBusy(RingError):
    """Another process holds the reader's lock of this recorder."""


class RingGone(RingError):
    """No readable recorder is there."""


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """How far the store has confirmed, and what the shipper needs to go on from there."""

    upto: int = 0
    state: bytes = b""


class _Torn(msgspec.Struct, frozen=True, array_like=True):
    segment: int
    first: int
    last: int


@dataclass(frozen=True)
class Recovered:
    """What a dead recorder still holds: `events` that are not confirmed. `torn` are the numbers
    (first, last) that a crash of the machine destroyed, or that it had no time to tell as lost;
    each such stretch is read as a `loss` event."""

    events: int
    torn: tuple[tuple[int, int], ...]


class _View:
    """One segment, mapped for reading."""

    def __init__(self, path: Path, number: int, size: int) -> None:
        file = os.open(path, os.O_RDONLY)
        try:
            self.bytes = mmap.mmap(file, size, prot=mmap.PROT_READ)
        finally:
            os.close(file)
        self.number = number
        self.size = size
        self.words = memoryview(self.bytes).cast("Q")

    def records(self, at: int, after: int, *, whole: bool) -> Iterator[tuple[int, bytes, int]]:
        """(number, event, end) of the records from a place on, up to the head, or with `whole` as
        far as they are whole and in order."""
        words, data, size = self.words, self.bytes, self.size
        head = size if whole else min(words[Segment.HEAD], size)
        while at + FRAME_BYTES <= head:
            word = words[at >> 3]
            start = at + FRAME_BYTES
            end = start + (word & 0xFFFF_FFFF)
            if not word or end > size:
                return
            event = data[start:end]
            seq = words[(at >> 3) + 1]
            if crc32(event) != word >> 32 or seq <= after:
                return  # torn; or, on some processors, not quite visible yet
            at, after = end + 7 & -8, seq
            yield seq, event, at

    def close(self) -> None:
        self.words.release()
        self.bytes.close()


class RingReader:
    """The one reader of a recorder. Raises RingGone or RingBusy when it cannot be.

    `read` gives events in the order of their numbers; an event is given again after a restart until
    `confirm` has passed it. Not thread-safe.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        meta = read_meta(directory)
        if meta is None:
            raise RingGone(f"{directory}: no recorder's meta")
        self.meta = meta
        self._view: _View | None = None
        self._at = HEADER_BYTES
        self._last = 0
        self._torn: dict[int, tuple[int, bytes]] = {}
        self._final = 0
        self._closed = False
        self._recovered: Recovered | None = None
        try:
            file = os.open(directory / "control", os.O_RDWR)
        except OSError as error:
            raise RingGone(f"{directory}: {error.strerror}") from error
        try:
            if os.fstat(file).st_size < PAGE_BYTES:
                raise RingGone(f"{directory}: its control page is not there yet")
            self._lock = _take_lock(directory)
            self._control_map = mmap.mmap(file, PAGE_BYTES)
        finally:
            os.close(file)
        self._control = memoryview(self._control_map).cast("Q")
        self._segment_bytes = self._control[Control.SEGMENT_BYTES]
        if self._control[Control.MAGIC] != MAGIC:
            self.close()
            raise RingGone(f"{directory}: not a recorder of this version, or not yet whole")
        self.cursor = self._read_cursor()
        _all_readers.add(self)

    @property
    def last_seq(self) -> int:
        """The last number the writer gave."""
        return int(self._control[Control.SEQ])

    @property
    def lost(self) -> int:
        """Events that the writer had no room for."""
        return int(self._control[Control.LOST])

    @property
    def closed_by_writer(self) -> bool:
        return bool(self._control[Control.CLOSED])

    def ask_to_be_woken(self) -> None:
        """The writer's `on_waiting` call follows its next event. Look once more after this."""
        self._control[Control.WAITING] = 1

    def has_more(self) -> bool:
        """Whether `read` would go further than it has. Cheap."""
        return bool(self._control[Control.SEQ] > self._last)

    def owner_alive(self) -> bool:
        return owner_alive(self.meta)

    def read(self, after_seq: int, bytes_max: int = READ_BYTES_MAX) -> list[tuple[int, bytes]]:
        """The events numbered above `after_seq`, in order, up to `bytes_max` bytes (but always one
        if there is one). Empty: nothing more for now. Gaps between numbers are events that had no
        room; a `loss` event tells of them."""
        if after_seq < self._last or self._view is None:
            self._seek(after_seq)
        found: list[tuple[int, bytes]] = []
        room = bytes_max
        while room > 0 and (view := self._view) is not None:
            room = self._read_segment(view, after_seq, room, found)
            if room > 0 and not self._go_on(view, after_seq, found):
                break
        return found

    def _read_segment(
        self, view: _View, after_seq: int, room: int, found: list[tuple[int, bytes]]
    ) -> int:
        """Reads on in one segment; returns the room left (0 or less: stop)."""
        for seq, event, end in view.records(
            self._at, self._last, whole=self._recovered is not None
        ):
            self._at, self._last = end, seq
            if seq > after_seq:
                found.append((seq, event))
                room -= len(event)
                if room <= 0:
                    break
        return room

    def _go_on(self, view: _View, after_seq: int, found: list[tuple[int, bytes]]) -> bool:
        """Opens the next segment if this one is done with. False: wait for more."""
        if self._recovered is None:
            left = view.words[Segment.SEALED] or self._control[Control.SEGMENT] > view.number
            if not left or self._at < view.words[Segment.HEAD]:
                return False
            return self._open(view.number + 1)
        torn = self._torn.get(view.number)
        if torn is not None and torn[0] > self._last:
            self._last = torn[0]
            if torn[0] > after_seq:
                found.append(torn)
        return view.number < self._final and self._open(view.number + 1)

    def _open(self, number: int) -> bool:
        view = self._view_of(number)
        if view is None or (view.words[Segment.MAGIC] != MAGIC and self._recovered is None):
            return False
        if self._view is not None:
            self._view.close()
        self._view = view
        self._at = HEADER_BYTES
        return True

    def _view_of(self, number: int) -> _View | None:
        path = self.directory / segment_name(number)
        try:
            return _View(path, number, self._segment_bytes)
        except (OSError, ValueError):
            return None

    def _numbers(self) -> list[int]:
        freed_below = self._control[Control.FREED_BELOW]
        return [number for number in segment_numbers(self.directory) if number >= freed_below]

    def _seek(self, after_seq: int) -> None:
        """Goes to the first segment that may hold a number above `after_seq`."""
        numbers = self._numbers()
        while len(numbers) > 1 and 0 < self._word_of(numbers[0], Segment.LAST) <= after_seq:
            numbers.pop(0)
        self._last = 0
        if numbers:
            self._open(numbers[0])

    def _word_of(self, number: int, word: int) -> int:
        """A word of a segment's header; 0 when the segment is gone or not whole."""
        try:
            with open(self.directory / segment_name(number), "rb") as file:
                header = memoryview(file.read(HEADER_BYTES)).cast("Q")
                return header[word] if header[Segment.MAGIC] == MAGIC else 0
        except (OSError, TypeError, IndexError):
            return 0

    def confirm(self, upto_seq: int, state: bytes = b"") -> None:
        """The store has everything up to this number: remembers that, with the shipper's state, and
        gives whole segments back to the writer. Raises OSError when it cannot be written; then
        nothing is freed."""
        upto = max(upto_seq, self.cursor.upto)
        cursor = Cursor(upto, state)
        free = self._freeable(upto)
        data = msgspec.msgpack.encode(cursor)
        # Before segments go, what replaces them must be on disk.
        write_whole(self.directory / "cursor", data, durable=bool(free))
        self.cursor = cursor
        self._control[Control.CONFIRMED] = upto
        for number in free:
            (self.directory / segment_name(number)).unlink(missing_ok=True)
        if free:
            self._control[Control.FREED_BELOW] = free[-1] + 1

    def _freeable(self, upto: int) -> list[int]:
        """Segments, oldest first, whose events are all confirmed and that the writer has left."""
        free: list[int] = []
        number = self._control[Control.FREED_BELOW]
        while number < self._control[Control.SEGMENT]:
            if not 0 < self._word_of(number, Segment.LAST) <= upto:
                break
            free.append(number)
            number += 1
        return free

    def recover(self) -> Recovered:
        """For a recorder whose process is dead: checks every record by its checksum, whatever the
        heads say, since a crash of the machine may have kept any page and lost any other.

        Reading a segment stops at its first torn record and goes on with the next segment. Numbers
        that are missing at the end of a segment, or of all, become a `loss` event that `read` gives
        in their place under the last missing number. Idempotent, also across readers. Raises
        OSError.
        """
        if self._recovered is None:
            numbers = self._numbers()
            # Found once and written down: what is missing cannot be told any more when the
            # segments before it have been freed.
            path = self.directory / "torn"
            if path.exists():
                torn = msgspec.msgpack.decode(path.read_bytes(), type=list[_Torn])
            else:
                torn = self._find_torn(numbers)
                write_whole(path, msgspec.msgpack.encode(torn), durable=True)
            for missing in torn:
                event = self._loss(missing.first, missing.last)
                self._torn[missing.segment] = missing.last, event
            self._final = numbers[-1] if numbers else 0
            events = sum(
                seq > self.cursor.upto for number in numbers for seq in self._whole_in(number)
            )
            self._recovered = Recovered(events, tuple((m.first, m.last) for m in torn))
        return self._recovered

    def _find_torn(self, numbers: list[int]) -> list[_Torn]:
        last = self.cursor.upto
        torn: list[_Torn] = []
        for place, number in enumerate(numbers):
            last = max([last, *self._whole_in(number)])
            if place == len(numbers) - 1:
                expected = self.last_seq
            else:
                expected = self._word_of(number, Segment.LAST)
                expected = expected or self._word_of(numbers[place + 1], Segment.FIRST) - 1
            if expected > last:
                torn.append(_Torn(number, last + 1, expected))
                last = expected
        return torn

    def _whole_in(self, number: int) -> list[int]:
        """The numbers of a segment's whole records."""
        view = self._view_of(number)
        if view is None:
            return []
        seqs = [seq for seq, _, _ in view.records(HEADER_BYTES, 0, whole=True)]
        view.close()
        return seqs

    def remove(self) -> None:
        """Deletes the recorder's folder, once its process is dead and the store has everything."""
        self.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def close(self) -> None:
        """Lets go: another reader may begin where the last confirmation stands. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._view is not None:
            self._view.close()
            self._view = None
        self._control.release()
        self._control_map.close()
        fcntl.flock(self._lock, fcntl.LOCK_UN)  # also where a child just forked still holds it
        os.close(self._lock)

    def _loss(self, first: int, last: int) -> bytes:
        """The event that tells of numbers which the process's or the machine's end destroyed."""
        meta = self.meta
        return codec.encode(Loss(
            recorder=meta.recorder, seq=last, ts=meta.created, environment=meta.environment,
            room=meta.room, agent=meta.agent, run_id="", task_id="", step=0,
            lost_recorder=meta.recorder, count=last - first + 1, first=first, last=last,
            why="not on disk when the recorder's process or machine had died",
        ))  # fmt: skip

    def _read_cursor(self) -> Cursor:
        try:
            with open(self.directory / "cursor", "rb") as file:
                return msgspec.msgpack.decode(file.read(_CURSOR_BYTES_MAX), type=Cursor)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return Cursor()


def _take_lock(directory: Path) -> int:
    """The descriptor that holds the lock for as long as it is open; the kernel lets go of it when
    the process dies. Raises RingBusy."""
    lock = os.open(directory / "reader.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise RingBusy(error.errno, f"{directory}: another process reads it") from error
    return lock


_all_readers: weakref.WeakSet[RingReader] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # A child that kept the descriptor would hold the lock beyond its parent's death.
    for reader in list(_all_readers):
        if not reader._closed:
            reader._closed = True
            os.close(reader._lock)


os.register_at_fork(after_in_child=_after_fork_in_child)
