"""What the bus itself refuses, from the logs of the embedded servers.

A credential that publishes or subscribes where it may not is refused by the server, which says so
only in its log: one line with the user's public key. This follows the logs of both servers, finds
the session and the run behind the key, and puts a `scope.decision` on the agent's stream, of which
`detect.forgery` makes a signal.

Promises. A line is told at least once over restarts of this role (its event's number follows from
the line, so that twice is once). The same attempt of the same user is told once a minute; of all
attempts TOLD_PER_S_MAX a second; what is left out is counted in the log. A log that has grown over
LOG_BYTES_MAX is put aside as `.old.log`, so that whoever is refused a million times fills no disk.
Servers of a cluster that somebody else runs write their logs elsewhere: those are not followed, and
`doctor` says so.
"""

import json
import logging
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import msgspec

from checkrein.bus import subjects
from checkrein.bus.messages import LiveQuery, LiveRun, RunRecord, SessionRecord, decode, encode
from checkrein.bus.messages import MessageError as Malformed
from checkrein.bus.sessions import stand_in
from checkrein.bus.types import BusError
from checkrein.events.refusals import FORGERY, refused
from checkrein.events.types import ScopeDecision
from checkrein.server.context import RoleContext
from checkrein.server.said import message_of
from checkrein.server.sessions import Sessions

_log = logging.getLogger(__name__)

RECORDER = "role:bus"
LOGS = ("nats-events.log", "nats-control.log")
LOOK_S = 0.25
READ_BYTES_MAX = 1024 * 1024
BEHIND_BYTES_MAX = 4 * 1024 * 1024
LOG_BYTES_MAX = 16 * 1024 * 1024
LINE_BYTES_MAX = 16 * 1024
TOLD_PER_S_MAX = 20
AGAIN_AFTER_S = 60.0
REMEMBERED_MAX = 4096
POSITIONS_FILE = "violations.msgpack"

_QUOTED = rb'"(?:[^"\\]|\\.)*"'
_LINE = re.compile(
    rb"\[\d+\] [\d/]+ [\d:.]+ \[ERR\] \S+ - \w+:\d+ - " + _QUOTED + rb' - "[A-Z2-7]+/[^"/]*/'
    rb'jwt:(?P<user>U[A-Z2-7]{55})" - (?P<act>Publish|Subscription) Violation - '
    rb"Subject (?P<subject>" + _QUOTED + rb")(?:, (?:Queue|SID)\b.*)?"
)
"""The whole line, from its start: a client chooses its name, and could put a violation of somebody
else into it; within the quotes it stays a name."""


class Violation(msgspec.Struct, frozen=True):
    """`tried` is "publish" or "subscribe" and the subject; `line` tells it from all others."""

    user: str
    tried: str
    line: str


def parse(line: bytes) -> Violation | None:
    """What a line of a server's log says, None if it is about something else."""
    if b" Violation - " not in line or len(line) > LINE_BYTES_MAX:
        return None
    found = _LINE.fullmatch(line.rstrip(b"\r"))
    if found is None:
        return None
    act = "publish" if found["act"] == b"Publish" else "subscribe"
    quoted = found["subject"].decode("utf-8", "replace")
    try:
        subject = str(json.loads(quoted))
    except ValueError:  # Go quotes a few characters otherwise than JSON
        subject = quoted[1:-1]
    digest = blake2b(line, digest_size=8).hexdigest()
    return Violation(found["user"].decode(), f"{act} {subject}"[:300], digest)


class Position(msgspec.Struct):
    """How far a log was read: which file, and up to which byte."""

    inode: int = 0
    offset: int = 0


class Tail:
    """The lines of one log, each once. The log may be appended to, renamed to `.old.log` and begun
    anew, or cut: then it is read from its start."""

    def __init__(self, path: Path, position: Position) -> None:
        self._path, self.position = path, position
        self.skipped_bytes = 0

    def lines(self) -> Iterator[bytes]:
        """What is new, READ_BYTES_MAX at most. `position` moves as lines are taken."""
        old = self._path.with_suffix(".old.log")
        for path in (old, self._path):
            with suppress(FileNotFoundError), open(path, "rb") as file:
                status = os.fstat(file.fileno())
                known = status.st_ino == self.position.inode
                if path is old and not known:
                    continue
                if not known or status.st_size < self.position.offset:
                    self.position = Position(status.st_ino, 0)
                behind = status.st_size - self.position.offset
                if behind > BEHIND_BYTES_MAX:
                    self.skipped_bytes += behind - READ_BYTES_MAX
                    self.position.offset = status.st_size - READ_BYTES_MAX
                file.seek(self.position.offset)
                yield from self._of(file.read(READ_BYTES_MAX))
                if path is old and file.read(1):
                    return

    def _of(self, data: bytes) -> Iterator[bytes]:
        *whole, rest = data.split(b"\n")
        for line in whole:
            self.position.offset += len(line) + 1
            yield line
        if len(rest) > LINE_BYTES_MAX:
            self.position.offset += len(rest)

    def trim(self) -> None:
        """Puts a log that has grown too long aside, once it is read to its end. The server goes on
        writing into the same file, from its start; what it writes in between is lost."""
        with suppress(FileNotFoundError):
            size = self._path.stat().st_size
            if size > LOG_BYTES_MAX and size - self.position.offset < READ_BYTES_MAX:
                shutil.copyfile(self._path, self._path.with_suffix(".old.log"))
                os.truncate(self._path, 0)
                self.position.offset = 0


