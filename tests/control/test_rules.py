"""The table of `rules`, row by row."""

from typing import Any

import pytest

from checkrein.bus.messages import Progress
from checkrein.control.rules import NOT_GUARANTEED, judge, read


@pytest.mark.parametrize(
    ("verb", "wanted", "status", "act"),
    [
        ("pause", "running", "running", "send"),
        ("pause", "paused", "running", "join"),
        ("pause", "halted", "running", "refuse"),
        ("resume", "running", "running", "nothing"),
        ("resume", "running", "paused", "send"),
        ("resume", "paused", "running", "send"),
        ("resume", "halted", "paused", "refuse"),
        ("halt", "running", "waiting_tool", "send"),
        ("halt", "paused", "paused", "send"),
        ("halt", "halted", "halted", "join"),
        ("inject", "running", "running", "send"),
        ("inject", "paused", "paused", "send"),
        ("inject", "halted", "halted", "refuse"),
        ("approve", "halted", "running", "refuse"),
        ("inspect", "halted", "halted", "send"),
        ("contain", "halted", "halted", "send"),
    ],
)
def test_what_a_verb_does_in_which_state(verb: str, wanted: Any, status: str, act: str) -> None:
    ruling = judge(verb, wanted, status)
    assert ruling.act == act
    assert bool(ruling.why) == (act != "send")


def said(stage: str, by: str = "supervisor", confirmed: bool = False, detail: str = "") -> Progress:
    return Progress(
        command_id="c", session="s", run_id="r", epoch=1, stage=stage, ms=1, at=1, by=by,  # type: ignore[arg-type]
        confirmed=confirmed, detail=detail,
    )  # fmt: skip


@pytest.mark.parametrize("stage", ["fence", "freeze", "capture", "unwind", "kill", "revoke"])
def test_only_eyes_outside_the_agent_confirm_a_halt(stage: str) -> None:
    assert read("halt", said(stage, confirmed=True), "supervisor").confirmed == "supervisor"
    assert read("halt", said(stage), "supervisor").outcome == ""
    assert read("halt", said(stage, "sdk", True), "supervisor").outcome == ""
    assert read("halt", said(stage, "supervisor", True), "sdk").confirmed == ""


def test_the_agents_own_word_closes_a_halt_only_where_nobody_else_can_see() -> None:
    word = read("halt", said("obeyed", "sdk"), "sdk")
    assert (word.outcome, word.confirmed, word.note) == ("obeyed", "", NOT_GUARANTEED)
    assert read("halt", said("obeyed", "sdk"), "supervisor").outcome == ""


@pytest.mark.parametrize("why", ["replay", "old epoch", "halted", "no such run here", ""])
def test_nobody_may_refuse_a_halt(why: str) -> None:
    assert read("halt", said("refused", detail=why), "supervisor").outcome == ""
    assert read("halt", said("failed", detail=why), "supervisor").outcome == ""


def test_other_verbs_may_be_refused_or_fail_with_the_reason() -> None:
    word = read("inject", said("refused", detail="halted"), "supervisor")
    assert (word.outcome, word.note) == ("refused", "the holder refused: halted")
    assert read("pause", said("failed", detail="no cgroup"), "supervisor").note == "no cgroup"
    assert read("inject", said("refused", detail="replay"), "supervisor").outcome == ""


@pytest.mark.parametrize(
    ("verb", "stage", "outcome"),
    [
        ("pause", "held", "obeyed"), ("pause", "delivered", ""), ("pause", "resumed", ""),
        ("resume", "resumed", "obeyed"), ("resume", "held", ""), ("inject", "obeyed", "obeyed"),
        ("inject", "held", ""), ("approve", "delivered", ""),
    ],
)  # fmt: skip
def test_which_stage_is_obedience(verb: str, stage: str, outcome: str) -> None:
    assert read(verb, said(stage), "supervisor").outcome == outcome


def test_a_frozen_process_is_a_paused_one_if_that_was_seen() -> None:
    assert read("pause", said("freeze", confirmed=True), "supervisor").outcome == "obeyed"
    assert read("pause", said("freeze"), "supervisor").outcome == ""
