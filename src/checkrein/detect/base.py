"""What detectors have in common: defaults for the interface of `detect.types`, and helpers."""

from collections.abc import Iterable
from typing import Any

import msgspec

from checkrein.detect.types import Context, Observation
from checkrein.events.types import Base

Observations = Iterable[Observation]
NOTHING: tuple[Observation, ...] = ()
EVIDENCE_MAX = 16


class PerRun:
    """A detector whose state belongs to one run and goes with it. Subclasses name what they handle
    and write `observe`; those that watch the clock set `ticks` and write `tick`."""

    name: str = ""
    state_type: type[msgspec.Struct] = msgspec.Struct
    handles: tuple[type[Base], ...] = ()
    ticks: bool = False
    per_run: bool = True
    blames: bool = True

    def key(self, event: Base) -> str | None:
        return event.run_id

    def start(self) -> Any:
        return self.state_type()

    def observe(self, state: Any, event: Any, context: Context) -> Observations:
        return NOTHING

    def tick(self, state: Any, context: Context) -> Observations:
        return NOTHING

    def done(self, state: Any) -> bool:
        return False


def shown(event: Base) -> tuple[tuple[str, int], ...]:
    """One event as evidence."""
    return ((event.recorder, event.seq),)


def keep_last(found: list[tuple[str, int]], event: Base) -> None:
    """Adds an event to a list of evidence of at most 16."""
    found.append((event.recorder, event.seq))
    if len(found) > EVIDENCE_MAX:
        del found[0]


def steps_up(limit: int) -> tuple[int, int, int]:
    """For a limit of repeats: at how many to warn, to call it a breach, and to call it runaway
    (3, 5, 8 for a limit of 3)."""
    return limit, -(-limit * 5 // 3), -(-limit * 8 // 3)
