"""Events for tests, without the fields that do not matter."""

from typing import Any

from checkrein.detect.catalogue import detectors
from checkrein.detect.engine import Engine, Found, Halt
from checkrein.events.types import (
    Base,
    Heartbeat,
    ModelRequest,
    ModelResponse,
    RunEnd,
    RunStart,
    ScopeDecision,
    Status,
    StepStart,
    ToolArguments,
    ToolInvoked,
    ToolReturned,
    ToolSelected,
)
from checkrein.events.types import Signal as Signal
from checkrein.policy.pact import default_pact
from checkrein.policy.types import Pact
from checkrein.world.ids import uuid7_from
from tests.detect.loops import Made

START_NS = 1_760_000_000_000_000_000
SECOND_NS = 1_000_000_000


class Run:
    """One run of an agent; every method gives the event it names, numbered and a second later."""

    def __init__(self, number: int = 1, agent: str = "bot", task: int = 0) -> None:
        self.recorder = f"rec-{number}"
        self.run_id = uuid7_from(START_NS // 1_000_000, number.to_bytes(10, "big"))
        self.task_id = f"{task or number:032x}"
        self.agent = agent
        self.seq = 0
        self.ts = START_NS
        self.step = 0

    def common(self) -> dict[str, Any]:
        self.seq += 1
        self.ts += SECOND_NS
        return {
            "recorder": self.recorder, "seq": self.seq, "ts": self.ts, "environment": "test",
            "room": "lab", "agent": self.agent, "run_id": self.run_id, "task_id": self.task_id,
            "step": self.step,
        }  # fmt: skip

    def starts(self, **fields: Any) -> RunStart:
        return RunStart(**self.common(), **fields)

    def ends(self, status: Any = "completed", **fields: Any) -> RunEnd:
        return RunEnd(**self.common(), status=status, **fields)

    def steps(self) -> StepStart:
        self.step += 1
        return StepStart(**self.common())

    def beats(self, in_flight: int = 0) -> Heartbeat:
        calls = [{"call_id": f"c{n}", "kind": "tool"} for n in range(in_flight)]
        return Heartbeat(**self.common(), interval_ns=10 * SECOND_NS, in_flight=calls)

    def is_(self, status: str, **detail: Any) -> Status:
        return Status(**self.common(), status=status, detail=detail)

    def asks_model(self, call_id: str = "m", tools: list[str] | None = None) -> ModelRequest:
        return ModelRequest(**self.common(), call_id=call_id, tools=tools or [])

    def hears_model(self, tokens: int, **fields: Any) -> ModelResponse:
        return ModelResponse(**self.common(), call_id="m", output_tokens=tokens, **fields)

    def refused(
        self,
        guard: str,
        rule: str,
        tool: str,
        advice: str = "ESCALATE",
        runaway: bool | None = None,
    ) -> ScopeDecision:
        """What may not be tried again is of the class that halts, unless it is said otherwise."""
        return ScopeDecision(
            **self.common(), call_id="c", action={"kind": "tool", "name": tool}, verdict="deny",
            guard=guard, rule=rule, reason=f"`{tool}` is refused by {rule}", advice=advice,
            runaway=advice == "TERMINAL" if runaway is None else runaway,
        )  # fmt: skip

    def calls(self, made: Made, kind: str = "", duration_ns: int = 5_000_000) -> list[Base]:
        call = {"call_id": f"c{self.seq}", "tool": made.tool}
        return [
            ToolSelected(**self.common(), **call),
            ToolArguments(**self.common(), **call, arguments=made.arguments),
            ToolInvoked(**self.common(), **call, kind=kind),
            ToolReturned(
                **self.common(), **call, result=made.result, duration_ns=duration_ns,
                status="error" if made.failed else "ok",
                error=str(made.result) if made.failed else "",
            ),
        ]  # fmt: skip


class Watched:
    """An engine with all detectors under one pact, and what it has said."""

    def __init__(self, pact: Pact | None = None) -> None:
        self.errors: list[tuple[str, str]] = []
        held = pact or default_pact()
        self.engine = Engine(detectors(), lambda *about: held, self._report)
        self.said: list[Found] = []

    def _report(self, detector: str, error: str) -> None:
        self.errors.append((detector, error))

    def see(self, *events: Base | list[Base]) -> list[Found]:
        """What these events lead to."""
        found: list[Found] = []
        for each in events:
            for event in each if isinstance(each, list) else [each]:
                found += self.engine.observe(event)
        self.said += found
        return found

    def tick(self, now_ns: int) -> list[Found]:
        found = self.engine.tick(now_ns)
        self.said += found
        return found


def signals(found: list[Found], detector: str = "") -> list[Signal]:
    return [each for each in found if isinstance(each, Signal) and detector in ("", each.detector)]


def levels(found: list[Found], detector: str) -> list[str]:
    return ["runaway" if each.runaway else each.level for each in signals(found, detector)]


def halts(found: list[Found]) -> list[Halt]:
    return [each for each in found if isinstance(each, Halt)]
