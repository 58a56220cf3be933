"""What the frameworks' tools do in these tests, and what must have been recorded of them."""

from checkrein.sdk.errors import Halted

from checkrein.events import types as events
from tests.recorded import Recorded

SIX = [
    "tool.selected",
    "tool.arguments",
    "tool.invoked",
    "tool.returned",
    "tool.parsed",
    "tool.reentered",
]

ran: list[str] = []


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    ran.append("add")
    return a + b


def forbidden(what: str) -> str:
    """Is not in the pact."""
    ran.append("forbidden")
    return what


def fail(a: int) -> str:
    """Fails."""
    raise ValueError(f"{a} is too small")


def stop(a: int) -> str:
    """Is halted in its middle."""
    raise Halted("enough", f"run-{a}", "operator")


def check_added(record: Recorded) -> None:
    """The whole life of one call, each part once."""
    assert record.types("tool.") == SIX
    assert {e.call_id for e in record.events if hasattr(e, "tool")} == {
        record.of(events.ToolSelected)[0].call_id
    }
    assert record.of(events.ToolArguments)[0].arguments == {"a": 2, "b": 3}
    (returned,) = record.of(events.ToolReturned)
    assert (returned.status, returned.result) in (("ok", 5), ("ok", "5"))
    assert returned.duration_ns > 0


def check_denied(record: Recorded, told: str) -> None:
    """Refused before it ran, recorded, and the model read why."""
    assert ran == []
    assert record.types("tool.") == ["tool.selected", "tool.arguments", "tool.returned"]
    (returned,) = record.of(events.ToolReturned)
    assert returned.status == "denied"
    (decision,) = record.of(events.ScopeDecision)
    assert (decision.verdict, decision.rule) == ("deny", "tools.pact")
    assert "not in the pact" in told
    assert "ESCALATE" in told


def check_failed(record: Recorded) -> None:
    (returned,) = record.of(events.ToolReturned)
    assert returned.status == "error"
    assert "1 is too small" in returned.error
