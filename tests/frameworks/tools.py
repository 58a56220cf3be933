"""What the frameworks' tools do in these tests, and what must have been recorded of them."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import checkrein
from checkrein.events import types as events
from checkrein.sdk import context
from checkrein.sdk.errors import Halted
from checkrein.sdk.rein import Ordered
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


async def check_halted_between(record: Recorded, act: Callable[[], Awaitable[Any]]) -> None:
    """The run is halted while the model's answer, which asks for a tool, comes in: the tool does
    not run, and `Halted` gets out of the framework and of the run."""
    before = record.record

    def halt_on_answer(kind: Any, *given: Any, **fields: Any) -> int:
        number = before(kind, *given, **fields)
        if kind is events.ModelResponse:
            order = Ordered(command_id="c", verb="halt", epoch=1, reason="enough")
            context.current().obey(order)
        return number

    record.record = halt_on_answer  # type: ignore[method-assign] # acts at this very moment
    with pytest.raises(Halted, match="enough"):
        async with checkrein.run(goal="to be halted"):
            await act()
    assert ran == []
    assert record.of(events.ToolInvoked) == []
    assert len(record.of(events.ModelRequest)) == 1
    assert record.of(events.RunEnd)[-1].status == "halted"
