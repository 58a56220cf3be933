"""The ring: the writing half of a flight recorder, segments in memory-mapped files.

Errors: `RingError`, when the ring cannot be made. Appending raises nothing: it says no.
"""

import contextlib
import ctypes
import logging
import mmap
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from zlib import crc32

from checkrein.sdk.layout import (
    FRAME_BYTES,
    HEADER_BYTES,
    MAGIC,
    PAGE_BYTES,
    Control,
    Segment,
    segment_name,
)

BYTES_MAX = 256 * 1024 * 1024
BYTES_VARIABLE = "CHECKREIN_RECORDER_BYTES"
SEGMENT_BYTES = 8 * 1024 * 1024
PREPARE_BYTES = 256 * 1024
RETRY_NS = 250_000_000
_POPULATE_WRITE = 23
_HEAD = Segment.HEAD
_NEVER = 2**62
_madvise = getattr(ctypes.CDLL(None), "madvise", None)

Allocate = Callable[[int, int, int], None]


class RingError(OSError):
    """The ring's folder or first segment cannot be made. Says where and why."""


class _Mapped:
    """A file mapped whole, as bytes and as 64-bit words."""

    def __init__(self, file: int, size: int) -> None:
        self.bytes = mmap.mmap(file, size)
        self.words = memoryview(self.bytes).cast("Q")
        self.size = size
        self.touched = 0

    def close(self) -> None:
        self.words.release()
        # While another thread touches the pages they stay mapped until it is done.
        with contextlib.suppress(BufferError):
            self.bytes.close()

    def touch_here(self, start: int) -> int:
        """Has the kernel map the pages from `start` on for writing; returns up to where. Without
        letting other threads of Python run: waiting for them would take longer."""
        start &= -PAGE_BYTES
        upto = min(start + PREPARE_BYTES, self.size)
        with contextlib.suppress(OSError, ValueError):
            self.bytes.madvise(_POPULATE_WRITE, start, upto - start)
        return upto

    def touch(self, upto: int) -> None:
        """The same up to `upto`, for a helper thread: the others run meanwhile."""
        upto = min(upto & -PAGE_BYTES, self.size)
        if upto <= self.touched or _madvise is None:
            return
        try:
            view = ctypes.c_char.from_buffer(self.bytes)
        except ValueError:
            return  # the writer has left it meanwhile
        address = ctypes.addressof(view)
        while (start := self.touched) < upto:
            # Piece by piece: whoever maps or unmaps in this process waits for each.
            size = min(PREPARE_BYTES, upto - start)
            _madvise(ctypes.c_void_p(address + start), ctypes.c_size_t(size), _POPULATE_WRITE)
            self.touched = max(self.touched, start + size)
        del view


