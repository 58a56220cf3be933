"""What can happen to a unit (in), and what its ladder wants done (out). Plain, frozen data.

A *unit* is one process tree under control with the runs that live in it.
"""

from dataclasses import dataclass
from typing import Any

from checkrein.bus.messages import Stage

# -- in ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ordered:
    """A verified, accepted order for runs of this unit: `runs` are (run_id, epoch)."""

    command_id: str
    verb: str
    runs: tuple[tuple[str, int], ...]
    reason: str = ""
    issued_by: str = ""
    arguments: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RunBegan:
    run_id: str
    parent_run_id: str = ""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """In an orderly way: the agent's own code said so."""

    run_id: str


@dataclass(frozen=True, slots=True)
class SdkChanged:
    """How many processes of the unit are connected."""

    connected: int


@dataclass(frozen=True, slots=True)
class SdkDid:
    """The agent's code answers an instruction."""

    command_id: str
    run_id: str
    stage: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class InFlight:
    """The calls under way in a run, as the agent's code counts them."""

    run_id: str
    calls: int


@dataclass(frozen=True, slots=True)
class Froze:
    """The look after `Freeze`: `ok` when nobody runs any more."""

    ok: bool


@dataclass(frozen=True, slots=True)
class Captured:
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Killed:
    """The look after `Kill`: who is still alive."""

    survivors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Died:
    """The main process is gone; what it started may go on."""


@dataclass(frozen=True, slots=True)
class Gone:
    """Nobody of the tree is left."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The time that `Ladder.wake_at_ns` asked for has come."""


Happened = (
    Ordered | RunBegan | RunEnded | SdkChanged | SdkDid | InFlight
    | Froze | Captured | Killed | Died | Gone | Tick
)  # fmt: skip

# -- out -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tell:
    """Instruct the agent's code (all connected processes of the unit)."""

    command_id: str
    verb: str
    run_id: str
    epoch: int
    reason: str
    issued_by: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Freeze:
    """Stop the tree and answer with `Froze`."""


@dataclass(frozen=True, slots=True)
class Thaw:
    """Let the tree go on."""


@dataclass(frozen=True, slots=True)
class Capture:
    """Look at the standing processes and answer with `Captured`."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill the tree and answer with `Killed`."""


@dataclass(frozen=True, slots=True)
class Report:
    """A stage reached, for the receipt. `ms` since the order came."""

    command_id: str
    run_id: str
    epoch: int
    stage: Stage
    ms: float
    by: str = "supervisor"
    confirmed: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A run's status changed by an order (paused, running, halted), with the reason in words."""

    run_id: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class Revoke:
    """This run's rights end: nothing more is published or leased for it."""

    run_id: str


Act = Tell | Freeze | Thaw | Capture | Kill | Report | Mark | Revoke
