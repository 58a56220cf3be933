"""How a flight recorder lies on disk. Writer and reader share this page and nothing else.

A recorder is a folder named by its id:

    meta                 JSON: who records here (`Meta`)
    control              one page of 64-bit words, mapped by writer and reader (`Control`)
    segment-0000000001   fixed-size files of records, allocated in full before use
    cursor               how far the store has confirmed, and the shipper's own state
    torn                 after its process died: which numbers are missing
    reader.lock          held by the one process that reads

A segment begins with 64 bytes of words (`Segment`), then records, each on an 8-byte boundary:
a word of length (low half) and CRC-32 (high half), a word with the event's number, the event.
The writer puts down the event, then the number, then the length word, and last moves the segment's
`HEAD` past them. So whatever lies below `HEAD` is whole, at any instant the writer may die; the
CRC finds what a crash of the machine has torn, since pages reach the disk in any order.
"""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

MAGIC = int.from_bytes(b"chkrein1", "little")
PAGE_BYTES = 4096
HEADER_BYTES = 64
FRAME_BYTES = 16


class Control:
    """Words of the control page. The writer writes all but FREED_BELOW, CONFIRMED and WAITING."""

    MAGIC = 0
    SEGMENT_BYTES = 1
    SEGMENT = 2
    """Number of the segment being written."""
    SEQ = 3
    """The last number given to an event, kept or lost."""
    WAITING = 4
    """1: a reader sleeps and asks to be woken by the next event."""
    FREED_BELOW = 5
    """Segments with a smaller number are gone: the store has confirmed them."""
    LOST = 6
    CLOSED = 7
    """1: the writer closed in an orderly way, nothing will follow."""
    CONFIRMED = 8
    """The number up to which the store has confirmed."""


class Segment:
    """Words at the beginning of a segment."""

    MAGIC = 0
    NUMBER = 1
    FIRST = 2
    """Number of its first event; 0: none yet."""
    HEAD = 3
    """Where the next record goes: all below is whole."""
    SEALED = 4
    """1: nothing will be added; the next segment follows."""
    LAST = 5
    """Number of its last event, set when it is sealed."""


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """Who records. `started` (clock ticks since boot) with `boot` tells a process from a later one
    with the same pid; `namespace` says where that pid counts."""

    recorder: str
    pid: int
    created: int
    agent: str = ""
    room: str = ""
    environment: str = ""
    boot: str = ""
    started: int = 0
    namespace: int = 0


def segment_name(number: int) -> str:
    return f"segment-{number:010d}"


def segment_numbers(directory: Path) -> list[int]:
    """The numbers of the segments that are there, in order."""
    return sorted(
        int(name[8:])
        for name in os.listdir(directory)
        if name.startswith("segment-") and name[8:].isdigit()
    )


def framed_bytes(size: int) -> int:
    """The room that an event of `size` bytes takes in a segment."""
    return FRAME_BYTES + (size + 7 & ~7)


def write_whole(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Replaces a file in one step: readers see the old or the new one. `durable`: on disk when this
    returns. Raises OSError."""
    beside = path.with_name(path.name + ".new")
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(file, data)
        if durable:
            os.fdatasync(file)
    finally:
        os.close(file)
    os.replace(beside, path)


def read_meta(directory: Path) -> Meta | None:
    """None when there is no meta, or not yet a whole one."""
    try:
        return msgspec.json.decode((directory / "meta").read_bytes(), type=Meta)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def write_meta(directory: Path, meta: Meta) -> None:
    write_whole(directory / "meta", json.dumps(msgspec.to_builtins(meta)).encode())


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def process_started(pid: int) -> int:
    """Start of a process in clock ticks since boot; 0 when it is gone, dead or not visible."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def pid_namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def meta_of_this_process(
    recorder: str, created: int, *, agent: str, room: str, environment: str
) -> Meta:
    pid = os.getpid()
    return Meta(
        recorder=recorder, pid=pid, created=created, agent=agent, room=room,
        environment=environment, boot=boot_id(), started=process_started(pid),
        namespace=pid_namespace(),
    )  # fmt: skip


def owner_alive(meta: Meta) -> bool:
    """Whether the recording process still lives. One of another pid namespace counts as alive: from
    here nobody can tell."""
    if meta.namespace and meta.namespace != pid_namespace():
        return True
    if meta.boot and meta.boot != boot_id():
        return False
    if meta.started:
        return process_started(meta.pid) == meta.started
    try:
        os.kill(meta.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass(frozen=True)
class Found:
    """A recorder on disk, and whether its process still lives."""

    directory: Path
    meta: Meta
    alive: bool


def find_recorders(root: Path) -> list[Found]:
    """All recorders in a folder, oldest first: with `alive` False they are leftovers of dead
    processes, to be shipped and removed by whoever finds them."""
    found = []
    with contextlib.suppress(OSError):
        for directory in sorted(root.iterdir()):
            meta = read_meta(directory)
            if meta is not None and (directory / "control").exists():
                found.append(Found(directory, meta, owner_alive(meta)))
    return found
