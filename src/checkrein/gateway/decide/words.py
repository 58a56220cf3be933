"""What is asked and what is told, as JSON. Pure."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from checkrein.gateway.types import Refusal
from checkrein.policy.types import Pact, ToolKind

WAIT_S_MAX = 3_600.0
NAME_CHARS_MAX = 512
_VERDICTS = frozenset(("denied", "halted", "contained", "held_too_long"))
"""Refusals that are a decision about the call: they are told as an answer, not as an error."""

Phase = Literal["before", "after", "begin", "end"]


class Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /decide. `before`: may this call be made? `after`: it was made, with this
    `result` or `error`. `begin` and `end` are of a run: `goal` is what the user wants of it.

    `run` names the run, as the header `x-checkrein-run` does, and `task_type` its kind of task when
    it begins with this. `wait_s`: how long to wait for a
    person's answer, or for a paused run; `wait` false: not at all. `directives` true: tell what an
    operator has put to the agent, which then counts as delivered."""

    tool: str = ""
    arguments: Any = None
    call_id: str = ""
    run: str = ""
    kind: ToolKind | None = None
    why: str = ""
    phase: Phase = "before"
    result: Any = None
    error: str = ""
    wait: bool = True
    wait_s: float = 600.0
    goal: str = ""
    task_type: str = ""
    known_tools: tuple[str, ...] = ()
    directives: bool = False


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. `arguments` stands there when the call must be made with those instead; `code`
    when it was refused by something other than a rule (`halted`, `contained`, …)."""

    verdict: Literal["allow", "deny", "ask", "modify", "steer"]
    reason: str = ""
    rule: str = ""
    advice: str = ""
    call_id: str = ""
    run_id: str = ""
    pact: str = ""
    pact_version: str = ""
    arguments: Any = UNSET
    guidance: str | UnsetType = UNSET
    directives: tuple[str, ...] | UnsetType = UNSET
    code: str | UnsetType = UNSET
    by: str | UnsetType = UNSET
    appeal: str | UnsetType = UNSET


_decoder = msgspec.json.Decoder(Ask)


def read(body: bytes) -> Ask:
    """Raises Refusal (400) naming what is wrong."""
    try:
        asked = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refusal(400, "bad_request", f"the body cannot be read: {error}") from error
    if asked.phase in ("before", "after") and not asked.tool and not asked.call_id:
        raise Refusal(400, "bad_request", "`tool` says which tool is to be called")
    if asked.phase == "before" and not asked.tool:
        raise Refusal(400, "bad_request", "`tool` says which tool is to be called")
    for name in ("tool", "call_id", "run", "task_type"):
        if len(getattr(asked, name)) > NAME_CHARS_MAX:
            raise Refusal(400, "bad_request", f"`{name}` has {NAME_CHARS_MAX} characters at most")
    if not 0 <= asked.wait_s <= WAIT_S_MAX:
        raise Refusal(400, "bad_request", f"`wait_s` takes 0 to {WAIT_S_MAX:g} seconds")
    return asked


def is_verdict(refusal: Refusal) -> bool:
    return refusal.code in _VERDICTS


def refused(
    refusal: Refusal, pact: Pact | None = None, run_id: str = "", call_id: str = ""
) -> Told:
    return Told(
        verdict="deny", reason=refusal.reason, rule=refusal.rule, advice=refusal.advice,
        call_id=call_id, run_id=run_id, pact=pact.pact if pact is not None else "",
        pact_version=pact.version if pact is not None else "",
        code=UNSET if refusal.code == "denied" else refusal.code, by=refusal.by or UNSET,
        appeal=refusal.appeal or UNSET,
    )  # fmt: skip


def shape(refusal: Refusal) -> object:
    """An error of the service: whoever reads only the verdict reads a no."""
    return refused(refusal)
