"""Recorded events through flow rules."""

from typing import Any

from checkrein.events.types import Reasoning, RunEnd, RunStart, ToolArguments, ToolReturned
from checkrein.policy.flow.compiling import compile_flow
from checkrein.policy.flow.following import CALLS_OPEN_MAX, RUNS_OPEN_MAX, Follower
from checkrein.policy.flow.profile import Lesson

FLOW = compile_flow(["untrusted"], {}, [], lambda tool: {})


def at(run_id: str) -> dict[str, Any]:
    return {
        "recorder": "test", "seq": 1, "ts": 1, "environment": "test", "room": "test",
        "agent": "test", "run_id": run_id, "task_id": "task", "step": 1,
    }  # fmt: skip


def test_a_recorded_run_is_judged_as_a_live_one() -> None:
    ended: list[tuple[str, str, Lesson]] = []
    follower = Follower(FLOW, ended=lambda *what: ended.append(what))
    goal = "write to ann@corp.example"
    follower.event(RunStart(goal=goal, task_type="mail", labels={"system": "I am Bo"}, **at("1")))
    follower.event(Reasoning(role="user", text="or to joe@corp.example", **at("1")))
    follower.event(ToolArguments(call_id="1", tool="read_page", arguments={}, **at("1")))
    follower.event(
        ToolReturned(call_id="1", tool="read_page", result="thief@bank.example", **at("1"))
    )

    def send(call_id: str, to: str) -> Any:
        arguments = {"to": to}
        found = follower.event(
            ToolArguments(call_id=call_id, tool="send_email", arguments=arguments, **at("1"))
        )
        follower.event(ToolReturned(call_id=call_id, tool="send_email", result="sent", **at("1")))
        return found

    assert send("2", "ann@corp.example") is None
    assert send("3", "joe@corp.example") is None
    assert send("4", "thief@bank.example") is not None
    follower.event(RunEnd(status="completed", **at("1")))
    [(run_id, task_type, lesson)] = ended
    assert (run_id, task_type) == ("1", "mail")
    assert lesson.sinks == {"send_email"}
    assert lesson.edges == {"read_page > send_email.to"}


def test_runs_do_not_mix_and_are_forgotten_in_their_order() -> None:
    follower = Follower(FLOW)
    for number in range(RUNS_OPEN_MAX + 50):
        follower.event(RunStart(goal=f"write to user{number}@corp.example", **at(f"{number}")))
    for number in range(CALLS_OPEN_MAX + 50):
        follower.event(
            ToolArguments(call_id=f"{number}", tool="send_email", arguments="x", **at("900"))
        )
    own = {"to": "user900@corp.example"}
    assert (
        follower.event(ToolArguments(call_id="a", tool="send", arguments=own, **at("900"))) is None
    )
    assert follower.event(ToolArguments(call_id="a", tool="send", arguments=own, **at("901")))
    assert follower.event(RunEnd(status="completed", **at("0"))) is None
