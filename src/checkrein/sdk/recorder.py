"""The flight recorder: what an agent does is put down here, in its own thread, and nowhere else.

`record` encodes the event and appends it to a ring of memory-mapped files; from then on it survives
the death of the process at any instant. A shipper, here or in another process, takes it from there.
"""

import contextlib
import logging
import os
import struct
import threading
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from checkrein.events import fit, limits
from checkrein.events.types import Base, Loss
from checkrein.sdk.keeper import Keeper
from checkrein.sdk.layout import Control, meta_of_this_process, write_meta
from checkrein.sdk.place import Losses, Place, RecorderStats
from checkrein.sdk.ring import RETRY_NS, SEGMENT_BYTES, Allocate, Ring, bytes_max_from
from checkrein.world import World

LATE_EVENTS_MAX = 256
SAY_AGAIN_NS = 600_000_000_000

_log = logging.getLogger("checkrein.recorder")
_encode = msgspec.msgpack.Encoder().encode
_numbers = struct.Struct(">BH5sQ4sQ6sI").pack
_COMMON_FIELDS = 10
_SEQ = Control.SEQ
_WAITING = Control.WAITING


class Recorder:
    """Records into `root / id`. Nothing is made on disk before the first `record` or `open`.

    Safe from any thread, from signal handlers and finalizers (an event recorded while another is
    being recorded in the same thread follows right after it), and across forks: the child gets a
    recorder, a folder and an id of its own at its first use.

    When the ring's bound is near (or the disk is full) payloads are left out and facts kept; when
    it is reached, events are lost, counted, and told by `loss` events as soon as there is room.
    `keeper=False`: no helper thread; whoever records also does its work.
    """

    def __init__(
        self,
        root: Path,
        world: World,
        *,
        agent: str = "",
        room: str = "",
        environment: str = "",
        bytes_max: int | None = None,
        segment_bytes: int = 0,
        keeper: bool = True,
        allocate: Allocate = os.posix_fallocate,
    ) -> None:
        self.root = root
        self.world = world
        bound = bytes_max_from(os.environ) if bytes_max is None else bytes_max
        self.bytes_max = bound
        self._segment_bytes = segment_bytes or min(SEGMENT_BYTES, max(4096, bound // 16 & -4096))
        self._allocate = allocate
        self._has_keeper = keeper
        self._names = (agent, room, environment)
        self._reset()
        _all_recorders.add(self)

    def _reset(self) -> None:
        """As new: at the beginning, and in a forked child."""
        self._lock = threading.RLock()
        self._keeper = Keeper(self._keep)
        self._id = ""
        self._mine = b""
        self._ring: Ring | None = None
        self._control: memoryview | list[int] = [0] * 16
        self._closed = False
        self._idle: Ring | None = None
        """The ring, except while it is being used: so a `record` within a `record` is seen."""
        self._opening = False
        self._seq = 0
        self._losses = Losses()
        self._errors = 0
        self._say_again_ns: dict[str, int] = {}
        self._unsaid: deque[str] = deque(maxlen=16)
        self._now_ns = self.world.now_ns
        self._wake: Callable[[], None] | None = None
        self._open_at_ns = 0
        self._late: deque[tuple[type[Base], Place, int, dict[str, Any]]] = deque(
            maxlen=LATE_EVENTS_MAX
        )

    @property
    def id(self) -> str:
        """A UUIDv7; another one in a forked child."""
        if not self._id:
            with self._lock:
                if not self._id:
                    self._mine = _encode({"recorder": (name := self.world.uuid7())})[1:]
                    self._id = name
        return self._id

    @property
    def directory(self) -> Path:
        return self.root / self.id

    def open(self) -> bool:
        """Makes the folder now, for those who want to know or to read before the first event. False
        when it cannot be made (the log says why; it is tried again)."""
        with self._lock:
            return self._opened() is not None

    def on_waiting(self, call: Callable[[], None] | None) -> None:
        """`call()` in the recording thread at the next event after a reader of this process has set
        the `WAITING` word. It must be quick and must not raise."""
        self._wake = call

    def record(self, kind: type[Base], place: Place, step: int, /, **fields: Any) -> int:
        """Puts an event down and returns its number. Never raises an Exception, never waits for
        anything but other threads that record.

        Payloads should have gone through `events.plain.plain`; what cannot be encoded goes through
        it here, and what is over a limit is cut. The number is 0 when the event was recorded from
        within another `record` (it follows at once).
        """
        try:
            if place.redact is not None:
                fields = place.redact(fields)
            with self._lock:
                ring = self._idle
                if ring is None or ring.tight:
                    seq = self._record_otherwise(kind, place, step, fields)
                else:
                    self._idle = None
                    try:
                        self._seq = seq = self._seq + 1
                        data = self._encoded(kind, place, step, seq, fields)
                        if ring.append(seq, data):
                            control = self._control
                            control[_SEQ] = seq
                            if control[_WAITING] or ring.head >= ring.mark:
                                self._after(ring)
                        else:
                            self._lose_unless_small(ring, kind, place, step, seq, fields)
                    finally:
                        self._idle = ring
                if self._late and self._idle is not None:
                    self._catch_up()
        except Exception as error:
            self._fault(error)
            seq = 0
        if self._unsaid:
            self._speak()
        return seq

    def stats(self) -> RecorderStats:
        ring = self._ring
        segments = 0 if ring is None or self._closed else ring.segments
        lost = self._losses.count
        return RecorderStats(self._seq - lost, lost, self._errors, segments)

    def close(self) -> None:
        """Tells of losses if there is room, then lets go of the files. Later events are lost."""
        with self._lock:
            if self._closed:
                return
            ring, self._idle = self._ring, None
            self._closed = True
            self._control = [0] * 16
            if ring is not None:
                with contextlib.suppress(Exception):
                    self._tell_losses(ring)
                ring.close()
        self._keeper.stop()

    def settle(self) -> bool:
        """Records what is waiting, and tells of losses if there is room again. True when none is
        left to tell. (The keeper does this by itself.)"""
        with self._lock:
            ring = None if self._in_use else self._opened()
            if ring is not None:
                self._idle = None
                try:
                    if self._losses:
                        self._tell_losses(ring)
                finally:
                    self._idle = ring
                self._catch_up()
            return not self._losses

    @property
    def _in_use(self) -> bool:
        """Whether this thread, which holds the lock, is in the middle of something already."""
        if self._opening:
            return True
        return self._idle is None and self._ring is not None and not self._closed

    def _record_otherwise(
        self, kind: type[Base], place: Place, step: int, fields: dict[str, Any]
    ) -> int:
        """`record` when something is amiss: no ring yet, one in use, losses, little room."""
        if self._in_use:
            self._late.append((kind, place, step, fields))
            return 0
        ring = self._idle or self._opened()
        self._idle = None
        try:
            if ring is not None and self._losses:
                self._tell_losses(ring)
            self._seq = seq = self._seq + 1
            if ring is None or self._losses:
                self._lose(place, seq)
                return seq
            if ring.judge():
                fields = fit.facts(kind, fields, "the recorder is nearly full")
            if ring.append(seq, self._encoded(kind, place, step, seq, fields)):
                self._control[_SEQ] = seq
                self._after(ring)
            else:
                self._lose_unless_small(ring, kind, place, step, seq, fields)
            return seq
        finally:
            self._idle = ring

    def _catch_up(self) -> None:
        """Records what came from within another `record`."""
        while self._late:
            kind, place, step, fields = self._late.popleft()
            self.record(kind, place, step, **fields)

    def _encoded(
        self, kind: type[Base], place: Place, step: int, seq: int, fields: dict[str, Any]
    ) -> bytes:
        """The event's bytes. Joined from parts encoded once and the fields of its own: half the
        time of building and encoding the event's struct, and the same map."""
        try:
            own = _encode(fields)
            if len(own) > limits.TEXT_BYTES_MAX:
                fields = fit.fitted(kind, fields)
                own = _encode(fields)
        except Exception:
            fields = fit.fitted(kind, fields)
            own = _encode(fields)
        count = len(fields)
        now_ns = self._now_ns()
        return b"".join((
            _numbers(
                0xDE, count + _COMMON_FIELDS, b"\xa3seq\xcf", seq, b"\xa2ts\xcf", now_ns,
                b"\xa4step\xce", step,
            ),
            place.encoded.get(kind) or place.encode(kind),
            self._mine,
            own[1:] if count < 16 else own[3:],
        ))  # fmt: skip

    def _lose_unless_small(
        self, ring: Ring, kind: type[Base], place: Place, step: int, seq: int,
        fields: dict[str, Any],
    ) -> None:  # fmt: skip
        """No room, or an event larger than a segment: its facts alone may fit, else it is lost."""
        less = fit.facts(kind, fields, ring.why_full or "larger than the recorder allows")
        if ring.append(seq, self._encoded(kind, place, step, seq, less)):
            self._control[_SEQ] = seq
            self._after(ring)
        else:
            self._lose(place, seq)

    def _lose(self, place: Place, seq: int) -> None:
        self._losses.add(place, seq)
        ring = self._ring
        if ring is not None and not self._closed:
            ring.tight = True
            self._control[_SEQ] = seq
            self._control[Control.LOST] = self._losses.count
            self._say(f"events are being lost: {ring.why_full}")
            self._care(ring)

    def _tell_losses(self, ring: Ring) -> bool:
        """Appends a `loss` event for every place that lost some. False when there is no room."""
        if not ring.has_room():
            return False
        for place, lost in list(self._losses.by_place.items()):
            seq = self._seq + 1
            fields = {
                "lost_recorder": self._id, "count": lost.count, "first": lost.first,
                "last": lost.last, "why": ring.why_full,
            }  # fmt: skip
            if not ring.append(seq, self._encoded(Loss, place, 0, seq, fields)):
                return False
            self._seq = seq
            ring.control[_SEQ] = seq
            del self._losses.by_place[place]
        return True

    def _opened(self) -> Ring | None:
        """The ring, made at the first use. None when it cannot be made just now, or was closed."""
        if self._closed or self._ring is not None:
            return None if self._closed else self._ring
        now_ns = self.world.monotonic_ns()
        if now_ns < self._open_at_ns:
            return None
        self._opening = True
        try:
            self._ring = self._idle = self._made()
            self._control = self._ring.control
        except OSError as error:
            self._open_at_ns = now_ns + 4 * RETRY_NS
            self._say(f"cannot record: {error}; events are being lost")
        finally:
            self._opening = False
        return self._ring

    def _made(self) -> Ring:
        """A new folder with a ring in it. Raises OSError."""
        name = self.id
        directory = self.root / name
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in ("control", "segment-0000000001"):  # of an attempt that failed halfway
            (directory / left).unlink(missing_ok=True)
        ring = Ring(
            directory,
            bytes_max=self.bytes_max,
            segment_bytes=self._segment_bytes,
            allocate=self._allocate,
            monotonic_ns=self.world.monotonic_ns,
        )
        agent, room, environment = map(limits.clean_text, self._names)
        write_meta(directory, meta_of_this_process(
            name, self.world.now_ns(), agent=agent, room=room, environment=environment
        ))  # fmt: skip
        return ring

    def _after(self, ring: Ring) -> None:
        """What an append may call for: waking a sleeping reader, preparing what comes next."""
        control = self._control
        if control[_WAITING]:
            control[_WAITING] = 0
            if self._wake is not None:
                self._wake()
        if ring.head >= ring.mark:
            ring.attend()
            self._care(ring)

    def _care(self, ring: Ring) -> None:
        """Has the keeper prepare what comes next, or tell of losses as soon as there is room."""
        if self._has_keeper:
            self._keeper.nudge()
        else:
            ring.prepare()

    def _keep(self) -> bool:
        """The keeper's work. False: there are losses to tell, and no room yet."""
        try:
            ring = self._ring
            if ring is not None and not self._closed:
                ring.prepare()
                if self._losses or self._late:
                    self.settle()
                self._speak()
        except Exception as error:
            self._fault(error)
        return not self._losses

    def _fault(self, error: Exception) -> None:
        self._errors += 1
        self._say(f"an event could not be recorded: {type(error).__name__}: {error}")

    def _say(self, text: str) -> None:
        """Notes a trouble to be logged, each kind at most every ten minutes. Not logged at once:
        that must not happen under our lock, since log handlers have locks of their own."""
        kind, now_ns = text[:24], self.world.monotonic_ns()
        if now_ns >= self._say_again_ns.get(kind, 0):
            self._say_again_ns[kind] = now_ns + SAY_AGAIN_NS
            self._unsaid.append(text)

    def _speak(self) -> None:
        with contextlib.suppress(Exception):
            while self._unsaid:
                _log.warning("%s", self._unsaid.popleft())


_all_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for recorder in list(_all_recorders):
        recorder._reset()


os.register_at_fork(after_in_child=_after_fork_in_child)
