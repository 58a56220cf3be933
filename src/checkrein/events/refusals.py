"""What the buses and those who listen on them refused, and what was seen to go past the gateway, as
events.

Whoever refuses somebody that spoke for somebody else, or an order that is not to be obeyed, says so
with one `scope.decision`: verdict deny, `rule` one of the two below, `action` what was tried. So it
takes the way of every other refusal: archive copies it to the audit stream, and the detectors of
`detect.forgery` make signals of it, which become incidents. Nobody else makes them.

A supervisor that sees its program go past the gateway, or does not let it, says so in the same way.
"""

from typing import Any

from checkrein.events.types import ScopeDecision

FORGERY = "forgery"
"""The agent named in the event tried to speak, or to listen, as somebody else."""
FALSE_ORDER = "false-order"
"""An order came to the agent named in the event that its holder must not obey."""
BYPASS = "bypass"
"""The run went past the gateway (verdict allow), or tried to and was not let (deny)."""

TEXT_CHARS_MAX = 500


def refused(common: dict[str, Any], rule: str, guard: str, tried: str, why: str) -> ScopeDecision:
    """`common`: the common fields. `guard` names who refused: bus, control, archive or holder."""
    action = {"kind": "bus", "name": tried[:TEXT_CHARS_MAX], "arguments": None}
    return ScopeDecision(
        **common, call_id="", action=action, verdict="deny", guard=guard, rule=rule,
        reason=why[:TEXT_CHARS_MAX], advice="ESCALATE",
    )  # fmt: skip


def bypass(kind: str, to: str, pid: int, words: str, refused: bool) -> dict[str, Any]:
    """The own fields of a `scope.decision` about a way past the gateway. `kind`: connection,
    datagram, name service, listen, cpu, raw, or the name of a system call."""
    return {
        "call_id": "",
        "action": {"kind": kind, "name": to[:TEXT_CHARS_MAX], "arguments": {"pid": pid}},
        "verdict": "deny" if refused else "allow",
        "guard": "supervisor",
        "rule": BYPASS,
        "reason": words[:TEXT_CHARS_MAX],
        "advice": "ESCALATE",
    }
