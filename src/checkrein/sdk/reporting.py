"""What a run does, as the fields of the events that tell of it."""

from typing import Any

from checkrein.policy.types import Action, Pact, Verdict
from checkrein.sdk import values
from checkrein.sdk.step import Step


def decision_of(action: Action, verdict: Verdict, pact: Pact) -> dict[str, Any]:
    """Of `scope.decision`. `pact`: the one in force, for verdicts that name none."""
    return {
        "call_id": action.call_id,
        "action": {
            "kind": action.kind, "name": action.name, "arguments": values.plain(action.arguments),
        },
        "verdict": verdict.kind, "guard": verdict.guard, "rule": verdict.rule,
        "reason": values.clean_text(verdict.reason, 4_000), "advice": verdict.advice,
        "pact": verdict.pact or pact.pact, "pact_version": verdict.pact_version or pact.version,
        "inputs": values.plain(verdict.inputs), "runaway": verdict.runaway,
        "shadow": verdict.shadow,
    }  # fmt: skip


def pact_news_of(rule: str, why: str, pact: Pact) -> dict[str, Any]:
    """Of the `scope.decision` that tells what became of a pact."""
    return {
        "call_id": "", "action": {"kind": "pact", "name": pact.pact, "arguments": None},
        "verdict": "allow", "guard": "pact", "rule": rule,
        "reason": values.clean_text(why, 4_000), "pact": pact.pact, "pact_version": pact.version,
    }  # fmt: skip


def iteration_of(step: Step, goal: str, duration_ns: int) -> dict[str, Any]:
    """Of `iteration`, for a step that has ended."""
    return {
        "goal": values.clean_text(goal, 2_000), "actions": step.named_actions(),
        "tools": step.tools, "outcome": values.clean_text(step.outcome, 2_000),
        "confidence": step.confidence, "tokens": step.input_tokens + step.output_tokens,
        "usd": step.usd, "duration_ns": duration_ns,
    }  # fmt: skip
