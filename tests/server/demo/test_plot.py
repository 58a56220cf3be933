"""What is told of events, and what counts as caught."""

from typing import Any

import pytest

from checkrein.server.demo.cast import CAST, Part
from checkrein.server.demo.plot import TEXT_CHARS_MAX, Plot
from checkrein.world.ids import uuid7_from

LOOPS = Part("loops", "repeats itself", "plain", ("loop",))
GOOD = Part("good", "behaves", "plain")
SINCE_MS = 1_760_000_000_000
RUN = uuid7_from(SINCE_MS + 5, bytes(10))
BEFORE = uuid7_from(SINCE_MS - 1, bytes(10))
END = {"type": "run.end", "agent": "good", "run_id": RUN, "status": "completed"}


def signal(agent: str, detector: str, level: str = "breach", why: str = "so") -> dict[str, Any]:
    return {
        "type": "signal", "agent": agent, "run_id": RUN, "detector": detector, "level": level,
        "why": why,
    }  # fmt: skip


def test_caught_by_its_detector_only() -> None:
    plot = Plot([LOOPS, GOOD])
    assert [line.what for line in plot.hear(signal("loops", "silence"), 1)] == ["signal"]
    assert plot.missing == ["loops", "good"]
    lines = plot.hear(signal("loops", "loop", "warn", "again and again"), 2.5)
    assert [line.what for line in lines] == ["signal", "caught"]
    catch = plot.catches["loops"]
    assert (catch.at_s, catch.by, catch.why) == (2.5, "loop", "again and again")
    assert [line.what for line in plot.hear(signal("loops", "loop"), 3)] == ["signal"]
    assert plot.catches["loops"].at_s == 2.5


def test_the_good_are_left_alone() -> None:
    plot = Plot([GOOD])
    plot.hear(signal("good", "silence", "warn"), 1)
    assert [line.what for line in plot.hear(END, 2)] == ["run.end", "caught"]
    assert plot.complete


def test_the_good_who_were_not() -> None:
    plot = Plot([GOOD])
    plot.hear(signal("good", "budget", why="too much"), 1)
    plot.hear(END, 2)
    assert not plot.complete
    assert plot.spoiled == {"good": "budget: too much"}


def test_an_end_of_another_kind_is_not_it() -> None:
    plot = Plot([GOOD])
    plot.hear(END | {"status": "failed"}, 2)
    assert plot.spoiled == {"good": "ended as failed"}


def test_strangers_are_passed_over() -> None:
    plot = Plot([GOOD])
    assert plot.hear(signal("somebody", "loop"), 1) == []
    assert plot.hear({"type": "signal"}, 1) == []


@pytest.mark.parametrize("run_id", [BEFORE, "", "no id"])
def test_runs_of_another_play_are_passed_over(run_id: str) -> None:
    """The recorders of a play that was cut off are found and sent by the next one."""
    plot = Plot([GOOD], SINCE_MS)
    assert plot.hear(END | {"run_id": run_id}, 1) == []
    assert plot.hear(END, 2) != []


def test_what_repeats_is_told_a_few_times() -> None:
    plot = Plot([GOOD])
    call = {"type": "tool.invoked", "agent": "good", "run_id": RUN, "tool": "t"}
    assert sum(len(plot.hear(call, n)) for n in range(10)) == 3
    deny = END | {"type": "scope.decision", "verdict": "deny", "rule": "loops"}
    assert sum(len(plot.hear(deny, n)) for n in range(10)) == 1


def test_what_agents_say_cannot_write_on_the_terminal() -> None:
    plot = Plot([GOOD])
    (line,) = plot.hear(signal("good", "loop", why="\x1b[2Jgone\n" + "x" * 9_999), 1)
    assert "\x1b" not in line.text
    assert "\n" not in line.text
    assert len(line.text) == TEXT_CHARS_MAX


def test_receipts_name_the_rungs() -> None:
    plot = Plot([GOOD])
    receipt = {
        "type": "receipt", "agent": "good", "run_id": RUN, "verb": "halt", "command_id": "c",
        "how": [{"rung": "freeze", "ms": 4.2}, {"rung": "kill", "ms": 31}],
        "confirmed": "supervisor",
    }  # fmt: skip
    (line,) = plot.hear(receipt, 1)
    assert line.text == "halt: freeze 4 ms, kill 31 ms; confirmed by supervisor"
    assert plot.hear(receipt, 2) == []


def test_the_cast_is_there() -> None:
    """Each has a program, a pact that can be read, and a script."""
    from checkrein.policy.pact import load
    from checkrein.server.demo.scripts import SCRIPTS

    frameworks = " ".join(part.made_with for part in CAST)
    for name in ("LangGraph", "OpenAI Agents SDK", "Pydantic AI", "plain OpenAI", "Anthropic"):
        assert name in frameworks
    for part in CAST:
        assert part.program.exists()
        pact = load(part.pact.read_text(), str(part.pact))
        assert (pact.pact, bool(pact.job), bool(pact.owner)) == (part.agent, True, True)
        assert part.agent in SCRIPTS
        assert part.lacks == []