def map_new(path: Path, size: int, allocate: Allocate) -> _Mapped:
    """A new file of `size` bytes with all its blocks allocated, mapped. A full disk is an OSError
    here, and never a SIGBUS later. Nothing is left behind on failure."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        allocate(file, 0, size)
        return _Mapped(file, size)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(file)


def bytes_max_from(environment: Mapping[str, str]) -> int:
    """The ring's bound from CHECKREIN_RECORDER_BYTES, 256 MiB when it is not set or not a number of
    at least 64 KiB (which is said in the log)."""
    text = environment.get(BYTES_VARIABLE, "")
    if not text:
        return BYTES_MAX
    if text.isdigit() and int(text) >= 65536:
        return int(text)
    logging.getLogger("checkrein.recorder").warning(
        "%s=%r is not a number of bytes from 65536 up: %d used", BYTES_VARIABLE, text, BYTES_MAX
    )
    return BYTES_MAX


class Ring:
    """One writer's segments. Not thread-safe: the recorder holds its lock around every call but
    `prepare`, which may run in another thread beside them.

    `append` is durable against the death of this process at any instant, not against that of the
    machine. When `head` reaches `mark`, `attend` is due. `tight` says that room is nearly used up
    (or the disk is full): only what must be kept should be appended. `why_full` says why an append
    was refused.
    """

    def __init__(
        self,
        directory: Path,
        *,
        bytes_max: int,
        segment_bytes: int = SEGMENT_BYTES,
        allocate: Allocate = os.posix_fallocate,
        monotonic_ns: Callable[[], int],
    ) -> None:
        if segment_bytes % PAGE_BYTES or segment_bytes < PAGE_BYTES:
            raise RingError(f"segment of {segment_bytes} bytes: whole pages of {PAGE_BYTES} needed")
        self.directory = directory
        self.segments_max = max(2, bytes_max // segment_bytes)
        self.event_bytes_max = segment_bytes - HEADER_BYTES - FRAME_BYTES
        self._reserve = max(1, self.segments_max // 8)
        self._allocate = allocate
        self._monotonic_ns = monotonic_ns
        self._segment_bytes = segment_bytes
        self._number = 0
        self._ahead: tuple[int, _Mapped] | None = None
        self._left: deque[_Mapped] = deque()
        self._making = threading.Lock()
        self.head = segment_bytes
        self.mark = 0
        self._seq = 0
        self._window = min(PREPARE_BYTES, segment_bytes // 2)
        self._retry_at_ns = 0
        self.why_full = ""
        self.tight = False
        try:
            control = map_new(directory / "control", PAGE_BYTES, allocate)
            self.control = control.words
            self._control = control
            self._current = self._make(1)
        except OSError as error:
            raise RingError(error.errno, f"recorder at {directory}: {error.strerror}") from error
        self._enter(1, self._current)
        self.control[Control.SEGMENT_BYTES] = segment_bytes
        self.control[Control.FREED_BELOW] = 1
        self.control[Control.MAGIC] = MAGIC

    def append(self, seq: int, data: bytes) -> bool:
        """Puts an event down and publishes it. False: no room; nothing was written."""
        size = len(data)
        at = self.head
        end = at + FRAME_BYTES + (size + 7 & -8)
        if end > self._segment_bytes:
            if size > self.event_bytes_max or not self._roll():
                return False
            at = HEADER_BYTES
            end = at + FRAME_BYTES + (size + 7 & -8)
        words = self._words
        start = at + FRAME_BYTES
        self._bytes[start : start + size] = data
        place = at >> 3
        words[place + 1] = seq
        words[place] = crc32(data) << 32 | size
        if at == HEADER_BYTES:
            words[Segment.FIRST] = seq
        self._seq = seq
        self.head = end
        words[_HEAD] = end
        return True

    def attend(self) -> None:
        """What the recording thread does itself once `head` has reached `mark`: maps the next pages
        if they are not mapped yet. (One by one they would cost several times as much.) Whoever
        calls this should have `prepare` run soon."""
        current, size = self._current, self._segment_bytes
        if self.head >= current.touched < size:
            current.touched = current.touch_here(self.head)
            # It outruns its helper: the helper should keep further ahead.
            self._window = min(2 * self._window, size // 2)
        self.mark = current.touched if current.touched < size else _NEVER

    def prepare(self) -> None:
        """Maps pages ahead of the writer, and past the middle of a segment makes the next one, so
        that the recording thread need not. Safe beside `append` in another thread. Raises nothing.
        """
        while self._left:
            self._left.popleft().close()  # unmapping takes its time, too
        current, size = self._current, self._segment_bytes
        current.touch(self.head + self._window)
        late = self.head >= size // 2
        following = self._make_ahead() if late else None
        if following is not None and following.touched == 0:
            following.touch(self._window)
        if current is self._current:
            mark = current.touched - self._window // 2 if current.touched < size else _NEVER
            self.mark = mark if late else min(mark, size // 2)

    def has_room(self) -> bool:
        """Whether an event may fit now; looks again at what was full."""
        if self.head + PAGE_BYTES // 2 < self._segment_bytes:
            return True
        return self._make_ahead() is not None

    def judge(self) -> bool:
        """Sets and returns `tight`."""
        self.tight = self.segments > self.segments_max - self._reserve or self._retry_at_ns > 0
        return self.tight

    @property
    def segments(self) -> int:
        """How many segments lie on disk and are not freed."""
        return int(self._number - self.control[Control.FREED_BELOW] + 1)

    def close(self) -> None:
        """Says that nothing will follow, and unmaps. What was recorded stays on disk."""
        self.control[Control.CLOSED] = 1
        self._words[Segment.LAST] = self._seq
        self._words[Segment.SEALED] = 1
        for segment in (self._current, *self._left):
            segment.close()
        if self._ahead is not None:
            self._ahead[1].close()
            (self.directory / segment_name(self._ahead[0])).unlink(missing_ok=True)
            self._ahead = None
        self._control.close()

    def _make(self, number: int) -> _Mapped:
        path = self.directory / segment_name(number)
        path.unlink(missing_ok=True)
        segment = map_new(path, self._segment_bytes, self._allocate)
        segment.words[Segment.NUMBER] = number
        segment.words[_HEAD] = HEADER_BYTES
        segment.words[Segment.MAGIC] = MAGIC
        return segment

    def _has_turn(self, number: int) -> bool:
        """Whether the bound leaves room for this segment."""
        if number - self.control[Control.FREED_BELOW] < self.segments_max:
            return True
        self.why_full = (
            f"{self.segments_max * self._segment_bytes} bytes of {self.directory} wait for the "
            "store to confirm them"
        )
        return False

    def _make_ahead(self) -> _Mapped | None:
        """The next segment, made now unless it stands ready. None: no room, `why_full` says why."""
        with self._making:
            ahead = self._ahead
            number = self._number + 1
            if ahead is not None and ahead[0] == number:
                return ahead[1]
            if not self._has_turn(number) or (
                self._retry_at_ns and self._monotonic_ns() < self._retry_at_ns
            ):
                return None
            try:
                segment = self._make(number)
            except (OSError, ValueError) as error:
                self._retry_at_ns = self._monotonic_ns() + RETRY_NS
                self.why_full = f"cannot extend the recorder at {self.directory}: {error}"
                self.tight = True
                return None
            self._retry_at_ns = 0
            self._ahead = (number, segment)
            return segment

    def _roll(self) -> bool:
        """Goes on to the next segment, made ahead or else here and now."""
        segment = self._make_ahead()
        if segment is None:
            return False
        before = self._current
        before.words[Segment.LAST] = self._seq
        before.words[Segment.SEALED] = 1
        self._left.append(before)
        self._enter(self._number + 1, segment)
        return True

    def _enter(self, number: int, segment: _Mapped) -> None:
        # An exception from a signal handler may stop this anywhere. Until the last line the ring
        # looks full, so the next append begins the roll anew.
        self.head = self._segment_bytes
        self._current = segment
        self._bytes = segment.bytes
        self._words = segment.words
        self.control[Control.SEGMENT] = number
        self._number = number
        self._ahead = None
        self.mark = 0
        self.judge()
        self.head = HEADER_BYTES
