"""What an agent's author may say of a run in one line each. Of these only `output` raises:
Denied, when the pact has something against it."""

from typing import Any

from checkrein.events import types as events
from checkrein.policy.types import Action, Verdict
from checkrein.sdk import context, quiet, values
from checkrein.sdk.errors import Denied


def checkpoint(state: Any = None, name: str = "") -> str:
    """Records the agent's state; returns its hash (lower-case hex SHA-256)."""
    digest = ""
    with quiet.quiet("checkpoint"):
        _, field, raw = values.packed(state)
        digest = values.hash_of(raw)
        context.current().record(
            events.Checkpoint, name=values.clean_text(name, 500), state_hash=digest,
            state=field,
        )  # fmt: skip
    return digest


def output(content: Any, format: str = "") -> None:
    """Records what the agent gives to whoever asked. Raises Denied (RETRYABLE) when it is not what
    the pact's `output` schema says; the reason names what is wrong and where."""
    plain, objections, run = None, [], None
    with quiet.quiet("output"):
        run, plain = context.current(), values.plain(content)
        objections = run.seat.objections(plain)
    if run is None:
        return
    if objections:
        reason = f"the output is not what the pact says: {'; '.join(objections)}"
        verdict = Verdict(
            kind="deny", guard="output", rule="output", reason=reason, advice="RETRYABLE"
        )
        action = Action(kind="output", name="output", arguments=plain)
        with quiet.quiet("output"):
            run.decided(action, verdict)
        raise Denied(reason, action="output", rule="output", advice="RETRYABLE")
    with quiet.quiet("output"):
        run.record(events.Output, content=plain, format=values.clean_text(format, 200))


def handoff(to_agent: str, payload: Any = None, why: str = "", to_run_id: str = "") -> str:
    """Records that another agent goes on. Returns the `traceparent` to give to it, so that its run
    belongs to the same task."""
    header = ""
    with quiet.quiet("handoff"):
        run = context.current()
        header = context.traceparent(run)
        run.record(
            events.Handoff, to_agent=values.clean_text(to_agent, 500),
            to_run_id=values.clean_text(to_run_id, 500),
            why=values.clean_text(why, 4_000), payload=values.plain(payload),
        )  # fmt: skip
    return header


def feedback(
    rating: float | None = None, label: str = "", text: str = "", about: str = "", by: str = ""
) -> None:
    """Records what somebody thought of the run, or of one event of it (`about`)."""
    with quiet.quiet("feedback"):
        context.current().record(
            events.Feedback, about=values.clean_text(about, 500),
            rating=_number(rating),
            label=values.clean_text(label, 500), text=values.clean_text(text),
            by=values.clean_text(by, 500),
        )  # fmt: skip


def reasoning(text: str, role: str = "", confidence: float | None = None) -> None:
    """Records what the agent thought before it acted."""
    with quiet.quiet("reasoning"):
        number = _number(confidence)
        if number is not None:
            context.current().seat.said_confidence(number)
        context.current().record(
            events.Reasoning, text=values.clean_text(text), role=values.clean_text(role, 200),
            confidence=number,
        )  # fmt: skip


def _number(value: Any) -> float | None:
    """None for what is no number: the rest of the note is worth keeping."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
