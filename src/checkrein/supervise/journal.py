"""What the supervisor itself records of a run: that it started, that it was paused or stopped from
outside, and how it ended when it could not say so itself.

Its events go into a flight recorder of its own, beside those of the agent's processes, and are
shipped like theirs.
"""

import os
import pwd
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from checkrein.bus.messages import RunRecord
from checkrein.events import refusals
from checkrein.events.types import Base, RunEnd, RunStart, ScopeDecision, Status
from checkrein.sdk.place import Place
from checkrein.sdk.recorder import Recorder
from checkrein.supervise.outcome import Ending, Exit
from checkrein.world import World

OWN_BYTES_MAX = 4 * 1024 * 1024
OWN_SEGMENT_BYTES = 256 * 1024
PLACES_MAX = 1_000


class Recording(Protocol):
    """Where events go: the ring, or a list in a test. Numbers each event and gives it its time."""

    def record(self, kind: type[Base], where: RunRecord, step: int, own: dict[str, Any]) -> None:
        """Never raises: what cannot be kept is counted as lost."""


class Journal:
    """Writes the supervisor's events. Never raises on account of a full disk: the agent goes on."""

    def __init__(self, world: World, recording: Recording) -> None:
        self._world = world
        self._recording = recording

    def started(
        self, record: RunRecord, argv: Sequence[str], pact: str = "", pact_version: str = ""
    ) -> None:
        self._write(
            RunStart, record, 0,
            goal=record.goal, task_type=record.task_type, parent_run_id=record.parent_run_id,
            argv=list(argv), pid=record.pid, host=record.host, user=user_name(),
            pact=pact, pact_version=pact_version,
        )  # fmt: skip

    def status(
        self, record: RunRecord, step: int, status: str, reason: str,
        detail: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self._write(Status, record, step, status=status, reason=reason, detail=detail or {})

    def bypass(
        self, record: RunRecord, step: int, *, kind: str, to: str, pid: int, words: str,
        refused: bool,
    ) -> None:  # fmt: skip
        own = refusals.bypass(kind, to, pid, words, refused)
        self._write(ScopeDecision, record, step, **own)

    def ended(self, record: RunRecord, step: int, ending: Ending, exited: Exit) -> None:
        self._write(
            RunEnd, record, step,
            status=ending.status, reason=ending.reason, exit_code=exited.code,
            signal=exited.signal_name, steps=step,
            duration_ns=max(0, self._world.now_ns() - record.started_at),
        )  # fmt: skip

    def _write(self, kind: type[Base], record: RunRecord, step: int, **own: Any) -> None:
        self._recording.record(kind, record, step, own)


class ListRecording:
    """The twin in memory."""

    def __init__(self, world: World, recorder: str = "in-memory") -> None:
        self._world = world
        self.recorder = recorder
        self.events: list[Base] = []

    def record(self, kind: type[Base], where: RunRecord, step: int, own: dict[str, Any]) -> None:
        self.events.append(
            kind(
                recorder=self.recorder, seq=len(self.events) + 1, ts=self._world.now_ns(),
                environment=where.environment, room=where.room, agent=where.agent,
                run_id=where.run_id, task_id=where.task_id, step=step, **own,
            )
        )  # fmt: skip


class RingRecording:
    """The supervisor's own flight recorder, a small one: it says little."""

    def __init__(self, root: Path, world: World) -> None:
        self._recorder = Recorder(
            root, world, bytes_max=OWN_BYTES_MAX, segment_bytes=OWN_SEGMENT_BYTES, keeper=False
        )
        self._places: dict[str, tuple[RunRecord, Place]] = {}

    def record(self, kind: type[Base], where: RunRecord, step: int, own: dict[str, Any]) -> None:
        known = self._places.get(where.run_id)
        if known is None or known[0] is not where:
            if len(self._places) >= PLACES_MAX:
                self._places.clear()
            place = Place(where.environment, where.room, where.agent, where.run_id, where.task_id)
            known = self._places[where.run_id] = (where, place)
        self._recorder.record(kind, known[1], step, **own)

    def close(self) -> None:
        self._recorder.close()


def user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def host_name() -> str:
    return socket.gethostname()
