"""What a run is called, and the seam to whatever keeps its events."""

from typing import Any, Protocol

import msgspec

from checkrein.sdk.place import RecorderStats


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is called. `adopted`: it was begun by the supervisor, for the whole process.
    `ambient`: it is the run of code that is in no run."""

    run_id: str
    task_id: str
    agent: str
    room: str
    goal: str = ""
    task_type: str = ""
    parent_run_id: str = ""
    labels: dict[str, str] = {}
    adopted: bool = False
    ambient: bool = False


class Recording(Protocol):
    """What is asked of a flight recorder: `sdk.recorder.Recorder`. Safe from any thread."""

    @property
    def id(self) -> str:
        """What it is called among recorders; another one in a forked child."""

    def record(self, kind: Any, place: Any, step: int, /, **fields: Any) -> int:
        """Appends an event; returns its number, or 0. Never raises an Exception."""

    def stats(self) -> RecorderStats: ...
    def close(self) -> None:
        """Later events are lost."""


class Blank:
    """A recorder that keeps nothing, where none can be had."""

    id = ""

    def record(self, kind: Any, place: Any, step: int, /, **fields: Any) -> int:
        return 0

    def stats(self) -> RecorderStats:
        return RecorderStats(recorded=0, lost=0, errors=0, segments=0)

    def close(self) -> None:
        return None
