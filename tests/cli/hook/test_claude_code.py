"""Claude Code's hook events turned into questions, and answers into what Claude Code reads."""

from typing import Any

import pytest

from checkrein.cli.hook.claude_code import Manner, answer, event_of, question, refusal

BASH = {
    "session_id": "s1", "transcript_path": "/t.jsonl", "cwd": "/srv", "permission_mode": "default",
    "hook_event_name": "PreToolUse", "tool_name": "Bash",
    "tool_input": {"command": "ls", "description": "List"}, "tool_use_id": "toolu_1",
}  # fmt: skip
GRANT = Manner(grant=True)


def told(verdict: str, **more: Any) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "reason": "",
        "rule": "",
        "advice": "",
        "call_id": "toolu_1",
        **more,
    }


def said(verdict: str, manner: Manner | None = None, **more: Any) -> dict[str, Any]:
    return answer("PreToolUse", told(verdict, **more), manner or Manner())


def test_a_call_to_be_made_is_a_question() -> None:
    assert question("PreToolUse", BASH, Manner()) == {
        "run": "s1", "tool": "Bash", "arguments": BASH["tool_input"], "call_id": "toolu_1",
        "phase": "before", "wait": True, "wait_s": 540.0,
    }  # fmt: skip
    assert question("PreToolUse", BASH, Manner(terminal=True, run="r"))["wait"] is False
    assert question("PreToolUse", BASH, Manner(run="r"))["run"] == "r"


def test_what_became_of_it_is_told() -> None:
    done = BASH | {"tool_response": {"stdout": "a", "stderr": ""}}
    body = question("PostToolUse", done, Manner())
    assert (body["phase"], body["result"], body["call_id"]) == (
        "after", {"stdout": "a", "stderr": ""}, "toolu_1",
    )  # fmt: skip
    failed = BASH | {"error": "Exit code 1", "is_interrupt": False}
    assert question("PostToolUseFailure", failed, Manner())["error"] == "Exit code 1"
    assert question("PostToolUseFailure", BASH, Manner())["error"]
    begun = question("UserPromptSubmit", {"session_id": "s1", "prompt": "mend it"}, Manner())
    assert (begun["phase"], begun["goal"], begun["run"]) == ("begin", "mend it", "s1")
    assert question("SessionEnd", {"session_id": "s1"}, Manner()) == {"run": "s1", "phase": "end"}


def test_an_allowed_call_is_left_to_claude_codes_own_permissions() -> None:
    assert said("allow") == {}
    granted = said("allow", GRANT)["hookSpecificOutput"]
    assert (granted["hookEventName"], granted["permissionDecision"]) == ("PreToolUse", "allow")


def test_a_refused_call_carries_reason_rule_and_advice() -> None:
    found = said("deny", reason="rm is not allowed", rule="tools.Bash.allow", advice="TERMINAL")
    decision = found["hookSpecificOutput"]
    assert decision["permissionDecision"] == "deny"
    assert decision["permissionDecisionReason"] == (
        "checkrein: rm is not allowed; rule tools.Bash.allow; TERMINAL"
    )
    assert "continue" not in found


@pytest.mark.parametrize("code", ["halted", "contained"])
def test_a_stop_stops_claude_code(code: str) -> None:
    found = said("deny", code=code, reason="enough", by="ann")
    assert found["continue"] is False
    assert "enough" in found["stopReason"]
    assert "by ann" in found["stopReason"]
    assert found["hookSpecificOutput"]["permissionDecision"] == "deny"


def test_what_a_person_must_approve() -> None:
    assert said("ask", reason="dear")["hookSpecificOutput"]["permissionDecision"] == "deny"
    asked = said("ask", Manner(terminal=True), reason="dear")["hookSpecificOutput"]
    assert asked["permissionDecision"] == "ask"
    assert "dear" in asked["permissionDecisionReason"]


def test_changed_arguments_are_shown_or_taken() -> None:
    changed = said("modify", arguments={"command": "ls -l"})["hookSpecificOutput"]
    assert (changed["permissionDecision"], changed["updatedInput"]) == (
        "ask", {"command": "ls -l"},
    )  # fmt: skip
    changed = said("modify", GRANT, arguments={})["hookSpecificOutput"]
    assert changed["permissionDecision"] == "allow"


def test_guidance_goes_along() -> None:
    steered = said("steer", guidance="be brief")["hookSpecificOutput"]
    assert steered == {"hookEventName": "PreToolUse", "additionalContext": "be brief"}


def test_directives_reach_the_model() -> None:
    found = answer("PostToolUse", told("allow", directives=["stop at B2"]), Manner())
    assert found["hookSpecificOutput"] == {
        "hookEventName": "PostToolUse", "additionalContext": "[checkrein] stop at B2",
    }  # fmt: skip
    assert answer("PostToolUse", told("allow"), Manner()) == {}


def test_a_prompt_of_a_stopped_run_is_blocked() -> None:
    found = answer("UserPromptSubmit", told("deny", reason="halted"), Manner())
    assert found["decision"] == "block"
    assert answer("UserPromptSubmit", told("allow"), Manner()) == {}


def test_an_unknown_verdict_is_no_yes() -> None:
    for verdict in ("", "maybe", "ALLOW"):
        assert said(verdict, GRANT)["hookSpecificOutput"]["permissionDecision"] == "deny"


def test_nobody_to_ask_is_a_no_where_a_no_can_be_said() -> None:
    denied = refusal("PreToolUse", "nobody")["hookSpecificOutput"]
    assert denied["permissionDecision"] == "deny"
    assert refusal("UserPromptSubmit", "nobody")["decision"] == "block"
    assert refusal("PostToolUse", "nobody") == {}


def test_events_by_word_and_others() -> None:
    assert event_of({}, "pre-tool") == "PreToolUse"
    assert event_of({"hook_event_name": "PostToolUse"}, "pre-tool") == "PostToolUse"
    assert event_of({"hook_event_name": "Notification"}) == ""
