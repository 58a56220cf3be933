"""Conditions are checked against what each tool takes, and a task's past against many threads."""

from collections.abc import Mapping
from threading import Barrier, Thread

import pytest
from tests.policy.sequences.acting import Agent

from checkrein.policy.conditions.compiling import kind_of_schema, standard_names
from checkrein.policy.conditions.types import Kind
from checkrein.policy.sequences.compiling import RULES_MAX, compile_sequences
from checkrein.policy.sequences.types import SequenceError

FIELDS = {
    "refund": {"order": {"type": "string"}, "cents": {"type": "integer"}},
    "approve": {"order": {"type": "string"}, "by": {"type": "string"}},
    "approve_all": {"by": {"type": "string"}},
}


def names_of(tool: str) -> Mapping[str, Kind]:
    if tool not in FIELDS:
        return standard_names()
    return standard_names(
        kind_of_schema({
            "type": "object", "properties": FIELDS[tool], "required": list(FIELDS[tool]),
            "additionalProperties": False,
        })
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "deny refund(args.cents > 100) unless formerly approve(args.order == call.args.order)",
        "deny refund unless formerly approve|approve_all(args.by == 'chief')",
        "deny refund unless formerly appr*(args.anything == call.args.order)",
        "deny refund if sum args.cents of refund > 5",
    ],
)
def test_rules_that_fit_the_tools(text: str) -> None:
    assert len(compile_sequences([text], names_of)) == 1


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("deny refund(args.cent > 100) if once approve", 13, "cent"),
        ("deny refund(args.cents > '5') if once approve", 13, ""),
        ("deny refund unless formerly approve(args.oder == call.args.order)", 37, "oder"),
        ("deny refund unless formerly approve(args.order == call.args.oder)", 51, "oder"),
        ("deny refund unless formerly approve(args.order == call.args.cents)", 37, ""),
        ("deny refund unless formerly approve|approve_all(args.order == 'x')", 49, "order"),
        ("deny refund if sum args.euro of refund > 5", 20, "euro"),
    ],
)
def test_rules_that_do_not_are_refused_at_their_place(text: str, column: int, said: str) -> None:
    with pytest.raises(SequenceError) as error:
        compile_sequences([text], names_of)
    assert said in error.value.problem
    assert column <= error.value.column < column + 20


def test_there_is_a_bound_on_rules() -> None:
    with pytest.raises(SequenceError, match="there may be"):
        compile_sequences(["deny a if once b"] * (RULES_MAX + 1))


def test_what_two_rules_follow_is_followed_once() -> None:
    rules = compile_sequences([
        "deny a if count b within 1h > 3", "ask a if count b within 1h > 2",
        "deny c if count b within 2h > 3",
    ])  # fmt: skip
    assert len(rules._tracks) == 2


def test_a_limit_of_a_task_holds_for_runs_in_many_threads() -> None:
    first = Agent("deny pay if sum args.n of pay in task > 50")
    first.task = first.rules.new_state()
    agents = [Agent(task=first, run_id=f"r{number}") for number in range(8)]
    barrier = Barrier(len(agents))
    made: list[int] = []

    def pays(agent: Agent) -> None:
        barrier.wait(10)
        for _ in range(40):
            deed = agent.deed("pay", n=1)
            with agent.task.lock:
                if agent.rules.judge(agent.state, deed, agent.task) is not None:
                    continue
                agent.rules.began(agent.state, deed, agent.task)
                made.append(1)
            agent.ends(deed)

    threads = [Thread(target=pays, args=(agent,)) for agent in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 50
