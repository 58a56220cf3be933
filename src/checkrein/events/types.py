"""What happens: one small frozen type per event, and the closed union over them.

Every event carries who recorded it (`recorder`, `seq`), when (`ts`, ns since 1970), where it
belongs (`environment`, `room`, `agent`, `run_id`, `task_id`, `step`) and its `type`. Names
follow the project's design; the tables to OpenTelemetry GenAI live at the edges.

Durations are nanoseconds (`_ns`), money is US dollars (`usd`), hashes are lower-case hex SHA-256.
"""

from typing import Any, Literal

import msgspec


class Base(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """The fields common to all events.

    `recorder` is the id of the process-local flight recorder, `seq` its running number from 1.
    `step` is 0 before the first step of a run. `run_id` is a UUIDv7, `task_id` a W3C trace id.
    """

    recorder: str
    seq: int
    ts: int
    environment: str
    room: str
    agent: str
    run_id: str
    task_id: str
    step: int


class RunStart(Base, frozen=True, kw_only=True, tag="run.start"):
    goal: str = ""
    task_type: str = ""
    parent_run_id: str = ""
    framework: str = ""
    model: str = ""
    pact: str = ""
    pact_version: str = ""
    tools: list[str] = []
    argv: list[str] = []
    pid: int = 0
    host: str = ""
    user: str = ""
    agent_version: str = ""
    labels: dict[str, str] = {}


RunOutcome = Literal["completed", "escalated", "failed", "halted", "lost", "unfinished"]


class RunEnd(Base, frozen=True, kw_only=True, tag="run.end"):
    """`lost` and `unfinished` are written by whoever finds the run gone, not by the run itself."""

    status: RunOutcome
    reason: str = ""
    exit_code: int | None = None
    signal: str = ""
    steps: int = 0
    tokens: int = 0
    usd: float = 0.0
    duration_ns: int = 0


class StepStart(Base, frozen=True, kw_only=True, tag="step.start"):
    context_hash: str = ""
    input_tokens: int = 0


class StepEnd(Base, frozen=True, kw_only=True, tag="step.end"):
    context_hash: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    duration_ns: int = 0


class ModelRequest(Base, frozen=True, kw_only=True, tag="model.request"):
    call_id: str
    provider: str = ""
    model: str = ""
    messages: Any = None
    parameters: dict[str, Any] = {}
    tools: list[str] = []
    input_chars: int = 0
    stream: bool = False


class ModelResponse(Base, frozen=True, kw_only=True, tag="model.response"):
    """`usd` is absent (None) when no price is known: a missing price is never zero.

    `first_token_ns` is the time to the first streamed token.
    """

    call_id: str
    provider: str = ""
    model: str = ""
    content: str = ""
    tool_calls: list[dict[str, Any]] = []
    finish_reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    usd: float | None = None
    fingerprint: str = ""
    error: str = ""
    duration_ns: int = 0
    first_token_ns: int = 0


class Reasoning(Base, frozen=True, kw_only=True, tag="reasoning"):
    text: str = ""
    role: str = ""
    confidence: float | None = None


class ToolSelected(Base, frozen=True, kw_only=True, tag="tool.selected"):
    call_id: str
    tool: str
    why: str = ""


class ToolArguments(Base, frozen=True, kw_only=True, tag="tool.arguments"):
    call_id: str
    tool: str
    arguments: Any = None
    parse_error: str = ""


class ToolInvoked(Base, frozen=True, kw_only=True, tag="tool.invoked"):
    call_id: str
    tool: str
    kind: str = ""


class ToolReturned(Base, frozen=True, kw_only=True, tag="tool.returned"):
    call_id: str
    tool: str
    result: Any = None
    status: Literal["ok", "error", "denied", "cancelled"] = "ok"
    error: str = ""
    duration_ns: int = 0


class ToolParsed(Base, frozen=True, kw_only=True, tag="tool.parsed"):
    call_id: str
    tool: str
    result_hash: str = ""
    error: str = ""


class ToolReentered(Base, frozen=True, kw_only=True, tag="tool.reentered"):
    """The result went back into the agent's context."""

    call_id: str
    tool: str
    chars: int = 0


class MemoryRead(Base, frozen=True, kw_only=True, tag="memory.read"):
    key: str
    value_hash: str = ""
    found: bool = True
    provenance: str = ""


class MemoryWrite(Base, frozen=True, kw_only=True, tag="memory.write"):
    """`provenance` says where the value came from (`tool:NAME`, `model`, `user`, `run:ID`)."""

    key: str
    value_hash: str = ""
    value: Any = None
    provenance: str = ""
    attested: bool = False


class Handoff(Base, frozen=True, kw_only=True, tag="handoff"):
    to_agent: str
    to_run_id: str = ""
    why: str = ""
    payload: Any = None


class Output(Base, frozen=True, kw_only=True, tag="output"):
    content: Any = None
    format: str = ""


class Checkpoint(Base, frozen=True, kw_only=True, tag="checkpoint"):
    name: str = ""
    state_hash: str = ""
    state: Any = None


class Heartbeat(Base, frozen=True, kw_only=True, tag="heartbeat"):
    """`in_flight`: the calls under way, `{call_id, kind, name, since_ns}` (kind: model or tool)."""

    interval_ns: int = 0
    uptime_ns: int = 0
    in_flight: list[dict[str, Any]] = []
    recorded: int = 0
    lost: int = 0


class Iteration(Base, frozen=True, kw_only=True, tag="iteration"):
    """The structured summary at the end of each step."""

    goal: str = ""
    actions: list[str] = []
    tools: list[str] = []
    outcome: str = ""
    confidence: float | None = None
    tokens: int = 0
    usd: float | None = None
    duration_ns: int = 0


class Status(Base, frozen=True, kw_only=True, tag="status"):
    """A run's status changed, or a run named itself after it had begun."""

    status: str
    reason: str = ""
    goal: str = ""
    task_type: str = ""
    detail: dict[str, Any] = {}


class ScopeDecision(Base, frozen=True, kw_only=True, tag="scope.decision"):
    """A guard judged an action, `{kind, name, arguments}`; `advice` says what the agent may do.
    `inputs` are the values that decided. `runaway`: it is of the class that halts. `shadow`: the
    pact is only watched, and the action was let pass."""

    call_id: str
    action: dict[str, Any]
    verdict: Literal["allow", "deny", "ask", "modify", "steer"]
    guard: str = ""
    rule: str = ""
    reason: str = ""
    advice: str = ""
    pact: str = ""
    pact_version: str = ""
    inputs: dict[str, Any] = {}
    runaway: bool = False
    shadow: bool = False


class ApprovalRequested(Base, frozen=True, kw_only=True, tag="approval.requested"):
    approval_id: str
    call_id: str = ""
    tool: str = ""
    arguments: Any = None
    action_hash: str = ""
    rule: str = ""
    reason: str = ""
    expires_at: int = 0


class ApprovalDecided(Base, frozen=True, kw_only=True, tag="approval.decided"):
    approval_id: str
    decision: Literal["approved", "denied", "expired", "withdrawn"]
    decided_by: str = ""
    reason: str = ""


class EscalationRaised(Base, frozen=True, kw_only=True, tag="escalation.raised"):
    escalation_id: str
    to: str = ""
    why: str = ""
    due_at: int = 0


class EscalationAcknowledged(Base, frozen=True, kw_only=True, tag="escalation.acknowledged"):
    escalation_id: str
    by: str = ""
    note: str = ""


class Signal(Base, frozen=True, kw_only=True, tag="signal"):
    """One observation of a detector about a run. `evidence` names events as `[recorder, seq]`."""

    signal_id: str
    detector: str
    level: Literal["warn", "breach"]
    why: str
    runaway: bool = False
    value: float | None = None
    limit: float | None = None
    evidence: list[tuple[str, int]] = []
    subject: str = ""


class Incident(Base, frozen=True, kw_only=True, tag="incident"):
    incident_id: str
    severity: Literal["low", "medium", "high", "critical"]
    detector: str
    why: str
    status: Literal["open", "acknowledged", "closed"] = "open"
    count: int = 1
    outcome: str = ""
    owner: str = ""


class Command(Base, frozen=True, kw_only=True, tag="command"):
    command_id: str
    verb: str
    target: str
    reason: str = ""
    issued_by: str = ""
    epoch: int = 0
    arguments: dict[str, Any] = {}


class Receipt(Base, frozen=True, kw_only=True, tag="receipt"):
    """What became of a command for one run. `how` lists `{rung, ms, ...}` in the order climbed."""

    command_id: str
    verb: str
    delivered_ms: float | None = None
    obeyed_ms: float | None = None
    how: list[dict[str, Any]] = []
    confirmed: str = ""
    note: str = ""


class Feedback(Base, frozen=True, kw_only=True, tag="feedback"):
    about: str = ""
    rating: float | None = None
    label: str = ""
    text: str = ""
    by: str = ""


class Screen(Base, frozen=True, kw_only=True, tag="screen"):
    url: str = ""
    image_hash: str = ""
    text: str = ""


class Passage(Base, frozen=True, kw_only=True, tag="passage"):
    """A model or tool call passed a gateway. `call_id` joins it with the call's other events: with
    `announced` those are the SDK's (the call said by itself which one it is), else the gateway's
    own. `path`: `openai anthropic mcp decide`. `guards` ran there. `redacted` counts by kind what
    was taken out, and never holds it. `provider_tools` are tools that the provider runs itself,
    before which no guard of ours stands. `status`: `ok refused cut failed`."""

    call_id: str
    kind: Literal["model", "tool"] = "model"
    name: str = ""
    path: str = ""
    announced: bool = False
    streamed: bool = False
    status: str = "ok"
    reason: str = ""
    guards: list[str] = []
    redacted: dict[str, int] = {}
    provider_tools: list[str] = []
    upstream: str = ""
    requested_model: str = ""
    reported_model: str = ""
    fingerprint: str = ""
    attempts: int = 1
    duration_ns: int = 0


class Loss(Base, frozen=True, kw_only=True, tag="loss"):
    """Events that are known to be missing: `count` of them, numbered `first` to `last`."""

    lost_recorder: str
    count: int
    first: int = 0
    last: int = 0
    why: str = ""


Event = (
    RunStart | RunEnd | StepStart | StepEnd | ModelRequest | ModelResponse | Reasoning
    | ToolSelected | ToolArguments | ToolInvoked | ToolReturned | ToolParsed | ToolReentered
    | MemoryRead | MemoryWrite | Handoff | Output | Checkpoint | Heartbeat | Iteration | Status
    | ScopeDecision | ApprovalRequested | ApprovalDecided | EscalationRaised
    | EscalationAcknowledged | Signal | Incident | Command | Receipt | Feedback | Screen | Passage
    | Loss
)  # fmt: skip

COMMON: tuple[str, ...] = (
    "recorder", "seq", "ts", "environment", "room", "agent", "run_id", "task_id", "step", "type",
)  # fmt: skip

TYPES: dict[str, type[Base]] = {str(kind.__struct_config__.tag): kind for kind in Event.__args__}
