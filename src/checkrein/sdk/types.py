"""What a run is called, and the seam to whatever keeps its events."""

from typing import Any, Protocol

import msgspec


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
    """What is asked of a flight recorder. `record` never raises an Exception."""

    def record(self, kind: Any, place: Any, step: int, /, **fields: Any) -> int: ...


class Blank:
    """A recorder that keeps nothing, where none can be had."""

    def record(self, kind: Any, place: Any, step: int, /, **fields: Any) -> int:
        return 0
