"""What an event says, in a few words for a person. The words are not clean yet: whoever prints them
cleans them."""

import json
from collections.abc import Callable
from typing import Any

from checkrein.cli import words
from checkrein.cli.out import ALARM, CALM, CAUTION, PLAIN

Fields = dict[str, Any]
VALUE_CHARS_MAX = 160


def describe(event: Fields) -> tuple[str, str]:
    """The words, and the style they deserve: calm unless there is something to look at."""
    make = _MAKERS.get(event["type"])
    try:
        return make(event) if make is not None else (short(_own(event)), PLAIN)
    except (KeyError, TypeError, ValueError, AttributeError):
        return short(_own(event)), PLAIN


def short(value: Any, chars_max: int = VALUE_CHARS_MAX) -> str:
    """A value on one line, cut."""
    if value in (None, "", [], {}):
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"


def _own(event: Fields) -> Fields:
    common = ("recorder", "seq", "ts", "environment", "room", "agent", "run_id", "task_id", "step")
    return {key: value for key, value in event.items() if key not in (*common, "type")}


def _run_start(e: Fields) -> tuple[str, str]:
    return short(e.get("goal") or " ".join(e.get("argv", [])) or e.get("framework", "")), PLAIN


def _run_end(e: Fields) -> tuple[str, str]:
    bad = e["status"] in ("failed", "halted", "lost", "unfinished")
    reason = f": {short(e['reason'], 300)}" if e.get("reason") else ""
    return f"{e['status']}{reason}", ALARM if bad else CALM


def _step_end(e: Fields) -> tuple[str, str]:
    tokens = e.get("input_tokens", 0) + e.get("output_tokens", 0)
    parts = [f"{words.count(tokens)} tokens" if tokens else "", took(e)]
    return "  ".join(part for part in parts if part), CALM


def _model_request(e: Fields) -> tuple[str, str]:
    return str(e.get("model", "")), CALM


def _model_response(e: Fields) -> tuple[str, str]:
    if e.get("error"):
        return f"{e.get('model', '')} failed: {short(e['error'])}", ALARM
    tokens = e.get("input_tokens", 0) + e.get("output_tokens", 0)
    calls = ", ".join(str(call.get("name", "")) for call in e.get("tool_calls", []))
    said = short(e.get("content", ""), 100) or (f"calls {calls}" if calls else "")
    return f"{e.get('model', '')}  {words.count(tokens)} tokens  {took(e)}  {said}", PLAIN


def _tool(e: Fields) -> tuple[str, str]:
    return f"{e['tool']}  {short(e.get('arguments', e.get('why', '')))}", PLAIN


def _tool_quiet(e: Fields) -> tuple[str, str]:
    return str(e["tool"]), CALM


def _tool_returned(e: Fields) -> tuple[str, str]:
    status = e.get("status", "ok")
    if status != "ok":
        style = CAUTION if status in ("denied", "cancelled") else ALARM
        return f"{e['tool']}  {status}: {short(e.get('error', ''))}", style
    return f"{e['tool']}  {took(e)}  {short(e.get('result'))}", PLAIN


def _decision(e: Fields) -> tuple[str, str]:
    what = e["action"].get("name", "")
    if e["verdict"] == "allow":
        return f"{what}  allowed", CALM
    by = e.get("rule") or e.get("guard", "")
    pact = f" of {e['pact']} {e.get('pact_version', '')}".rstrip() if e.get("pact") else ""
    decided = f"{e['verdict']} by {by}{pact}"
    if e.get("shadow"):
        decided = f"would {decided}, which is only watched"
    inputs = f"  because {short(e['inputs'])}" if e.get("inputs") else ""
    return f"{what}  {decided}: {e.get('reason', '')}{inputs}", CAUTION


def _requested(e: Fields) -> tuple[str, str]:
    return f"{e.get('tool', '')}  {short(e.get('arguments'))}  {e['approval_id']}", CAUTION


def _decided(e: Fields) -> tuple[str, str]:
    by = f" by {e['decided_by']}" if e.get("decided_by") else ""
    reason = f": {e['reason']}" if e.get("reason") else ""
    style = CALM if e["decision"] == "approved" else CAUTION
    return f"{e['decision']}{by}{reason}  {e['approval_id']}", style


def _raised(e: Fields) -> tuple[str, str]:
    to = f"to {e['to']}  " if e.get("to") else ""
    return f"{to}{short(e.get('why', ''), 300)}  {e['escalation_id']}", CAUTION


def _acknowledged(e: Fields) -> tuple[str, str]:
    note = f": {e['note']}" if e.get("note") else ""
    return f"by {e.get('by', '')}{note}  {e['escalation_id']}", CALM


