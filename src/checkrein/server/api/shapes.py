"""What goes over HTTP. Fields may be added; those that stand here stay.

Times named `_at` and `ts` are nanoseconds since 1970; `_ms` and `_s` are durations.
"""

from typing import Any, Literal

import msgspec

from checkrein.bus.messages import CommandState, Verb
from checkrein.policy.types import Stage
from checkrein.server.api.identity_shapes import AgentIdentity
from checkrein.server.api.roles import Role

RunStatus = Literal[
    "running", "waiting_model", "waiting_tool", "waiting_human", "paused", "escalated",
    "completed", "failed", "halted", "lost", "stuck", "unfinished",
]  # fmt: skip
STATUSES: frozenset[str] = frozenset(RunStatus.__args__)  # type: ignore[attr-defined] # a Literal
ENDED: frozenset[str] = frozenset(("completed", "failed", "halted", "lost", "unfinished"))


class RunLine(msgspec.Struct, frozen=True, kw_only=True):
    """One run on the board. `usd` is null while no price is known. `can_halt`: the last probe was
    answered outside the agent; `can_halt_why` says it in words. `level` is how far the agent is
    fenced in, really reached, L0 to L4, "" when nobody holds the run."""

    run_id: str
    agent: str
    room: str
    environment: str
    task_id: str
    status: str
    step: int
    tokens: int
    usd: float | None
    started_at: int
    last_event_age_s: float | None
    can_halt: bool
    can_halt_why: str = ""
    level: str = ""
    live: bool = False
    reason: str = ""
    goal: str = ""
    task_type: str = ""
    parent_run_id: str = ""
    holder: str = ""
    epoch: int = 0
    ended_at: int | None = None
    tool_calls: int = 0
    errors: int = 0
    in_flight: list[dict[str, Any]] = []


class RungLine(msgspec.Struct, frozen=True, kw_only=True):
    rung: str
    ms: float


class CommandRunLine(msgspec.Struct, frozen=True, kw_only=True):
    """`how` lists the rungs in the order climbed; `confirmed` names who saw it, "" while nobody
    has. `outcome` is "" while the order is open; only `obeyed` is success."""

    run_id: str
    agent: str
    delivered_ms: float | None
    obeyed_ms: float | None
    how: list[RungLine]
    confirmed: str
    epoch: int = 0
    note: str = ""
    outcome: str = ""


class CommandLine(msgspec.Struct, frozen=True, kw_only=True):
    command_id: str
    verb: str
    target: str
    reason: str
    issued_by: str
    asked_at: int
    runs: list[CommandRunLine]
    done: bool = False
    error: str = ""


class CommandBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/commands. `target` is `agent:NAME`, `run:ID` (or the beginning of one),
    `room:NAME`, `task:ID` or `all`. `wait_ms`: how long the answer may wait for receipts. With a
    `command_id` of its own (a UUIDv7) a caller may ask again without commanding twice."""

    verb: Verb
    target: str
    reason: str
    arguments: dict[str, Any] = {}
    wait_ms: int = 2000
    command_id: str = ""


class IncidentLine(msgspec.Struct, frozen=True, kw_only=True):
    incident_id: str
    severity: str
    detector: str
    agent: str
    run_id: str
    task_id: str
    room: str
    opened_at: int
    count: int
    why: str
    status: str
    outcome: str
    owner: str = ""


class ApprovalLine(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody is asked. `digest` binds the answer to this very action under this version of
    the pact. `words` is what the agent itself says of it. `undo` is `{kind, undo}` of the tool.
    `similar`: the latest decisions about this agent and tool, when it was asked."""

    approval_id: str
    agent: str
    run_id: str
    tool: str
    arguments: Any
    rule: str
    reason: str
    asked_at: int
    expires_at: int
    undo: dict[str, str]
    status: str = "open"
    kind: str = "tool"
    task_id: str = ""
    room: str = ""
    environment: str = ""
    step: int = 0
    digest: str = ""
    words: str = ""
    inputs: dict[str, Any] = {}
    pact: str = ""
    pact_version: str = ""
    decided_by: str = ""
    decided_at: int = 0
    decision_reason: str = ""
    edited: bool = False
    edited_arguments: Any = None
    raised: dict[str, float] = {}
    grant_until: int = 0
    granted_by: str = ""
    used_at: int = 0
    used_run: str = ""
    similar: list[dict[str, Any]] = []


class DecisionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/approvals/{id}/decision. `arguments`, when given, are approved instead of those
    asked about. `for_s`: all calls of the same agent, tool, rule and pact version are approved for
    so long. `raise`: by how much budgets are raised. `digest`, when given, must be the approval's.
    `by` says who decides, beside the token."""

    decision: Literal["approve", "deny"]
    reason: str = ""
    arguments: Any = msgspec.UNSET
    for_s: float = 0.0
    raised: dict[str, float] = msgspec.field(name="raise", default_factory=dict)
    digest: str = ""
    by: str = ""


class DecisionsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/approvals/decisions: several by their ids, or all open ones that fit the agent,
    the tool and the rule given."""

    decision: Literal["approve", "deny"]
    ids: list[str] = []
    agent: str = ""
    tool: str = ""
    rule: str = ""
    reason: str = ""
    for_s: float = 0.0
    by: str = ""


