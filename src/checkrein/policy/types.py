"""The values of policy: actions, verdicts, and the pact as plain frozen data."""

from typing import Any, Literal

import msgspec

from checkrein.policy.scopes.types import ScopeRule

VerdictKind = Literal["allow", "deny", "ask", "modify", "steer"]
Advice = Literal["", "RETRYABLE", "WAIT", "ESCALATE", "TERMINAL"]
ToolKind = Literal["read", "compensable", "irreversible"]


Source = Literal["trusted", "untrusted", "private"]
Stage = Literal["draft", "shadow", "enforce"]


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent is about to do: a tool call or a model call. `known_tools` are the tools it was
    offered, for the answer to a call of one that does not exist. `tokens_max`: the most a model
    call may answer with, when its parameters say so."""

    kind: Literal["tool", "model", "output"]
    name: str
    arguments: Any = None
    call_id: str = ""
    declared_kind: ToolKind | None = None
    known_tools: tuple[str, ...] = ()
    provider: str = ""
    input_chars: int = 0
    tokens_max: int | None = None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Whose run is judged: what conditions can read besides the call itself."""

    agent: str = ""
    room: str = ""
    environment: str = ""
    run_id: str = ""
    task_id: str = ""
    task_type: str = ""
    goal: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A decision with its reason. `advice` says what the agent may do about a refusal; `runaway`
    that the rule is of the class that halts; `guidance` is text for the agent (steer). `inputs` are
    the values that decided, for whoever reads the trace; `shadow`: decided by a pact that is only
    watched, so the action was let pass."""

    kind: VerdictKind
    guard: str = ""
    rule: str = ""
    reason: str = ""
    advice: Advice = ""
    runaway: bool = False
    guidance: str = ""
    pact: str = ""
    pact_version: str = ""
    arguments: Any = None
    """The changed arguments of a `modify`."""
    inputs: dict[str, Any] = {}
    shadow: bool = False
    duties: tuple["Duty", ...] = ()
    """The escalations that this action calls for, whatever becomes of it."""
    beside: "Verdict | None" = None
    """What the pact that is only watched says, when that is not `allow`."""


ALLOW = Verdict(kind="allow")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule says of one call, before the pact's name is put to it: every part of the
    language answers with these, and the guard takes the strictest."""

    kind: VerdictKind
    rule: str
    """As it stands in the pact: `tools.refund.allow`, `sequence[0]`, `flow[1]`."""
    reason: str
    advice: Advice = "ESCALATE"
    guidance: str = ""
    inputs: dict[str, Any] = {}
    arguments: Any = None


class Deed(msgspec.Struct, kw_only=True):
    """A tool call as rules see it. `args` is its arguments when they are a map, else
    `{"value": arguments}`; `facts` is what conditions read (see `conditions`), `args` among it."""

    tool: str
    args: dict[str, Any]
    call_id: str = ""
    kind: ToolKind | None = None
    at_ns: int = 0
    facts: dict[str, Any] = {}


class Steer(msgspec.Struct, frozen=True, kw_only=True):
    """`steer: [{when: CONDITION, say: TEXT}]` of a tool: the call goes on, the agent is told."""

    when: str
    say: str


class ToolRule(msgspec.Struct, frozen=True, kw_only=True):
    """What the pact says of one tool. `allow`, `ask` and `once_per` are conditions' texts; `set`
    maps an argument to the expression that replaces it (a `modify`). `source`: what its results
    are: `untrusted` (others write there), `private` (must not leave), `trusted` (neither).
    `external`: what it sends leaves the house, to the argument `to` when one is named."""

    kind: ToolKind | None = None
    timeout_s: float | None = None
    undo: str = ""
    allow: str = ""
    ask: str = ""
    once_per: str = ""
    set: dict[str, str] = {}
    steer: tuple[Steer, ...] = ()
    scopes: tuple[ScopeRule, ...] = ()
    source: tuple[Source, ...] = ()
    external: bool | None = None
    arguments: str = ""
    """The JSON schema of its arguments, as JSON text; empty when nobody has said."""


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """A budget that several runs share. None: unbounded."""

    tool_calls: int | None = None
    tokens: int | None = None
    usd: float | None = None


class Budgets(msgspec.Struct, frozen=True, kw_only=True):
    """None: unbounded. The first five are a run's own; `task` is for all runs of a task, `agent`
    and `room` for a day (UTC) of the agent and of the room, `hour` for an hour of the agent.
    `alert`: an hour that costs so many times what is expected of it is reported. `exhausted`:
    whether a run whose budget is used up waits for somebody to raise it, or ends."""

    steps: int | None = None
    tool_calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    wall_s: float | None = None
    task: Shared = Shared()
    agent: Shared = Shared()
    room: Shared = Shared()
    hour: Shared = Shared()
    alert: float | None = None
    exhausted: Literal["pause", "stop"] = "pause"


class Loops(msgspec.Struct, frozen=True, kw_only=True):
    """After `same_call` equal calls, or `similar_call` near-duplicates without progress within the
    window, or `no_progress` calls of any kind without a new result, the next is refused."""

    same_call: int = 3
    similar_call: int = 3
    similar_window_s: float = 90.0
    no_progress: int = 6


class Duty(msgspec.Struct, frozen=True, kw_only=True):
    """An escalation duty: when the condition holds, somebody must acknowledge within `within_s`."""

    when: str
    to: str
    within_s: float
    hold: bool = False
    """Whether the call waits until then (else it goes on, and the clock runs beside it)."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """`route: [{when: CONDITION, model: NAME, upstream: NAME}]`: at a gateway, which model answers
    a call, whichever it asked for. `model` empty: the one asked for; `upstream` empty: the usual
    one."""

    when: str
    model: str = ""
    upstream: str = ""


Redaction = Literal["secrets", "pii"]


class Pact(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent has declared it may do. `version` is the first 12 hex digits of the SHA-256 of
    its canonical form. `tools` None: any tool (nothing was declared). `internal`: hosts and mail
    domains that are the house's own. `output`: the JSON schema of what the agent hands over, as
    JSON text. Conditions and rules stand here as their text: reading a pact compiles each once, so
    that every one of them is known to be good."""

    pact: str = "default"
    version: str = ""
    job: str = ""
    owner: str = ""
    extends: str = ""
    models: tuple[str, ...] | None = None
    tools: dict[str, ToolRule] | None = None
    sequence: tuple[str, ...] = ()
    flow: tuple[str, ...] = ()
    budgets: Budgets = Budgets()
    warn_at: float = 0.6
    loops: Loops = Loops()
    escalate: tuple[Duty, ...] = ()
    approval_s: float = 900.0
    """How long an `ask` waits for somebody's answer before it is a no."""
    internal: tuple[str, ...] = ()
    output: str = ""
    redact: tuple[Redaction, ...] = ()
    route: tuple[Route, ...] = ()
    """The first whose condition holds counts."""
    unclear: Literal["deny", "ask", "allow"] = "deny"
    lost_contact: Literal["continue", "pause", "halt"] = "continue"
    within: "Pact | None" = None
    """The pact it extends, when that one says which tools or models there are: what it refuses is
    refused here too."""