def _signal(e: Fields) -> tuple[str, str]:
    return f"{e['level']} {e['detector']}: {e['why']}", ALARM if e["level"] == "breach" else CAUTION


def _incident(e: Fields) -> tuple[str, str]:
    count = f" ({e['count']} times)" if e.get("count", 1) > 1 else ""
    said = f"{e['severity']} {e['detector']}: {e['why']}{count}"
    return said, CALM if e.get("status") == "closed" else ALARM


def _command(e: Fields) -> tuple[str, str]:
    return f"{e['verb']} {e['target']} by {e.get('issued_by', '')}: {e.get('reason', '')}", CAUTION


def _receipt(e: Fields) -> tuple[str, str]:
    how = "  ".join(
        f"{rung.get('rung', '')} {rung.get('ms', 0):.1f} ms" for rung in e.get("how", [])
    )
    seen = e.get("confirmed") or ""
    told = e["verb"] != "halt" and e.get("obeyed_ms") is not None
    sure = f"confirmed by {seen}" if seen else "obeyed" if told else "not confirmed"
    note = f"  {e['note']}" if e.get("note") else ""
    return "  ".join(part for part in (e["verb"], how, sure + note) if part), (
        PLAIN if seen or told else CAUTION
    )


def _loss(e: Fields) -> tuple[str, str]:
    return f"{e['count']} events of {e['lost_recorder']} are missing: {e.get('why', '')}", ALARM


def _status(e: Fields) -> tuple[str, str]:
    reason = f": {e['reason']}" if e.get("reason") else ""
    return f"{e['status']}{reason}", CAUTION if e["status"] in ("paused", "escalated") else CALM


def _passage(e: Fields) -> tuple[str, str]:
    """What passed a gateway: where to, what was taken out of it, and what became of it."""
    status = e.get("status", "ok")
    redacted = ", ".join(f"{count} {kind}" for kind, count in e.get("redacted", {}).items())
    answered = e.get("reported_model", "")
    parts = [
        f"{e.get('name', '')} by {e.get('path', 'the gateway')}".strip(),
        f"to {e['upstream']}" if e.get("upstream") else "",
        f"answered by {answered}" if answered not in ("", e.get("requested_model", "")) else "",
        f"{e['attempts']} attempts" if e.get("attempts", 1) > 1 else "",
        f"redacted {redacted}" if redacted else "",
        f"the provider runs {', '.join(e['provider_tools'])}" if e.get("provider_tools") else "",
        "" if e.get("announced") else "seen by the gateway only",
    ]  # fmt: skip
    said = "  ".join(part for part in parts if part)
    if status == "ok":
        return said, CALM
    reason = f": {short(e['reason'], 300)}" if e.get("reason") else ""
    return f"{said}  {status.upper()}{reason}", CAUTION if status == "refused" else ALARM


def _iteration(e: Fields) -> tuple[str, str]:
    return f"{short(e.get('outcome', ''))}  {', '.join(e.get('tools', []))}", CALM


def _memory(e: Fields) -> tuple[str, str]:
    came = f" from {e['provenance']}" if e.get("provenance") else ""
    return f"{e['key']}{came}", CALM


def _handoff(e: Fields) -> tuple[str, str]:
    return f"to {e['to_agent']}  {short(e.get('why', ''))}", PLAIN


def _calm(e: Fields) -> tuple[str, str]:
    return short(_own(e), 100), CALM


def took(event: Fields) -> str:
    duration = duration_ns(event)
    return words.duration(duration / 1e9) if duration else ""


def duration_ns(event: Fields) -> int:
    """0 when it does not say, or says what is no number: nobody has checked what an event holds."""
    duration = event.get("duration_ns", 0)
    return duration if isinstance(duration, int) else 0


_MAKERS: dict[str, Callable[[Fields], tuple[str, str]]] = {
    "run.start": _run_start, "run.end": _run_end, "step.start": lambda e: ("", CALM),
    "step.end": _step_end, "model.request": _model_request, "model.response": _model_response,
    "reasoning": lambda e: (short(e.get("text", "")), CALM),
    "tool.selected": _tool_quiet, "tool.arguments": _tool, "tool.invoked": _tool_quiet,
    "tool.returned": _tool_returned, "tool.parsed": _tool_quiet, "tool.reentered": _tool_quiet,
    "scope.decision": _decision, "signal": _signal, "incident": _incident, "command": _command,
    "receipt": _receipt, "loss": _loss, "status": _status, "iteration": _iteration,
    "memory.read": _memory, "memory.write": _memory, "handoff": _handoff, "heartbeat": _calm,
    "approval.requested": _requested, "approval.decided": _decided,
    "escalation.raised": _raised, "escalation.acknowledged": _acknowledged,
    "passage": _passage,
    "output": lambda e: (short(e.get("content")), PLAIN),
}  # fmt: skip
