"""How a run stands, in one word."""

from collections.abc import Mapping

from checkrein.sdk.hold import Hold


def status_of(hold: Hold, in_flight: Mapping[str, tuple[str, str, int]]) -> str:
    """Of a run that has not ended, as `ps` shows it. `in_flight`: (kind, name, since) by call."""
    rein = hold.rein
    if rein.state == "paused":
        escalated = rein.order is not None and rein.order.verb == "escalate"
        return "escalated" if escalated else "paused"
    if rein.state == "halted":
        return "halted"
    if rein.lost_contact:
        return "paused"
    if hold.waits_for_human:
        return "waiting_human"
    calls = list(in_flight.values())
    return f"waiting_{calls[-1][0]}" if calls else "running"
