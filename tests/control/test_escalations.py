"""Escalations: a clock that goes on over restarts, and an incident when nobody takes note."""

from typing import Any

import pytest
from tests.control.rig import TASK, Answers, Holder, Rig

from checkrein.bus.approvals import Acknowledge, Asked, Decided, Escalation, GateQuery, Raise
from checkrein.control.types import Acknowledging, Seeking
from checkrein.events.types import Incident


@pytest.fixture
def rig() -> Rig:
    rig = Rig(1)
    Holder(rig, "s1").start("r1")
    rig.run_for(1)
    return rig


def escalate(rig: Rig, ident: str = "escalation-1", session: str = "s1", **changes: Any) -> Asked:
    answers = Answers(Asked)
    fields: dict[str, Any] = {
        "escalation_id": ident, "run_id": "r1", "task_id": TASK, "agent": "bot", "to": "oncall",
        "why": "a large refund", "within_s": 300.0,
    } | changes  # fmt: skip
    rig.give(Seeking(session, Raise(**fields), answers))
    rig.run_for(0.1)
    found: Asked = answers[0]
    return found


def acknowledge(rig: Rig, *ids: str, by: str = "ann", **changes: Any) -> Decided:
    answers = Answers(Decided)
    request = Acknowledge(ids=list(ids), by=by, note="on it", **changes)
    rig.give(Acknowledging(request, answers))
    rig.run_for(0.1)
    found: Decided = answers[0]
    return found


def one(rig: Rig, ident: str = "escalation-1") -> Escalation:
    assert rig.control is not None
    (found,) = rig.control.escalations(GateQuery(ids=[ident]))
    return found


def incidents(rig: Rig) -> list[Incident]:
    return [event for event in rig.events.values() if isinstance(event, Incident)]


def test_acknowledged_in_time_there_is_no_incident(rig: Rig) -> None:
    assert escalate(rig).status == "open"
    assert one(rig).due_at - one(rig).raised_at == 300 * 10**9
    rig.run_for(200)
    assert acknowledge(rig, "escalation-1").done[0].ok
    rig.run_for(200)
    assert incidents(rig) == []
    assert (one(rig).status, one(rig).acknowledged_by, one(rig).note) == (
        "acknowledged", "ann", "on it",
    )  # fmt: skip
    assert [n.what for n in rig.notices] == ["escalation.raised"]


def test_not_acknowledged_in_time_is_an_incident_of_its_own_and_told_outside(rig: Rig) -> None:
    escalate(rig)
    rig.run_for(301)
    (incident,) = incidents(rig)
    assert (incident.severity, incident.detector, incident.run_id) == ("high", "escalation", "r1")
    assert "oncall, not acknowledged within 300 s: a large refund" in incident.why
    assert [n.what for n in rig.notices] == ["escalation.raised", "escalation.overdue"]
    assert one(rig).status == "overdue"
    assert acknowledge(rig, "escalation-1").done[0].ok  # late, and on record as late
    record = rig.audit["escalation-1/acknowledged"].record
    assert record["late"] is True


def test_the_clock_goes_on_while_control_is_away(rig: Rig) -> None:
    escalate(rig)
    rig.run_for(100)
    rig.crash()
    rig.run_for(150)
    rig.boot()
    rig.run_for(1)
    assert one(rig).status == "open"
    rig.run_for(60)
    assert one(rig).status == "overdue"
    assert len(incidents(rig)) == 1


def test_what_was_raised_while_nobody_listened_has_waited_already(rig: Rig) -> None:
    assert escalate(rig, waited_s=250.0).left_s == pytest.approx(50.0, abs=1)
    rig.run_for(55)
    assert one(rig).status == "overdue"


def test_the_same_one_is_raised_once(rig: Rig) -> None:
    for _ in range(3):
        escalate(rig)
    assert rig.control is not None
    assert len(rig.control.escalations(GateQuery(all=True))) == 1
    assert len(rig.notices) == 1


def test_without_a_clock_it_waits_for_ever(rig: Rig) -> None:
    escalate(rig, within_s=0.0)
    rig.run_for(3600)
    assert (one(rig).status, one(rig).due_at) == ("open", 0)


def test_the_agent_itself_acknowledges_nothing(rig: Rig) -> None:
    escalate(rig)
    for by in ("bot", "agent:bot", "s1", "run:r1"):
        assert "whom it is about" in acknowledge(rig, "escalation-1", by=by).done[0].error
    assert "a person must" in acknowledge(rig, "escalation-1", by_kind="agent").error
    assert "already" in (
        acknowledge(rig, "escalation-1") and acknowledge(rig, "escalation-1").done[0].error
    )


def test_a_run_escalated_by_command_has_a_clock_too(rig: Rig) -> None:
    rig.ask("escalate", "run:r1", arguments={"within_s": 60, "to": "lead"}, reason="odd")
    rig.run_for(1)
    assert rig.control is not None
    (raised,) = rig.control.escalations(GateQuery())
    assert (raised.to, raised.why, raised.run_id) == ("lead", "odd", "r1")
    rig.run_for(61)
    assert [i.detector for i in incidents(rig) if i.detector == "escalation"] == ["escalation"]


def test_a_run_that_was_over_before_it_was_registered_has_raised_it(rig: Rig) -> None:
    assert escalate(rig, run_id="r9").status == "open"
    assert (one(rig).run_id, one(rig).agent) == ("r9", "bot")
    rig.run_for(301)
    assert [incident.run_id for incident in incidents(rig)] == ["r9"]


def test_nobody_raises_one_for_another_agent(rig: Rig) -> None:
    Holder(rig, "s2").start("r2", agent="other")
    rig.run_for(1)
    assert escalate(rig, session="s2").status == "unknown"
    escalate(rig)
    assert escalate(rig, session="s2", run_id="r2", agent="other").status == "denied"
