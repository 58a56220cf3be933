"""The values of policy: actions, verdicts, and the pact as plain frozen data."""

from typing import Any, Literal

import msgspec

VerdictKind = Literal["allow", "deny", "ask", "modify", "steer"]
Advice = Literal["", "RETRYABLE", "WAIT", "ESCALATE", "TERMINAL"]
ToolKind = Literal["read", "compensable", "irreversible"]


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent is about to do: a tool call or a model call. `known_tools` are the tools it was
    offered, for the answer to a call of one that does not exist."""

    kind: Literal["tool", "model"]
    name: str
    arguments: Any = None
    call_id: str = ""
    declared_kind: ToolKind | None = None
    known_tools: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A decision with its reason. `advice` says what the agent may do about a refusal; `runaway`
    that the rule is of the class that halts; `guidance` is text for the agent (steer)."""

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


ALLOW = Verdict(kind="allow")


class ToolRule(msgspec.Struct, frozen=True, kw_only=True):
    kind: ToolKind | None = None
    timeout_s: float | None = None
    undo: str = ""


class Budgets(msgspec.Struct, frozen=True, kw_only=True):
    """None: unbounded."""

    steps: int | None = None
    tool_calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    wall_s: float | None = None


class Loops(msgspec.Struct, frozen=True, kw_only=True):
    """After `same_call` equal calls, or `similar_call` near-duplicates without progress within the
    window, or `no_progress` calls of any kind without a new result, the next is refused."""

    same_call: int = 3
    similar_call: int = 3
    similar_window_s: float = 90.0
    no_progress: int = 6


class Pact(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent has declared it may do. `version` is the first 12 hex digits of the SHA-256 of
    its canonical form. `tools` None: any tool (nothing was declared)."""

    pact: str = "default"
    version: str = ""
    job: str = ""
    owner: str = ""
    extends: str = ""
    models: tuple[str, ...] | None = None
    tools: dict[str, ToolRule] | None = None
    budgets: Budgets = Budgets()
    warn_at: float = 0.6
    loops: Loops = Loops()
    unclear: Literal["deny", "ask", "allow"] = "deny"
    lost_contact: Literal["continue", "pause", "halt"] = "continue"
