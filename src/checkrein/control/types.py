"""What goes into the control state machine and what comes out of it.

Inputs and actions are plain values. `token` is the caller's own: it comes back in the Reply.
"""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from checkrein.bus.approvals import Acknowledge, Ask, Decide, Raise
from checkrein.bus.messages import Beat, CommandRequest, Progress, Registration
from checkrein.events.types import Base

Desired = Literal["running", "paused", "halted"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Every bound and every interval of control, with its unit."""

    runs_max: int = 16_000
    """Live and lost runs. One more: the registration is refused, and says so."""
    ended_kept_s: float = 600.0
    ended_max: int = 2_000
    commands_max: int = 10_000
    lines_max: int = 200_000
    """Lines (one run of one command) kept in memory; the oldest finished commands go first."""
    runs_per_order_max: int = 2_000
    waiters_max: int = 1_000
    halted_tasks_max: int = 1_000
    forgeries_per_s_max: int = 10

    silent_after_s: float = 3.0
    lost_after_s: float = 10.0
    lost_kept_s: float = 3600.0
    standing_kept_s: float = 7 * 86400.0
    """How long a lost run that is to be paused or halted is remembered, should it come back."""

    edge_expires_s: float = 10.0
    act_life_s: float = 60.0
    """An act (inject, approve …) that no holder took for so long has failed."""
    repeat_first_s: float = 0.1
    repeat_max_s: float = 2.0
    repeat_delivered_s: float = 1.0
    repeat_silent_s: float = 10.0
    unconfirmed_after_s: float = 2.0
    escalate_after_s: float = 30.0
    wait_ms_max: int = 60_000
    late_registration_s: float = 10.0
    """A run that was on its way in when its agent, room or everything was halted is halted too."""

    probe_every_s: float = 5.0
    probe_fresh_s: float = 15.0
    probes_per_step_max: int = 25
    records_per_step_max: int = 200

    approvals_open_max: int = 2_000
    approvals_per_agent_max: int = 50
    """Open questions of one agent. One more is a no: who is asked without end says yes to all."""
    approvals_kept_max: int = 5_000
    """Decided ones; the oldest go first."""
    approval_life_s_max: float = 7 * 86400.0
    approval_use_s: float = 300.0
    """So long, at least, an approval that was given can be used."""
    grant_s_max: float = 86400.0
    claim_silent_s: float = 6.0
    """Who has not asked for so long waits no more: another may take the approval over."""
    similar_max: int = 5
    escalations_open_max: int = 2_000
    escalations_kept_max: int = 5_000
    escalate_within_s: float = 900.0
    """The clock of a run that was escalated by command without one of its own."""


@dataclass(frozen=True, slots=True)
class Registering:
    """A `Registration` came on `reg.<session>`: the bus has checked `session`."""

    session: str
    registration: Registration
    token: object


@dataclass(frozen=True, slots=True)
class Beating:
    session: str
    beat: Beat
    token: object = None
    """None: the holder waits for no answer."""


@dataclass(frozen=True, slots=True)
class Reporting:
    session: str
    progress: list[Progress]


@dataclass(frozen=True, slots=True)
class Asking:
    request: CommandRequest
    token: object


@dataclass(frozen=True, slots=True)
class Seeking:
    """A holder asks for an approval, or raises an escalation; the bus has checked `session`."""

    session: str
    word: Ask | Raise
    token: object


@dataclass(frozen=True, slots=True)
class Deciding:
    request: Decide
    token: object


@dataclass(frozen=True, slots=True)
class Acknowledging:
    request: Acknowledge
    token: object


@dataclass(frozen=True, slots=True)
class Misread:
    """Bytes on `subject` that were not what they should be."""

    session: str
    subject: str
    why: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. Wanted when `Control.due_ns` is reached; harmless at any other time."""


@dataclass(frozen=True, slots=True)
class Hearing:
    """Control itself lost its bus (`up` False) or hears again: silence in between is its own, not
    the holders'."""

    up: bool = True


@dataclass(frozen=True, slots=True)
class Revoked:
    """The last key of a halted run is gone (see `Revoke`)."""

    run_id: str


Input = (
    Registering | Beating | Reporting | Asking | Seeking | Deciding | Acknowledging | Misread
    | Tick | Hearing | Revoked
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Send:
    """A plain message on the control bus, now: the edge. May be lost."""

    subject: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    token: object
    data: bytes


@dataclass(frozen=True, slots=True)
class Save:
    """Something durable changed: ask `Control.saved(kind, key)` for its value when writing it (so
    that many changes are one write, and an older value is never written after a newer one)."""

    kind: Literal["level", "run", "command"]
    key: str


@dataclass(frozen=True, slots=True)
class Keep:
    """As Save, and what is `after` is sent once it is durable, not before: nobody is told of a
    decision that a crash could undo."""

    kind: Literal["approval", "escalation", "contained"]
    key: str
    after: tuple[Send | Reply, ...] = ()


@dataclass(frozen=True, slots=True)
class Notify:
    """People outside are to be told (the webhook), as far as there is a way."""

    what: Literal["approval.requested", "escalation.raised", "escalation.overdue"]
    key: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tell:
    """An event for the events bus."""

    event: Base


@dataclass(frozen=True, slots=True)
class Audit:
    """A record for the stream AUDIT on `audit.<kind>`, stored once per `record_id`."""

    kind: str
    record_id: str
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Changed:
    kind: Literal["run", "command", "approval", "escalation"]
    key: str


@dataclass(frozen=True, slots=True)
class Revoke:
    """A run was halted: its keys at the gateways are to be ended; `Revoked` says that they are."""

    run_id: str


Action = Send | Reply | Save | Keep | Notify | Tell | Audit | Changed | Revoke
