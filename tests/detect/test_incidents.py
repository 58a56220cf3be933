"""Signals become incidents: one for each task, at its root, told of when it matters."""

from checkrein.detect.incidents import GROUP_NS, Incidents, event_of, shown
from checkrein.events.types import Handoff, Signal
from tests.detect.made import SECOND_NS, START_NS, Run

TASK = 7


def signal(run: Run, level: str = "breach", after_s: int = 0, **fields: object) -> Signal:
    common = run.common() | {"ts": START_NS + after_s * SECOND_NS}
    named = {"detector": "loop", "signal_id": f"s{run.run_id}{run.seq}", "why": "because"}
    return Signal(**common, level=level, **{**named, **fields})  # type: ignore[arg-type]


def test_a_breach_opens_and_what_follows_is_counted_in() -> None:
    incidents, run = Incidents(), Run()
    opened = incidents.add(signal(run))
    assert opened is not None
    case, told = opened
    assert (case.severity, case.count, told) == ("medium", 1, True)
    tellings = [incidents.add(signal(run, after_s=n)) for n in range(1, 8)]
    assert [each is not None and each[1] for each in tellings] == [
        True, False, True, False, False, False, True,
    ]  # fmt: skip
    assert case.count == 8
    assert len(incidents.tasks) == 1


def test_warnings_open_nothing_but_join() -> None:
    incidents, run = Incidents(), Run()
    assert incidents.add(signal(run, "warn")) is None
    incidents.add(signal(run))
    joined = incidents.add(signal(run, "warn"))
    assert joined is not None
    assert joined[0].count == 2
    assert joined[0].severity == "medium"


def test_runaway_is_critical_and_death_is_high() -> None:
    incidents = Incidents()
    for number, fields, severity in (
        (1, {"runaway": True}, "critical"),
        (2, {"detector": "process-death"}, "high"),
        (3, {"detector": "scope"}, "medium"),
    ):
        opened = incidents.add(signal(Run(number), **fields))
        assert opened is not None
        assert opened[0].severity == severity


def test_a_chain_of_agents_is_one_incident_at_its_earliest_ancestor() -> None:
    incidents = Incidents()
    planner, executor, validator = (Run(n, f"agent-{n}", TASK) for n in (1, 2, 3))
    incidents.link(planner.starts())
    incidents.link(executor.starts(parent_run_id=planner.run_id))
    incidents.link(Handoff(**executor.common(), to_agent="agent-3", to_run_id=validator.run_id))
    incidents.add(signal(validator, after_s=5))
    incidents.add(signal(executor, after_s=3))
    last = incidents.add(signal(planner, after_s=1))
    assert last is not None
    case, told = last
    assert told
    assert (case.run_id, case.agent) == (planner.run_id, "agent-1")
    assert case.severity == "high", "it has spread"
    assert len(case.members) == 3
    assert len({event_of(case, "role:watch").incident_id}) == 1
    after = incidents.add(signal(validator, after_s=9))
    assert after is not None
    assert after[0].run_id == planner.run_id


def test_an_ancestor_that_fails_later_is_not_the_cause() -> None:
    incidents = Incidents()
    parent, child = Run(1, "parent", TASK), Run(2, "child", TASK)
    incidents.link(child.starts(parent_run_id=parent.run_id))
    incidents.add(signal(child, after_s=1))
    later = incidents.add(signal(parent, after_s=60))
    assert later is not None
    assert later[0].agent == "child"


def test_after_half_an_hour_of_calm_it_is_another_incident() -> None:
    incidents, run = Incidents(), Run()
    first, second = incidents.add(signal(run)), incidents.add(
        signal(run, after_s=GROUP_NS // SECOND_NS + 1)
    )  # fmt: skip
    assert first is not None
    assert second is not None
    assert first[0].incident_id != second[0].incident_id


def test_the_same_signals_make_the_same_incident_and_survive_a_snapshot() -> None:
    run = Run()
    signals = [signal(run, after_s=n) for n in range(5)]
    one, other = Incidents(), Incidents()
    for each in signals[:3]:
        one.add(each)
    other.restore(one.snapshot())
    for each in signals[3:]:
        assert one.add(each) == other.add(each)
    assert other.tasks == one.tasks


def test_tasks_are_bounded() -> None:
    incidents = Incidents(tasks_max=5)
    for number in range(1, 20):
        incidents.add(signal(Run(number)))
    assert len(incidents.tasks) == 5


def test_a_runs_end_becomes_the_outcome() -> None:
    incidents, run = Incidents(), Run()
    incidents.add(signal(run))
    case = incidents.ended(run.ends("halted"))
    assert case is not None
    assert shown(case)["outcome"] == "halted"
    assert incidents.ended(run.ends("halted")) is None
    assert incidents.ended(Run(2).ends()) is None


def test_a_forgery_is_not_hidden_in_another_incident() -> None:
    incidents, run = Incidents(), Run()
    death = incidents.add(signal(run, detector="process-death"))
    forged = incidents.add(signal(run, after_s=1, detector="forgery"))
    again = incidents.add(signal(run, after_s=2, detector="forgery"))
    assert death is not None
    assert forged is not None
    assert again is not None
    assert forged[0] is again[0]
    assert forged[0] is not death[0]
    assert (forged[0].detector, forged[0].severity, forged[0].count) == ("forgery", "high", 2)
    assert death[0].count == 1
