"""The detector interface: pure functions over the stream, one detector a file.

A detector never acts, opens nothing, reads no clock and keeps no state outside the State it was
given. It sees one run (or one key) at a time, in order. The same code runs live in `watch`, offline
over recorded runs, and in replay.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol

import msgspec

from checkrein.events.types import Base
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
    run_id: str = ""
    """The run it is about, from a detector that keeps many runs under one key; else empty."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector may know besides the event: the agent's pact, and the time of the stream
    (the event's, or the tick's), never the machine's."""

    pact: Pact
    now_ns: int


class Detector(Protocol):
    """`State` must be a msgspec Struct, so that it can be snapshot and restored, and bounded: each
    detector says its bound per key in its docstring."""

    @property
    def name(self) -> str: ...

    @property
    def state_type(self) -> type[msgspec.Struct]: ...

    @property
    def handles(self) -> tuple[type[Base], ...]:
        """The types of events it wants to see."""

    @property
    def ticks(self) -> bool:
        """Whether it wants `tick`."""

    @property
    def per_run(self) -> bool:
        """Its keys are run ids: the state goes when the run has ended."""

    @property
    def blames(self) -> bool:
        """Its breaches are the agent's own doing: two detectors of this kind ask for a halt."""

    def key(self, event: Base) -> str | None:
        """Which state this event belongs to (usually `run_id`); None: not for this detector."""

    def start(self) -> Any:
        """A fresh state for a key."""

    def observe(self, state: Any, event: Base, context: Context) -> Iterable[Observation]:
        """Takes in one event, in order; changes `state`; says what it sees."""

    def tick(self, state: Any, context: Context) -> Iterable[Observation]:
        """Time has passed (about each second) with or without events. Default detectors of time
        (silence, wall clock, slow tool) speak here."""

    def done(self, state: Any) -> bool:
        """True when the key can be forgotten."""


Report = Callable[[str, str], None]
"""`report(detector, error)`: a detector that errs is reported by name and takes nothing down."""
