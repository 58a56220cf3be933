"""The detector interface: pure functions over the stream, one detector a file.

A detector never acts, opens nothing, reads no clock and keeps no state outside the State it was
given. It sees one run (or one key) at a time, in order. The same code runs live in `watch`, offline
over recorded runs, and in replay.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Literal, Protocol

import msgspec

from checkrein.events.types import Event
from checkrein.policy.types import Pact


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector says: it becomes a `signal` event with ids by the caller. `evidence` names
    events as (recorder, seq). `runaway`: of the class that halts a run by itself."""

    level: Literal["warn", "breach"]
    why: str
    runaway: bool = False
    value: float | None = None
    limit: float | None = None
    evidence: tuple[tuple[str, int], ...] = ()
    subject: str = ""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector may know besides the event: the agent's pact, and the time of the stream
    (the event's, or the tick's), never the machine's."""

    pact: Pact
    now_ns: int


class Detector(Protocol):
    """`State` must be a msgspec Struct, so that it can be snapshot and restored, and bounded: each
    detector says its bound per key in its docstring."""

    name: str
    state_type: type[msgspec.Struct]

    def key(self, event: Event) -> Hashable | None:
        """Which state this event belongs to (usually `run_id`); None: not for this detector."""

    def start(self) -> Any:
        """A fresh state for a key."""

    def observe(self, state: Any, event: Event, context: Context) -> Iterable[Observation]:
        """Takes in one event, in order; changes `state`; says what it sees."""

    def tick(self, state: Any, context: Context) -> Iterable[Observation]:
        """Time has passed (about each second) with or without events. Default detectors of time
        (silence, wall clock, slow tool) speak here."""

    def done(self, state: Any) -> bool:
        """True when the key can be forgotten."""


Report = Callable[[str, str], None]
"""`report(detector, error)`: a detector that errs is reported by name and takes nothing down."""
