"""Claude Code's hooks: what they are told on stdin, and what they say on stdout. Pure.

As the hooks reference of Claude Code stood in November 2026 (2.1.3xx): a JSON object on stdin with
`hook_event_name`, `session_id` and the event's own fields; exit code 0 and a JSON object on stdout,
or exit code 2 and a reason on stderr, which blocks; any other code lets the action pass.

An allowed call gets no decision, so that Claude Code's own permissions are asked as ever; with
`grant` it is let pass without them.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, which takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

EVENTS = ("PreToolUse", "PostToolUse", "PostToolUseFailure", "UserPromptSubmit", "SessionEnd")
_WORDS = {
    "pre-tool": "PreToolUse", "post-tool": "PostToolUse", "post-tool-failure": "PostToolUseFailure",
    "prompt": "UserPromptSubmit", "end": "SessionEnd",
}  # fmt: skip
_STOPS = ("halted", "contained")


class Manner:
    """`grant`: what the pact allows needs no permission of Claude Code's. `terminal`: what a person
    must approve is asked of whoever sits there, not of Checkrein's approvers."""

    __slots__ = ("grant", "run", "terminal", "wait_s")

    def __init__(
        self, grant: bool = False, terminal: bool = False, run: str = "", wait_s: float = 540.0
    ) -> None:
        self.grant = grant
        self.terminal = terminal
        self.run = run
        self.wait_s = wait_s


def event_of(given: Mapping[str, Any], word: str = "") -> str:
    """Which event it is; "" for one that is none of ours."""
    name = str(given.get("hook_event_name") or _WORDS.get(word, word))
    return name if name in EVENTS else ""


def question(event: str, given: Mapping[str, Any], manner: Manner) -> dict[str, Any]:
    """The body for the decision service."""
    body: dict[str, Any] = {"run": manner.run or str(given.get("session_id") or "")[:512]}
    match event:
        case "PreToolUse":
            body |= _call(given) | {
                "phase": "before", "wait": not manner.terminal, "wait_s": manner.wait_s,
            }  # fmt: skip
        case "PostToolUse":
            body |= _call(given) | {
                "phase": "after", "result": given.get("tool_response"), "directives": True,
            }  # fmt: skip
        case "PostToolUseFailure":
            error = str(given.get("error") or "the tool failed")
            body |= _call(given) | {"phase": "after", "error": error, "directives": True}
        case "UserPromptSubmit":
            body |= {"phase": "begin", "goal": str(given.get("prompt") or ""), "directives": True}
        case _:
            body |= {"phase": "end"}
    return body


def answer(event: str, told: Mapping[str, Any], manner: Manner) -> dict[str, Any]:
    """What Claude Code is to read; empty: nothing to say."""
    if event == "PreToolUse":
        return _before(told, manner)
    said: dict[str, Any] = {}
    if event == "UserPromptSubmit" and told.get("verdict") == "deny":
        said = {"decision": "block", "reason": _reason(told)}
    context = "\n".join(f"[checkrein] {text}" for text in told.get("directives") or ())
    if context:
        said["hookSpecificOutput"] = {"hookEventName": event, "additionalContext": context}
    return said


def refusal(event: str, why: str) -> dict[str, Any]:
    """No, because nobody could be asked. Empty where nothing can be refused any more."""
    if event == "PreToolUse":
        return _decision("deny", f"checkrein: {why}")
    if event == "UserPromptSubmit":
        return {"decision": "block", "reason": f"checkrein: {why}"}
    return {}


def _before(told: Mapping[str, Any], manner: Manner) -> dict[str, Any]:
    verdict, reason = told.get("verdict"), _reason(told)
    pass_on = "allow" if manner.grant else ""
    match verdict:
        case "allow":
            return _decision("allow", reason) if pass_on else {}
        case "steer":
            found = _decision(pass_on, reason)
            found["hookSpecificOutput"]["additionalContext"] = str(told.get("guidance") or reason)
            return found
        case "modify":
            found = _decision(pass_on or "ask", reason or "checkrein has changed the arguments")
            found["hookSpecificOutput"]["updatedInput"] = told.get("arguments")
            return found
        case "ask" if manner.terminal:
            return _decision("ask", reason)
        case "ask":
            return _decision("deny", f"{reason} Nobody has answered yet: try again later.")
        case _:  # a verdict that is not known here is no yes
            found = _decision("deny", reason)
            if told.get("code") in _STOPS:
                found |= {"continue": False, "stopReason": reason}
            return found


def _decision(decision: str, reason: str) -> dict[str, Any]:
    said = {"hookEventName": "PreToolUse"}
    if decision:
        said |= {"permissionDecision": decision, "permissionDecisionReason": reason}
    return {"hookSpecificOutput": said}


def _call(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "tool": str(given.get("tool_name") or ""), "arguments": given.get("tool_input"),
        "call_id": str(given.get("tool_use_id") or ""),
    }  # fmt: skip


def _reason(told: Mapping[str, Any]) -> str:
    parts = [f"checkrein: {told.get('reason') or told.get('verdict')}"]
    if told.get("rule"):
        parts.append(f"rule {told['rule']}")
    if told.get("by"):
        parts.append(f"by {told['by']}")
    if told.get("advice"):
        parts.append(str(told["advice"]))
    return "; ".join(parts) + (f". {told['appeal']}" if told.get("appeal") else "")