class DecidedLine(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one: `error` says why it was not decided so."""

    id: str
    ok: bool
    status: str = ""
    error: str = ""


class EscalationLine(msgspec.Struct, frozen=True, kw_only=True):
    """`due_at` 0: no clock runs. `status`: open, overdue or acknowledged."""

    escalation_id: str
    agent: str
    run_id: str
    to: str
    why: str
    raised_at: int
    due_at: int
    status: str
    rule: str = ""
    tool: str = ""
    arguments: Any = None
    step: int = 0
    hold: bool = False
    task_id: str = ""
    room: str = ""
    environment: str = ""
    acknowledged_by: str = ""
    acknowledged_at: int = 0
    note: str = ""
    overdue_at: int = 0


class AcknowledgeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/escalations/{id}/acknowledge."""

    note: str = ""
    by: str = ""


class AgentLine(msgspec.Struct, frozen=True, kw_only=True):
    """`last_seen` 0: never. `identity`: None for one that nobody has added by name."""

    agent: str
    runs: int
    live: int
    can_halt: int
    tokens: int
    usd: float | None
    last_seen: int
    rooms: list[str] = []
    pact: str = ""
    identity: AgentIdentity | None = None


class RoomLine(msgspec.Struct, frozen=True, kw_only=True):
    room: str
    runs: int
    live: int
    agents: list[str]


class PactBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT /api/v1/pacts/{agent}. `text` is YAML; `source` is what errors call it, a file's name.
    Without an environment: `development`."""

    text: str
    environment: str = ""
    stage: Stage = "enforce"
    reason: str = ""
    source: str = ""


class HoldingLine(msgspec.Struct, frozen=True, kw_only=True):
    """Processes that do not enforce the newest: what they do enforce, and why."""

    enforced: str
    shadow: str
    revision: int
    error: str
    processes: int


class PactLine(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's pact in one environment. `version` and `text` are of the one enforced (of the one
    in shadow, or the newest draft, when none is: see `stage`). `effective` is the version by which
    agents decide: another one when a pact that it extends has changed since. `revision` rises with
    every change of what is in force. The newest revision holds in `current` of `processes`."""

    agent: str
    text: str
    version: str
    revision: int
    environment: str = ""
    stage: str = ""
    effective: str = ""
    shadow: str = ""
    drafts: list[str] = []
    author: str = ""
    changed_at: int = 0
    processes: int = 0
    current: int = 0
    behind: list[HoldingLine] = []
    trouble: str = ""


class PactVersionLine(msgspec.Struct, frozen=True, kw_only=True):
    """`stage` is "" for a version that has been replaced."""

    version: str
    environment: str
    stage: str
    author: str
    at: int
    reason: str
    digest: str
    backtest: dict[str, Any] | None = None


class PactActLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a pact's history, as the audit stream has it."""

    at: int
    by: str
    verb: str
    environment: str
    version: str
    stage: str
    before: str
    reason: str
    evidence: dict[str, Any] = {}


class ProfileValuesLine(msgspec.Struct, frozen=True, kw_only=True):
    """Which values an argument took: in how many `uses`, how many `different` ones; `open` when
    they are too many to be a fixed set."""

    uses: int
    different: int
    open: bool


class ProfileTypeLine(msgspec.Struct, frozen=True, kw_only=True):
    """What is usual in one type of task; the numbers count runs, those of `approved` approvals."""

    runs: int
    mature: bool
    sinks: dict[str, int]
    edges: dict[str, int]
    approved: dict[str, int]
    values: dict[str, ProfileValuesLine]


class ProfileLine(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's learned profile. `left_out`: runs that ended and taught nothing."""

    agent: str
    environment: str
    revision: int
    updated_at: int
    left_out: int
    types: dict[str, ProfileTypeLine]


class PromoteBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/pacts/{agent}/promote. `to` is `shadow`, `enforce`, `staging` or `production`;
    `diff` the digest of the difference that was shown (GET …/promotion)."""

    to: str
    environment: str = ""
    version: str = ""
    reason: str = ""
    diff: str = ""
    force: bool = False


class BacktestBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/pacts/{agent}/backtests: what replaying recorded runs through a version gave."""

    version: str
    summary: dict[str, Any]
    environment: str = ""


class TokenBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    role: Role


class TokenLine(msgspec.Struct, frozen=True, kw_only=True):
    """`token` is told once, in the answer to its making."""

    name: str
    role: Role
    created_at: int
    created_by: str
    token: str = ""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    ok: bool
    detail: str = ""


class StatusLine(msgspec.Struct, frozen=True, kw_only=True):
    """`incomplete` lists, in words, what this server cannot say or promise just now."""

    version: str
    ready: bool
    parts: list[Part]
    runs_live: int
    can_halt: int
    levels: dict[str, int]
    not_haltable: list[dict[str, str]]
    store: dict[str, Any]
    stream_position: int
    tail_events: int
    tail_position: int
    watchers: int
    uptime_s: float
    data: str
    incomplete: list[str]


def command_line(state: CommandState) -> CommandLine:
    return CommandLine(
        command_id=state.command_id, verb=state.verb, target=state.target, reason=state.reason,
        issued_by=state.issued_by, asked_at=state.asked_at, done=state.done, error=state.error,
        runs=[
            CommandRunLine(
                run_id=run.run_id, agent=run.agent, delivered_ms=run.delivered_ms,
                obeyed_ms=run.obeyed_ms, confirmed=run.confirmed, epoch=run.epoch, note=run.note,
                outcome=run.outcome,
                how=[RungLine(rung=rung, ms=ms) for rung, ms in run.how.items()],
            )
            for run in state.runs
        ],
    )  # fmt: skip