class Restraint:
    """Which attempts are told: pure but for the time it is given."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._second, self._count = 0, 0
        self.left_out = 0

    def lets(self, violation: Violation, now_ns: int) -> bool:
        key = (violation.user, violation.tried)
        last = self._told.get(key)
        if last is not None and now_ns - last < AGAIN_AFTER_S * 1e9:
            self.left_out += 1
            return False
        if now_ns // 1_000_000_000 != self._second:
            self._second, self._count = now_ns // 1_000_000_000, 0
        if self._count >= TOLD_PER_S_MAX:
            self.left_out += 1
            return False
        self._count += 1
        self._told[key] = now_ns
        self._told.move_to_end(key)
        if len(self._told) > REMEMBERED_MAX:
            self._told.popitem(last=False)
        return True


def event_of(
    violation: Violation, session: SessionRecord, run: RunRecord, now_ns: int
) -> ScopeDecision:
    """What is said of it. The run is one that the session holds, or what stands in for it."""
    common = {
        "recorder": RECORDER, "seq": int(violation.line, 16) % (2**62 - 1) + 1, "ts": now_ns,
        "environment": run.environment, "room": run.room, "agent": run.agent,
        "run_id": run.run_id, "task_id": run.task_id, "step": 0,
    }  # fmt: skip
    named = ", ".join(session.agents[:5])
    why = f"session {session.session} ({session.kind} of {named}) may not {violation.tried}"
    return refused(common, FORGERY, "bus", violation.tried, why)


class Violations:
    """The follower. `run` works until cancelled."""

    def __init__(self, context: RoleContext) -> None:
        self._context, self._world = context, context.world
        self._file = context.data / context.role / POSITIONS_FILE
        self._folder = context.data / "log"
        self._restraint = Restraint()
        self._written: dict[str, Position] = {}

    async def run(self) -> None:
        """Raises BusError when the sessions cannot be read at the start."""
        sessions = await Sessions.open(self._context.control_bus, self._world)
        tails = {name: Tail(self._folder / name, at) for name, at in self._remembered().items()}
        while True:
            try:
                for tail in tails.values():
                    await self._look(tail, sessions)
                self._remember({name: tail.position for name, tail in tails.items()})
            except (BusError, OSError) as error:
                _log.warning("following the servers' logs: %s", error)
            await self._world.sleep(LOOK_S)

    async def _look(self, tail: Tail, sessions: Sessions) -> None:
        before = msgspec.structs.replace(tail.position)
        try:
            for line in tail.lines():
                violation = parse(line)
                if violation is None:
                    continue
                if self._restraint.lets(violation, self._world.monotonic_ns()):
                    await self._tell(violation, sessions)
        except BusError:
            tail.position = before
            self._restraint = Restraint()
            raise
        if self._restraint.left_out or tail.skipped_bytes:
            _log.warning("%d refusals by the bus told already or too many at once, %d bytes of log "
                         "passed over", self._restraint.left_out, tail.skipped_bytes)  # fmt: skip
            self._restraint.left_out = tail.skipped_bytes = 0
        tail.trim()

    async def _tell(self, violation: Violation, sessions: Sessions) -> None:
        session = sessions.of_user(violation.user)
        if session is None:
            await sessions.read_all()
            session = sessions.of_user(violation.user)
        if session is None:
            _log.warning("the bus refused a user of no known session, %s: %s",
                         violation.user, violation.tried)  # fmt: skip
            return
        run = await self._run_of(session)
        event = event_of(violation, session, run or stand_in(session), self._world.now_ns())
        await self._context.bus.append(*message_of(event))

    async def _run_of(self, session: SessionRecord) -> RunRecord | None:
        """The latest run that this session holds, as control knows it."""
        query = encode(LiveQuery(session=session.session))
        try:
            answer = await self._context.control_bus.request(subjects.CONTROL_RUNS, query)
            found = decode(answer, list[LiveRun])
        except (BusError, Malformed) as error:
            _log.info("control does not say what session %s holds: %s", session.session, error)
            return None
        return max((run.record for run in found), key=lambda run: run.started_at, default=None)

    def _remembered(self) -> dict[str, Position]:
        positions: dict[str, Position] = {}
        with suppress(OSError, msgspec.MsgspecError):
            positions = msgspec.msgpack.decode(self._file.read_bytes(), type=dict[str, Position])
        return {name: positions.get(name, Position()) for name in LOGS}

    def _remember(self, positions: dict[str, Position]) -> None:
        """After a crash lines may be read again, never passed over: no need to sync."""
        if positions == self._written:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        fresh.write_bytes(msgspec.msgpack.encode(positions))
        fresh.replace(self._file)
        self._written = {name: msgspec.structs.replace(at) for name, at in positions.items()}
